"""One stage of an experiment, done in this process: ``python -m reasoning_embedding.experiments FOLDER STAGE``."""

from __future__ import annotations

import sys
from pathlib import Path

from reasoning_embedding.checkpoints import ExperimentFolder
from reasoning_embedding.errors import ReasoningEmbeddingError

from .runner import read_experiment
from .stages import find_stage


def main() -> int:
    """Do the stage that the command line names; the exit code says how it ended."""
    try:
        folder = ExperimentFolder(Path(sys.argv[1]))
        stage = find_stage(read_experiment(folder), sys.argv[2])
        stage.work(folder, lambda line: print(line, flush=True))  # noqa: T201
    except ReasoningEmbeddingError as error:
        print(f"error: {error}", flush=True)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
