"""Growing backbones: a base, given or pre-trained, then its SFT, DPO and RLVR siblings (trl)."""

from .gates import GateReport, check_gates, check_recorded_gates, measure
from .grow import grow, grow_stage
from .stage_identity import is_current, settings_hash

__all__ = [
    "GateReport",
    "check_gates",
    "check_recorded_gates",
    "grow",
    "grow_stage",
    "is_current",
    "measure",
    "settings_hash",
]
