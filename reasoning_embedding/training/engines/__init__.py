"""How the ranks of a job hold one model: replicated, or sharded by FSDP2 or DeepSpeed."""

from .base import Engine, MakeOptimizer
from .build import build_engine
from .replicated import Replicated
