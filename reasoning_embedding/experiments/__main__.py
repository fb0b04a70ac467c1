"""One stage of an experiment, done in this process: ``python -m reasoning_embedding.experiments FOLDER STAGE``."""

from __future__ import annotations

import sys
from pathlib import Path

from reasoning_embedding.checkpoints import ExperimentFolder
from reasoning_embedding.checkpoints.locks import hold
from reasoning_embedding.errors import ReasoningEmbeddingError
from reasoning_embedding.files import full_disk
from reasoning_embedding.orphans import end_with_parent

from .processes import PATIENCE
from .runner import read_experiment
from .stages import find_stage


def main() -> int:
    """Do the stage that the command line names; the exit code says how it ended."""
    end_with_parent()
    try:
        folder = ExperimentFolder(Path(sys.argv[1]))
        stage = find_stage(read_experiment(folder), sys.argv[2])
        with hold(
            folder.records / f".{stage.name}.lock",
            refusal=f"another process still works on stage {stage.name}",
            todo="wait for it to end, and run this again",
            patience=PATIENCE,
        ):
            stage.work(folder, lambda line: print(line, flush=True))  # noqa: T201
    except ReasoningEmbeddingError as error:
        print(f"error: {error}", flush=True)  # noqa: T201
        return error.exit_code
    except Exception as error:
        if (told := full_disk(error)) is None:
            raise
        print(f"error: {told}", flush=True)  # noqa: T201
        return told.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
