"""Comparing the models of an experiment, pair by pair and step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder, write_json

from .references import resolve

Report = Callable[[str], None]


def analyze_pairs(analysis: config.Analysis, folder: Path, report: Report) -> None:
    """Compare every pair and follow every trajectory of an analysis."""
    from reasoning_embedding.hrsa.compare import compare
    from reasoning_embedding.hrsa.realignment import realign

    for pair in analysis.pairs:
        result = compare(
            pair.name,
            resolve(pair.a, folder),
            resolve(pair.b, folder),
            analysis,
            reference_a=pair.a,
            reference_b=pair.b,
            report=report,
        )
        write_json(folder / "hrsa" / "pairs" / f"{pair.name}.json", result)
        report(f"pair {pair.name}: done")
    for track in analysis.realignment:
        run = RunFolder(folder / "runs" / track.run)
        against = f"run:{track.run}@first" if track.against == "first" else track.against
        result = realign(
            track.name,
            resolve(against, folder),
            {step: run.checkpoint(step) for step in run.steps()},
            analysis,
            run=track.run,
            against=against,
            report=report,
        )
        write_json(folder / "hrsa" / "realignment" / f"{track.name}.json", result)
        report(f"realignment {track.name}: done")
