"""Growing backbones: a base, given or pre-trained, then its SFT, DPO and RLVR siblings (trl)."""

from .grow import grow, grow_stage
from .stage_identity import is_current

__all__ = ["grow", "grow_stage", "is_current"]
