"""Running stages as processes, as many side by side as asked for, each after what it needs."""

from __future__ import annotations

import sys
from pathlib import Path

from reasoning_embedding.errors import ReasoningEmbeddingError

from .processes import Ended, Pool, Report
from .stages import Ledger, Stage


class StageError(ReasoningEmbeddingError):
    """A stage failed; carries the exit code of its process."""

    def __init__(self, ended: Ended) -> None:
        todo = f"its whole log is {ended.log}; finished stages are kept"
        super().__init__(ended.message, where=ended.name, todo=todo)
        self.exit_code = ended.code if ended.code > 0 else 1


def run_stages(folder: Path, stages: list[Stage], ledger: Ledger, *, jobs: int, report: Report) -> None:
    """Run what is not done yet, each stage after what it needs.

    Parameters
    ----------
    folder : Path
        The experiment's folder, which holds its resolved configuration.
    stages : list of Stage
        Parents first.
    ledger : Ledger
        Knows what is done.
    jobs : int
        Processes side by side.
    report : callable
        Takes each line a stage says, with the stage's name before it.

    Raises
    ------
    StageError
        When a stage fails; the others are asked to stop and save first.
    """
    done = {stage.name for stage in stages if ledger.is_done(stage.name)}
    for name in (stage.name for stage in stages if stage.name in done):
        report(f"[{name}] done before")
    waiting = [stage for stage in stages if stage.name not in done]
    with Pool(jobs, report) as pool:
        while waiting or pool.busy:
            ready = [stage for stage in waiting if done.issuperset((*stage.needs, *stage.after))]
            for stage in ready[: pool.free]:
                waiting.remove(stage)
                command = [
                    sys.executable,
                    "-m",
                    "reasoning_embedding.experiments.work",
                    str(folder),
                    stage.name,
                ]
                pool.start(stage.name, command, folder / "logs" / f"{stage.name}.log")
            ended = pool.wait()
            if ended.code:
                raise StageError(ended)
            ledger.finish(ended.name, ended.seconds)
            done.add(ended.name)
            report(f"[{ended.name}] done in {ended.seconds:.0f} s")
