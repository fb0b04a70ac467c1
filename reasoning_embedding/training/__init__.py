"""The step and the loop."""

from .loop import Examine, train
from .selection import Score
from .step import StepOutput, build_loss, contrastive_step
