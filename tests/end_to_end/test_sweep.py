"""A sweep's runs are what the train verb takes; a run out of memory says what to set and goes on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reasoning_embedding import config, training
from reasoning_embedding.checkpoints import RunFolder, SweepFolder
from reasoning_embedding.reports.reading import read_sweep
from reasoning_embedding.sweeps.ledger import SweepLedger
from reasoning_embedding.training import loop
from tests.damage import damaged_files, is_refused, reading, same_or_refused

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


def test_a_byte_of_any_file(write_run: Write, rembed: Rembed, tmp_path: Path) -> None:
    """Readers of a sweep give the same or refuse; a run's configuration is written anew before anything is trained by it."""
    base = write_run("base", steps=2)
    sweep = {"kind": "sweep", "name": "s", "output_dir": str(tmp_path / "out"), "base": str(base)}
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps(sweep | {"grid": {"seed": [0, 1]}}))
    loaded = config.load_config(path)
    runs, ledger = config.sweep_runs(loaded), SweepLedger(SweepFolder.of(loaded.config).path)
    ledger.write(loaded.config, runs, loaded.text)
    for run in runs:
        settings = config.load_config(ledger.folder.config_file(run.name)).config
        training.train(settings, text="as written", report=lambda _: None)
        ledger.record(run.name, "finished")

    def numbers() -> dict[str, Any]:
        return {"page": reading(lambda: repr(read_sweep(ledger.folder.path)))}

    wanted, seen = numbers(), 0
    assert not is_refused(wanted["page"])
    for file in damaged_files(ledger.folder.path):
        found = numbers()
        assert same_or_refused(found, wanted), file
        seen += found != wanted
        assert found != wanted or file.parent != ledger.folder.config_file(runs[0].name).parent, file
    assert seen >= 6
    configuration = ledger.folder.config_file(runs[1].name)
    content = configuration.read_text()
    configuration.write_text(content.replace("seed: 1", "seed: 7"))
    assert configuration.read_text() != content
    assert is_refused(numbers()["page"])
    ledger.write(loaded.config, runs, loaded.text)
    assert configuration.read_text() == content
    assert numbers() == wanted


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
