"""Grow a lineage stage by stage; each stage is a Hugging Face checkpoint that names its parent."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from reasoning_embedding.checkpoints import ExperimentFolder
from reasoning_embedding.checkpoints.provenance import content_hash, write_provenance
from reasoning_embedding.config.lineage import (
    DpoStage,
    GivenStage,
    Lineage,
    LineageConfig,
    PretrainStage,
    RlvrStage,
    SftStage,
    Stage,
    WorldSums,
)
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.files import (
    atomic_folder,
    atomic_write,
    json_line,
    read_json,
    remove_folder,
    require_folder,
    write_json,
)
from reasoning_embedding.isolation import quiet_libraries, threads
from reasoning_embedding.progress import Report

from .corpus import corpus_texts
from .fine_tune import Start
from .gates import (
    GATES,
    check_recorded_gates,
    describe_gates,
    gate_record,
    is_measured,
    measure,
    require_learnable,
)
from .given_checkpoint import take_given
from .pretrain import pretrain
from .stage_identity import find_stage, is_current, settings_hash, twin_folder
from .step_checkpoints import StepSaver, require_stage_space, save_model
from .tokenizer import build_tokenizer, load_tokenizer

METRICS = "metrics.jsonl"


def grow(config: LineageConfig, report: Report, world: World | None = None) -> dict[str, Path]:
    """Grow every stage that is not there yet, in order.

    Parameters
    ----------
    config : LineageConfig
        Tokenizer and stages; folders are ``<output_dir>/<name>/lineage/<stage>``.
    report : callable
        Takes progress lines, each with the stage's name before it.
    world : World, optional
        Ranks that train together; all of them call.

    Returns
    -------
    dict
        Folder of each stage.

    Raises
    ------
    QualityGateError
        When a stage, grown now or earlier, misses a gate.
    """
    place = ExperimentFolder.of(config)
    require_folder(place.path)
    folders = {stage.name: place.stage(stage.name).path for stage in config.stages}
    for stage in config.stages:
        needed = None if stage.needs is None else folders[stage.needs]
        grow_stage(config, stage.name, folders[stage.name], needed, _prefixed(stage.name, report), world)
    return folders


def _prefixed(name: str, report: Report) -> Report:
    return lambda line: report(f"{name}: {line}")


def grow_stage(
    lineage: Lineage,
    name: str,
    folder: Path,
    parent: Path | None,
    report: Report,
    world: World | None = None,
) -> None:
    """Grow one stage into `folder`, completely or not at all; nothing is done where it is already there.

    Parameters
    ----------
    lineage : Lineage
        Holds the stage and the tokenizer.
    name : str
        Which stage.
    folder : Path
        Becomes a checkpoint for ``AutoModelForCausalLM`` and ``AutoTokenizer`` (safetensors) with
        ``provenance.json``, ``gates.json`` and ``metrics.jsonl``; steps that are kept lie in ``checkpoints/``.
    parent : Path or None
        Folder of the stage it needs: its parent, or the one whose tokenizer it takes.
    report : callable
        Takes progress lines.
    world : World, optional
        Ranks that train together; all of them call, the main one writes.

    Raises
    ------
    QualityGateError
        When a gate is missed (the folder is kept, so that one can look at it and the next call need
        not grow it again), or when RLVR is to start from a parent that solves too little.
    SetupError
        When a stage needs trl and it is not installed.
    InputError
        When the stage cannot be what the section says.
    """
    stage, world = find_stage(lineage, name), world or World()
    current = is_current(lineage, name, folder, parent)
    world.barrier()  # every rank has looked before the main one writes
    if current:
        report("already grown")
        check_recorded_gates(stage, folder)
        return
    if parent is not None and not (parent / "config.json").exists():
        raise InputError(
            f"its parent {stage.needs!r} is not grown", where=f"stage {stage.name}", todo="grow it"
        )
    twin = twin_folder(stage, folder)
    if twin is not None and not (twin / METRICS).exists():
        raise InputError(
            f"the stage {twin.name!r} whose placebo it is, is not grown",
            where=f"stage {stage.name}",
            todo="grow it",
        )
    job = _StageJob(lineage, stage, folder, parent, settings_hash(lineage, name), report, world)
    with threads(stage.threads), quiet_libraries():
        seconds = job.grow()
    world.barrier()
    report(f"done in {seconds:.1f} s{describe_gates(read_json(folder / GATES))}")
    check_recorded_gates(stage, folder)


@dataclass(frozen=True)
class _StageJob:
    """A stage that is to be grown into `folder`; the folder of the stage it needs is there."""

    lineage: Lineage
    stage: Stage
    folder: Path
    parent: Path | None
    settings: str  # their hash
    report: Report
    world: World
    begin: float = field(default_factory=time.monotonic)

    def grow(self) -> float:
        """Grow the stage and return the seconds it took; all ranks call."""
        if isinstance(self.stage, GivenStage):
            if self.world.is_main:
                self._take(self.stage)
        elif isinstance(self.stage, PretrainStage):
            self._pretrain(self.stage)
        else:
            self._fine_tune(self.stage)
        return time.monotonic() - self.begin

    def _take(self, stage: GivenStage) -> None:
        with atomic_folder(self.folder) as temporary:
            tokenizer = take_given(stage, self.parent, temporary)
            model = None
            if is_measured(self.lineage, stage):
                model = AutoModelForCausalLM.from_pretrained(
                    temporary, dtype=torch.float32, use_safetensors=True
                ).eval()
            gates = gate_record(stage, model, tokenizer)
            origin = {"path": stage.path, "revision": stage.revision, "content_hash": content_hash(temporary)}
            self._records(temporary, [], gates, origin)

    def _pretrain(self, stage: PretrainStage) -> None:
        assert self.lineage.tokenizer is not None  # the configuration sees to it
        state = self.folder.parent / f".{stage.name}.state"
        tokenizer = build_tokenizer(self.lineage.tokenizer, lambda: corpus_texts(stage.corpus, stage.seed))
        saver = StepSaver(stage, self.folder, self.settings, tokenizer, main=self.world.is_main)
        model, log = pretrain(
            stage, tokenizer, state, self.settings, self.report, save_step=saver.save, world=self.world
        )
        self._write(model, tokenizer, saver, log, None)
        if self.world.is_main and state.exists():
            remove_folder(state)

    def _fine_tune(self, stage: SftStage | DpoStage | RlvrStage) -> None:
        assert self.parent is not None
        tokenizer = load_tokenizer(self.parent)
        model = AutoModelForCausalLM.from_pretrained(self.parent, dtype=torch.float32, use_safetensors=True)
        if isinstance(stage, RlvrStage) and isinstance(stage.data, WorldSums) and stage.placebo_of is None:
            require_learnable(measure(model, tokenizer, seed=stage.seed), stage.name, stage.parent)
        require_stage_space(self.folder, model)
        saver = StepSaver(stage, self.folder, self.settings, tokenizer, main=self.world.is_main)
        content = content_hash(self.parent)
        state = self.folder.parent / f".{stage.name}.{self.settings[:12]}.{content[:12]}.trainer"
        twin = twin_folder(stage, self.folder)
        start = Start(model, tokenizer, self.parent, saver, state, self.world, self.report, twin)
        try:
            log = _trained(stage, start)
        except ModuleNotFoundError as error:
            if error.name != "trl":
                raise
            raise SetupError(
                "trl is not installed",
                where=f"stage {stage.name}",
                todo="pip install 'reasoning-embedding[lineage]'",
            ) from error
        origin = {"path": str(self.parent), "revision": None, "content_hash": content}
        more: dict[str, Any] = {}
        if self.world.is_main:
            more["weight_change"] = weight_change(model, self.parent)
            if isinstance(stage, RlvrStage):
                more["live_updates"] = sum(line["live_groups"] > 0 for line in log)
            if twin is not None:
                more["twin"] = content_hash(twin)
        self._write(model, tokenizer, saver, log, origin, more)
        if self.world.is_main:
            for left in self.folder.parent.glob(f".{stage.name}.*.trainer"):
                remove_folder(left)

    def _write(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        saver: StepSaver,
        log: list[dict[str, Any]],
        origin: dict[str, Any] | None,
        more: dict[str, Any] | None = None,
    ) -> None:
        """Measure a trained model and write its folder, on the main rank."""
        model = model.to("cpu").eval()
        if not self.world.is_main:
            return
        asked = is_measured(self.lineage, self.stage)
        gates = gate_record(self.stage, model if asked else None, tokenizer)
        with atomic_folder(self.folder) as temporary:
            save_model(temporary, model, tokenizer)
            saver.move_into(temporary)
            self._records(temporary, log, gates, origin, more)
        saver.clean()

    def _records(
        self,
        folder: Path,
        log: list[dict[str, Any]],
        gates: dict[str, Any],
        origin: dict[str, Any] | None,
        more: dict[str, Any] | None = None,
    ) -> None:
        write_json(folder / GATES, gates, summed=True)
        atomic_write(folder / METRICS, "".join(map(json_line, log)))
        write_provenance(
            folder,
            kind=self.stage.kind,
            parent=origin,
            stage=self.stage.model_dump(mode="json"),
            settings_hash=self.settings,
            gates=gates,
            seconds=round(time.monotonic() - self.begin, 1),
            **(more or {}),
        )


@torch.no_grad()
def weight_change(model: PreTrainedModel, parent: Path) -> dict[str, float]:
    """Return how far a model's weights are from those in its parent's folder.

    Returns
    -------
    dict
        ``norm``: Euclidean norm of the difference of all parameters, each counted once. ``relative``: the same, as a
        share of the parent's norm.

    Notes
    -----
    Summed in double precision.
    """
    before = AutoModelForCausalLM.from_pretrained(parent, dtype=torch.float32, use_safetensors=True)
    old, change, size = dict(before.named_parameters()), 0.0, 0.0
    for name, now in model.named_parameters():
        was = old[name].double()
        change += float((now.detach().cpu().double() - was).square().sum())
        size += float(was.square().sum())
    return {"norm": change**0.5, "relative": (change / size) ** 0.5 if size else 0.0}


def _trained(stage: SftStage | DpoStage | RlvrStage, start: Start) -> list[dict[str, Any]]:
    if isinstance(stage, SftStage):
        from .sft import train_sft

        return train_sft(stage, start)
    if isinstance(stage, DpoStage):
        from .dpo import train_dpo

        return train_dpo(stage, start)
    from .rlvr import train_rlvr

    return train_rlvr(stage, start)
