"""Tables, figures and pages of experiments, runs, sweeps, merges and data sets."""

from __future__ import annotations

from pathlib import Path

from reasoning_embedding.progress import Report

__all__ = ["build", "summary_table"]


def build(folder: Path, report: Report | None = None) -> Path:
    """Write ``report/`` into an experiment, run or sweep folder: ``index.html``, tables and figures.

    Parameters
    ----------
    folder : Path
        An experiment folder, the folder of one run, or that of a sweep.
    report : callable, optional
        Told in a line what is being done.

    Returns
    -------
    Path
        ``report/index.html``; it opens offline, from any place, with the files beside it.

    Raises
    ------
    InputError
        If the folder holds none of them, or a file in it is damaged.
    SetupError
        If matplotlib or plotly is needed and not installed, or the folder cannot be written.
    """
    from .pages.experiment import build_experiment
    from .pages.sweep import build_sweep

    make = build_sweep if _is_sweep(folder) else build_experiment
    return make(folder, report or (lambda _: None))


def summary_table(folder: Path) -> str:
    """The most important tables of a folder as plain text, as wide as the terminal.

    Raises
    ------
    InputError
        As :func:`build`.
    """
    from .pages.experiment import experiment_summary
    from .pages.sweep import sweep_summary

    return sweep_summary(folder) if _is_sweep(folder) else experiment_summary(folder)


def _is_sweep(folder: Path) -> bool:
    from reasoning_embedding.checkpoints.layout import SweepFolder

    return SweepFolder(folder).index.exists()
