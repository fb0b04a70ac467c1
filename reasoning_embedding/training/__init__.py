"""The step and the loop."""

from .loop import train
from .step import StepOutput, build_loss, contrastive_step
