"""The step and the loop."""

from .callbacks import Callbacks, CheckpointInfo, StepInfo, StopTraining
from .engines import Engine, Replicated
from .loop import Examine, train
from .selection import Score
from .step import StepOutput, contrastive_step
