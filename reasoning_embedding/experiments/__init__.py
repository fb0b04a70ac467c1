"""Experiments: stages that run once, side by side."""

from reasoning_embedding.experiments.evaluations import chosen_steps, query_template
from reasoning_embedding.experiments.runner import read_experiment, run_config, run_experiment
