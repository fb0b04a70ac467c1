"""A sweep's runs are what the train verb takes; a run out of memory says what to set and goes on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.training import loop

Write = Callable[..., Path]
Rembed = Callable[..., Any]


def test_the_line_that_is_printed_trains_the_run(write_run: Write, rembed: Rembed, tmp_path: Path) -> None:
    sweep = {"kind": "sweep", "name": "s", "output_dir": str(tmp_path / "out"), "base": str(write_run())}
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps(sweep | {"grid": {"seed": [0, 1]}}))
    line = rembed("sweep", path, "--dry-run", "--shard", "2/2").output.strip()
    words = shlex.split(line)
    assert words[:4] == ["accelerate", "launch", "-m", "reasoning_embedding"]
    rembed(*words[4:])
    rows = [row.split() for row in rembed("sweep", path, "--list").output.splitlines()]
    loss = json.loads(RunFolder(tmp_path / "out/s/runs" / rows[2][0]).metrics.read_text().splitlines()[-1])[
        "loss"
    ]
    assert [row[1:] for row in rows[1:3]] == [
        ["0", "-", "-", "waiting"],
        ["1", "6", f"{loss:.4f}", "finished"],
    ]
    settings = config.load_config(tmp_path / "out/s/configs" / f"{rows[2][0]}.yaml").config
    assert (settings.seed, settings.logging.group) == (1, "s")
    assert "finished before" in rembed(*words[4:]).output


def test_a_run_out_of_memory_names_the_setting_and_goes_on(
    write_run: Write, rembed: Rembed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = loop.contrastive_step, 0

    def full(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")
        return real(*arguments, **options)

    monkeypatch.setattr(loop, "contrastive_step", full)
    output = rembed("train", write_run(memory="replay", pack_tokens=2048), code=1).output
    assert "out of memory (CUDA out of memory. Tried to allocate 20.00 GiB.)" in output
    assert "set training.pack_tokens=1024 (now 2048)" in output
    assert "Traceback" not in output
    assert RunFolder(tmp_path / "runs" / "run").steps() == [0, 3]
    rembed("train", write_run(memory="replay", pack_tokens=2048), "--resume")
    assert RunFolder(tmp_path / "runs" / "run").steps() == [0, 3, 6]
