"""One stage on its way into its folder: taken as it is, pre-trained or fine-tuned, measured and written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from reasoning_embedding.checkpoints.provenance import content_hash, write_provenance
from reasoning_embedding.config.lineage import (
    DpoStage,
    GivenStage,
    Lineage,
    PretrainStage,
    RlvrStage,
    SftStage,
    Stage,
)
from reasoning_embedding.config.stage_data import WorldSums
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import SetupError
from reasoning_embedding.files import atomic_folder, atomic_write, remove_folder, write_json

from .corpus import corpus_texts
from .fine_tune import Start
from .gates import measure, require_learnable
from .given import take_given
from .pretrain import pretrain
from .records import GATES, asks_for_sums, gate_record
from .steps import StepSaver, save_model
from .tokenizer import build_tokenizer, load_tokenizer

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class StageJob:
    """A stage that is to be grown.

    Attributes
    ----------
    lineage : Lineage
        Holds the tokenizer.
    stage : Stage
        What to grow.
    folder : Path
        Where to.
    parent : Path or None
        Folder of the stage it needs, which is there.
    settings : str
        Hash of the stage's settings.
    report : callable
        Takes progress lines.
    world : World
        Ranks that train together; the main one writes.
    """

    lineage: Lineage
    stage: Stage
    folder: Path
    parent: Path | None
    settings: str
    report: Callable[[str], None]
    world: World

    def do(self) -> float:
        """Grow the stage and return the seconds it took; all ranks call."""
        begin = time.monotonic()
        if isinstance(self.stage, GivenStage):
            if self.world.is_main:
                self._take(self.stage, begin)
        elif isinstance(self.stage, PretrainStage):
            self._pretrain(self.stage, begin)
        else:
            self._fine_tune(self.stage, begin)
        return time.monotonic() - begin

    def _take(self, stage: GivenStage, begin: float) -> None:
        with atomic_folder(self.folder) as temporary:
            tokenizer = take_given(stage, self.parent, temporary)
            model = None
            if asks_for_sums(self.lineage, stage):
                model = AutoModelForCausalLM.from_pretrained(
                    temporary, dtype=torch.float32, use_safetensors=True
                ).eval()
            gates = gate_record(stage, model, tokenizer)
            origin = {"path": stage.path, "revision": stage.revision, "content_hash": content_hash(temporary)}
            self._records(temporary, [], gates, begin, origin)

    def _pretrain(self, stage: PretrainStage, begin: float) -> None:
        assert self.lineage.tokenizer is not None  # the configuration sees to it
        state = self.folder.parent / f".{stage.name}.state"
        tokenizer = build_tokenizer(self.lineage.tokenizer, lambda: corpus_texts(stage.corpus, stage.seed))
        saver = StepSaver(stage, self.folder, self.settings, tokenizer, main=self.world.is_main)
        model, log = pretrain(
            stage, tokenizer, state, self.settings, self.report, save_step=saver.save, world=self.world
        )
        self._write(model, tokenizer, saver, log, begin, None)
        if self.world.is_main and state.exists():
            remove_folder(state)

    def _fine_tune(self, stage: SftStage | DpoStage | RlvrStage, begin: float) -> None:
        assert self.parent is not None
        tokenizer = load_tokenizer(self.parent)
        model = AutoModelForCausalLM.from_pretrained(self.parent, dtype=torch.float32, use_safetensors=True)
        if isinstance(stage, RlvrStage) and isinstance(stage.data, WorldSums):
            require_learnable(measure(model, tokenizer, seed=stage.seed), stage.name, stage.parent)
        saver = StepSaver(stage, self.folder, self.settings, tokenizer, main=self.world.is_main)
        content = content_hash(self.parent)
        state = self.folder.parent / f".{stage.name}.{self.settings[:12]}.{content[:12]}.trainer"
        start = Start(model, tokenizer, self.parent, saver, state, self.world, self.report)
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
        self._write(model, tokenizer, saver, log, begin, origin)
        if self.world.is_main:
            for left in self.folder.parent.glob(f".{stage.name}.*.trainer"):
                remove_folder(left)

    def _write(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        saver: StepSaver,
        log: list[dict[str, Any]],
        begin: float,
        origin: dict[str, Any] | None,
    ) -> None:
        """Measure a trained model and write its folder, on the main rank."""
        model = model.to("cpu").eval()
        if not self.world.is_main:
            return
        asked = asks_for_sums(self.lineage, self.stage)
        gates = gate_record(self.stage, model if asked else None, tokenizer)
        with atomic_folder(self.folder) as temporary:
            save_model(temporary, model, tokenizer)
            saver.move_into(temporary)
            self._records(temporary, log, gates, begin, origin)
        saver.clean()

    def _records(
        self,
        folder: Path,
        log: list[dict[str, Any]],
        gates: dict[str, Any],
        begin: float,
        origin: dict[str, Any] | None,
    ) -> None:
        write_json(folder / GATES, gates)
        atomic_write(folder / METRICS, "".join(json.dumps(line) + "\n" for line in log))
        write_provenance(
            folder,
            kind=self.stage.kind,
            parent=origin,
            stage=self.stage.model_dump(mode="json"),
            settings_hash=self.settings,
            gates=gates,
            seconds=round(time.monotonic() - begin, 1),
        )


def _trained(stage: SftStage | DpoStage | RlvrStage, start: Start) -> list[dict[str, Any]]:
    if isinstance(stage, SftStage):
        from .sft import train_sft

        return train_sft(stage, start)
    if isinstance(stage, DpoStage):
        from .dpo import train_dpo

        return train_dpo(stage, start)
    from .rlvr import train_rlvr

    return train_rlvr(stage, start)
