"""Records of finished stages, by which an experiment that is run again does only what is left."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from reasoning_embedding.checkpoints import ExperimentFolder
from reasoning_embedding.files import hash_file, read_json, write_json

from .stages import Stage


class StageRecords:
    """Which stages are finished with the inputs of now.

    Parameters
    ----------
    folder : ExperimentFolder
        A finished stage leaves a record there: the key of its inputs, the hash of its output, its seconds by the clock
        and of processor time.
    stages : sequence of Stage
        Parents first.
    """

    def __init__(self, folder: ExperimentFolder, stages: Sequence[Stage]) -> None:
        self._folder = folder
        self._stages = {stage.name: stage for stage in stages}
        self._hash = functools.cache(hash_file)
        self._outputs: dict[str, str | None] = {}

    def is_done(self, name: str) -> bool:
        """Whether a stage and all it needs are finished with the inputs of now, and its output still there."""
        if not all(self.is_done(need) for need in self._stages[name].needs):
            return False
        record = self._record(name)
        keys = (self._key(name), self._key(name, as_before=True))
        return record.get("key") in keys and record.get("output") == self._output(name)

    def finish(self, name: str, seconds: float, processor_seconds: float = 0.0) -> None:
        """Record a stage that has just ended well; those it needs are recorded."""
        self._outputs.pop(name, None)
        record = {
            "key": self._key(name),
            "output": self._output(name),
            "seconds": round(seconds, 1),
            "processor_seconds": round(processor_seconds, 1),
        }
        write_json(self._folder.record(name), record, summed=True)

    def _key(self, name: str, *, as_before: bool = False) -> str:
        stage = self._stages[name]
        outputs = {need: self._record(need).get("output") for need in stage.needs}
        return stage.key(outputs, self._hash, as_before=as_before)

    def _record(self, name: str) -> dict[str, Any]:
        return read_json(
            self._folder.record(name), default={}, todo="delete the file; the stage is done again"
        )

    def _output(self, name: str) -> str | None:
        """Output of a stage; large models are read once."""
        if name not in self._outputs:
            self._outputs[name] = self._stages[name].output(self._folder)
        return self._outputs[name]
