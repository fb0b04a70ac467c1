"""Tables, figures and one self-contained HTML page of an experiment or a run."""

from .pages.experiment_page import build, summary_table

__all__ = ["build", "summary_table"]
