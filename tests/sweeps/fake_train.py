"""Stands in for ``rembed train CONFIG --resume`` in tests of sweeps: the same folder, lock and exit codes, no torch.

A run whose name stands in ``<sweep>/fail`` fails at its second step, and ends itself there with a signal if it stands
in ``<sweep>/killed``. With a file ``<sweep>/slow`` a step takes seconds. Every step made is a line of ``made.log``.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

from reasoning_embedding.orphans import end_with_parent

STEPS = 4


def main() -> int:
    end_with_parent()
    file = Path(sys.argv[sys.argv.index("train") + 1])
    sweep = file.parent.parent
    run = sweep / "runs" / file.stem
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("error: another process is training in this run folder", flush=True)
            return 2
        manifest = run / "manifest.json"
        manifest.with_suffix(".partial").write_text(json.dumps({"steps": STEPS}))
        manifest.with_suffix(".partial").rename(manifest)
        for step in range(STEPS + 1):
            checkpoint = run / "checkpoints" / f"step-{step:06d}"
            if checkpoint.exists():
                continue
            time.sleep(3.0 if (sweep / "slow").exists() else 0.02)
            if step == 2 and (sweep / "killed" / file.stem).exists():
                os.kill(os.getpid(), signal.SIGKILL)
            if step == 2 and (sweep / "fail" / file.stem).exists():
                print("error: the data are gone, token=hf_abcdefghijklmnop\n  -> bring them back", flush=True)
                return 2
            with (run / "metrics.jsonl").open("a") as metrics:
                metrics.write(
                    json.dumps({"step": step, "loss": 1 / (1 + step), "accuracy": step / 10}) + "\n"
                )
            with (sweep / "made.log").open("a") as made:
                made.write(f"{file.stem} {step}\n")
            checkpoint.mkdir(parents=True)
            print(f"step {step}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
