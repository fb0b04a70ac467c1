"""What a reader calls the runs, models and pairs of an experiment: ``RLVR, lineage 2``, ``SFT v base, embedders``."""

from __future__ import annotations

from .labels import replicate_label, training_kind
from .records import AnalysedPair, Experiment

_RUN, _LINEAGE = "run:", "lineage:"
_STEPS = {"first": "step 0", "last": ""}


def run_title(experiment: Experiment, name: str) -> str:
    """A run by the kind of training of its backbone, and its seed where several share that backbone.

    Where that does not tell runs apart, or the backbone was not grown here, its own name.
    """
    if experiment.replicates is not None:
        return replicate_label(name)
    titles = {run.name: _by_backbone(experiment, run.name) for run in experiment.runs}
    title = titles.get(name, name)
    return title if list(titles.values()).count(title) == 1 else name


def _by_backbone(experiment: Experiment, name: str) -> str:
    run = next(run for run in experiment.runs if run.name == name)
    kinds = {backbone.name: backbone.kind for backbone in experiment.backbones}
    if run.backbone not in kinds:
        return name
    title = _stage_title(experiment, run.backbone)
    alike = (run.backbone, run.readout)
    shared = [other for other in experiment.runs if (other.backbone, other.readout) == alike]
    seed = f"seed {run.seed}" if len(shared) > 1 and run.seed is not None else ""
    return ", ".join(part for part in (title, run.readout, seed) if part)


def _stage_title(experiment: Experiment, name: str) -> str:
    """A grown backbone by its kind of training, where only one was grown so."""
    if experiment.replicates is not None:
        return replicate_label(name)
    kinds = {backbone.name: backbone.kind for backbone in experiment.backbones}
    kind = kinds.get(name, "")
    return training_kind(kind) if kind != training_kind(kind) and [*kinds.values()].count(kind) == 1 else name


def model_title(experiment: Experiment, reference: str) -> str:
    """A model by its reference: ``run:rlvr@last`` is ``RLVR``, a step other than the last is said."""
    if reference.startswith(_LINEAGE):
        return _stage_title(experiment, reference.removeprefix(_LINEAGE))
    if not reference.startswith(_RUN):
        return reference
    name, _, step = reference.removeprefix(_RUN).partition("@")
    step = _STEPS.get(step, f"step {step}")
    return ", ".join(part for part in (run_title(experiment, name), step) if part)


def pair_title(experiment: Experiment, pair: AnalysedPair) -> str:
    """``SFT v base (embedders)``, the second model first as it is what is asked about; its name where that tells less."""
    title = _pair_title(experiment, pair)
    shared = [other for other in experiment.pairs if _pair_title(experiment, other) == title]
    return title if len(shared) <= 1 else pair.name


def _pair_title(experiment: Experiment, pair: AnalysedPair) -> str:
    sides = [one.reference for one in (pair.a, pair.b)]
    for prefix, kind in ((_RUN, "embedders"), (_LINEAGE, "language models")):
        if all(side.startswith(prefix) for side in sides):
            first, second = (model_title(experiment, side) for side in sides)
            return f"{second} v {first} ({kind})"
    return pair.name
