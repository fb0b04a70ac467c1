"""SIGKILL at random moments: always resumable, nothing half-written is taken for whole, the same bits in the end.

``SOAK_KILLS`` sets the kills of each test; ``make soak`` sets many. The moments differ from run to run unless
``SOAK_SEED`` is given; a failure prints it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder, SweepFolder
from reasoning_embedding.checkpoints.embedder import load_embedder, verify_content
from reasoning_embedding.checkpoints.locks import is_held
from reasoning_embedding.checkpoints.state import read_state
from reasoning_embedding.training import train
from tests.factories import read_lines
from tests.processes import Forked, Job, torchrun

KILLS = int(os.environ.get("SOAK_KILLS", "3"))
SEED = int(os.environ.get("SOAK_SEED", str(random.randrange(10**6))))
Write = Callable[..., Path]


def took(job: Job) -> float:
    """Seconds of an undisturbed job."""
    started = time.monotonic()
    assert Forked(job).wait() == 0
    return time.monotonic() - started


def kill_at_random(job: Job, check: Callable[[], object], longest: float, kills: int = KILLS) -> None:
    """Let `job` begin and SIGKILL it within `longest` seconds, `kills` times, with `check` after each.

    A job that ends before its moment must have ended well.
    """
    print(f"SOAK_SEED={SEED}")
    chance = random.Random(SEED)
    for _ in range(kills):
        child = Forked(job)
        time.sleep(chance.uniform(0.0, longest))
        child.send(signal.SIGKILL)
        assert child.wait() in (0, -signal.SIGKILL), "a job that was not hit failed by itself"
        check()


def settings_of(path: Path) -> config.RunConfig:
    return config.load_config(path).config


def quiet_train(settings: config.RunConfig) -> RunFolder:
    return train(settings, resume=True, report=lambda line: None)


def check_run(run: RunFolder) -> None:
    """Everything under its final name is whole."""
    for step in run.steps():
        verify_content(run.checkpoint(step))
    for step in run.state_steps():
        read_state(run.state(step))
    if run.manifest.exists():
        json.loads(run.manifest.read_text())


def same_tensors(a: Path, b: Path) -> bool:
    one, two = load_file(a), load_file(b)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_training_and_saving(write_run: Write, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"checkpoints": {"every": 1, "keep_states": 3}}
    whole = settings_of(write_run("whole", changes, steps=8))
    longest = took(lambda: quiet_train(whole))
    hit = settings_of(write_run("hit", changes, steps=8))
    run, undisturbed = (RunFolder(tmp_path / "runs" / name) for name in ("hit", "whole"))
    kill_at_random(lambda: quiet_train(hit), lambda: check_run(run), longest)
    assert Forked(lambda: quiet_train(hit)).wait() == 0, "resumable after any kill"
    assert run.steps() == undisturbed.steps() == list(range(9))
    for step in run.steps():
        assert same_tensors(
            run.checkpoint(step) / "model.safetensors", undisturbed.checkpoint(step) / "model.safetensors"
        )
    assert run.state_steps()[-3:] == undisturbed.state_steps(), (
        "one more where a kill came before the pruning"
    )
    last = "state.safetensors"
    assert same_tensors(run.state(8) / last, undisturbed.state(8) / last)
    lines = [read_lines(folder.metrics) for folder in (run, undisturbed)]
    assert [(x["step"], x["loss"]) for x in lines[0]] == [(x["step"], x["loss"]) for x in lines[1]]


@pytest.mark.slow
def test_evaluating(write_run: Write, tmp_path: Path) -> None:
    from reasoning_embedding.evaluation.run import evaluate

    run = quiet_train(settings_of(write_run(steps=2)))
    embedder = load_embedder(run.checkpoint(run.steps()[-1]))
    section = config.Evaluation.model_validate(
        {"tasks": [{"kind": "world"}, {"kind": "world", "name": "w", "seed": 1}]}
    )

    def score(folder: Path) -> Job:
        return lambda: evaluate(embedder, section, folder, model_name="m", revision="r", step=2)

    def scores(folder: Path) -> list[tuple[str, float]]:
        file = folder / "scores.json"
        return (
            [(t["task"], t["main_score"]) for t in json.loads(file.read_text())["tasks"]]
            if file.exists()
            else []
        )

    longest = took(score(tmp_path / "whole"))
    kill_at_random(score(tmp_path / "hit"), lambda: scores(tmp_path / "hit"), longest)
    assert Forked(score(tmp_path / "hit")).wait() == 0
    assert scores(tmp_path / "hit") == scores(tmp_path / "whole") != []


@pytest.mark.slow
def test_merging(write_run: Write, tmp_path: Path) -> None:
    from reasoning_embedding.merging.merge import merge, open_models

    run = quiet_train(settings_of(write_run(steps=4)))
    models = [(f"step {step}", run.checkpoint(step)) for step in (0, run.steps()[-1])]
    method = config.Slerp.model_validate({"kind": "slerp", "t": 0.3})

    def merged(name: str) -> Job:
        def job() -> None:
            with open_models(models) as opened:
                merge(opened, method, tmp_path / name, tmp_path / f"{name}.json")

        return job

    def check() -> None:
        if (tmp_path / "hit").exists():
            verify_content(tmp_path / "hit")

    longest = took(merged("whole"))
    kill_at_random(merged("hit"), check, longest)
    assert Forked(merged("hit")).wait() == 0
    assert same_tensors(tmp_path / "hit" / "model.safetensors", tmp_path / "whole" / "model.safetensors")


@pytest.mark.slow
def test_ranks_end_with_their_launcher(write_run: Write, tmp_path: Path) -> None:
    """torchrun's agent is killed: its ranks, which it would leave training, save and end, and the run goes on."""
    path = write_run("pair", {"checkpoints": {"every": 1}}, steps=2000)
    run = RunFolder(tmp_path / "runs" / "pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        agent = Forked(torchrun(2, "train", path, "--resume"), tmp_path / "said.txt")
        deadline = time.monotonic() + 120
        while len(run.steps()) < 3:
            assert agent.poll() is None, agent.said
            assert time.monotonic() < deadline, agent.said
            time.sleep(0.05)
        agent.send(signal.SIGKILL)
        agent.wait()
        while is_held(run.lock):
            assert time.monotonic() < deadline, "a rank trains on"
            time.sleep(0.05)
    check_run(run)
    last = max(run.steps())
    time.sleep(1.0)
    assert max(run.steps()) == last < 2000


@pytest.mark.slow
def test_sweeping(write_run: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler alone is killed, and its runs end with it; real runs, started as the sweep starts them."""
    from reasoning_embedding.sweeps.ledger import SweepLedger
    from reasoning_embedding.sweeps.sweep import run_sweep

    base = write_run("base", {"checkpoints": {"every": 1}}, steps=40)
    path = tmp_path / "sweep.yaml"
    values = {
        "kind": "sweep",
        "name": "s",
        "output_dir": str(tmp_path / "out"),
        "base": str(base),
        "grid": {"seed": [0, 1]},
    }
    path.write_text(json.dumps(values | {"jobs": 2}))
    loaded = config.load_config(path)
    runs, ledger = config.sweep_runs(loaded), SweepLedger(SweepFolder.of(loaded.config).path)

    def sweep() -> None:
        run_sweep(loaded.config, runs, report=lambda line: None)

    chance = random.Random(SEED)
    for _ in range(max(2, KILLS // 5)):  # each start imports everything anew
        child = Forked(sweep)
        time.sleep(chance.uniform(0.0, 12.0))
        child.send(signal.SIGKILL)
        child.wait()
        deadline = time.monotonic() + 60
        while any(ledger.state(run)[0] == "running" for run in runs):
            assert time.monotonic() < deadline, "a run trains on"
            time.sleep(0.1)
        for run in runs:
            check_run(ledger.folder.run(run.name))
    last = Forked(sweep, tmp_path / "said.txt")
    assert last.wait() == 0, last.said
    for run in runs:
        alone = run.config.model_copy(
            update={"name": f"alone-{run.config.seed}", "output_dir": str(tmp_path)}
        )
        undisturbed = quiet_train(alone)
        folder = ledger.folder.run(run.name)
        assert ledger.state(run)[0] == "finished"
        assert same_tensors(
            folder.checkpoint(40) / "model.safetensors", undisturbed.checkpoint(40) / "model.safetensors"
        )
