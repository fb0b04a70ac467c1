"""Experiments: stages that run once, side by side."""

from .evaluations import chosen_steps, query_template
from .experiment import read_experiment, run_config, run_experiment
from .references import pick_step, resolve
