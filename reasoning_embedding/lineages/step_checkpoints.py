"""Step checkpoints of a stage: plain model folders, kept aside until the stage is complete."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder, checkpoint_steps, step_name, write_provenance
from reasoning_embedding.config.lineage import StageBase, TrainedStage
from reasoning_embedding.files import atomic_folder, require_space


def wanted_steps(stage: StageBase) -> list[int]:
    """Steps whose models a stage keeps; empty where it asks for none."""
    if not isinstance(stage, TrainedStage) or stage.checkpoints is None:
        return []
    kept = config.Checkpoints(every=stage.checkpoints.every, log_spaced=stage.checkpoints.log_spaced)
    return checkpoint_steps(kept, stage.steps)


class StepSaver:
    """Saves the steps a stage keeps.

    Parameters
    ----------
    stage : TrainedStage
        Its ``checkpoints`` say which steps.
    folder : Path
        The stage's folder, which need not be there yet.
    settings : str
        Hash of the stage's settings: models of other settings are never taken for its own.
    tokenizer : PreTrainedTokenizerBase
        Saved beside each model.
    main : bool
        Whether this rank writes.
    """

    def __init__(
        self,
        stage: TrainedStage,
        folder: Path,
        settings: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        main: bool,
    ) -> None:
        self._stage, self._tokenizer = stage, tokenizer
        self._steps = frozenset(wanted_steps(stage)) if main else frozenset()
        #: Steps between two states of a trainer; 0: none.
        self.state_every = stage.checkpoints.every if stage.checkpoints else 0
        self._pattern = folder.parent, f".{folder.name}.*.steps"
        self._aside = folder.parent / f".{folder.name}.{settings[:12]}.steps"

    def save(self, step: int, model: PreTrainedModel) -> None:
        """Save a step's model if the stage keeps that step."""
        if step not in self._steps:
            return
        with atomic_folder(self._aside / step_name(step)) as temporary:
            save_model(temporary, model, self._tokenizer)
            stage = self._stage.model_dump(mode="json")
            write_provenance(temporary, kind=stage["kind"], parent=None, step=step, stage=stage)

    def move_into(self, folder: Path) -> None:
        """Move the saved steps into the folder of the finished stage."""
        if self._steps:
            shutil.move(self._aside, RunFolder(folder).checkpoints)

    def clean(self) -> None:
        """Remove what unfinished attempts, with these or other settings, left behind."""
        parent, pattern = self._pattern
        for left in parent.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)


def require_stage_space(folder: Path, model: PreTrainedModel) -> None:
    """Refuse to grow a model whose folder, and the resumable state beside it, find no room on the disk.

    Raises
    ------
    SetupError
        If fewer bytes are free there; models of kept steps are not counted.
    """
    weights = sum(value.numel() * value.element_size() for value in model.parameters())
    moments = 2 * sum(4 * value.numel() for value in model.parameters() if value.requires_grad)
    require_space(folder, 2 * weights + moments, "a stage's model and its resumable state")


def save_model(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a causal language model and its tokenizer, ready for generation, into a folder."""
    cached = model.config.use_cache
    model.config.use_cache = True  # trainers switch it off
    model.save_pretrained(folder)
    model.config.use_cache = cached
    tokenizer.save_pretrained(folder)


class SaveSteps(TrainerCallback):
    """Lets a trainer of transformers save the steps a stage keeps, and its own state at the regular ones."""

    def __init__(self, saver: StepSaver) -> None:
        self._saver = saver

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **_: Any,
    ) -> None:
        """Save the parent, which is step 0."""
        assert model is not None
        self._saver.save(state.global_step, model)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **_: Any,
    ) -> None:
        """Save the step that has just been taken, and ask for a state where one is due."""
        assert model is not None
        self._saver.save(state.global_step, model)
        every = self._saver.state_every
        if every and state.global_step % every == 0 and state.global_step < state.max_steps:
            control.should_save = True
