"""Experiments: stages that run once, side by side; the one start of a training run; merges that are scored."""

from reasoning_embedding.experiments.runner import read_experiment, run_experiment
from reasoning_embedding.experiments.training import run_config, start_training
