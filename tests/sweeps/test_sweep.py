"""Sweeps as processes: what runs, what is skipped, resumed, retried, refused, and what survives SIGKILL."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding import config
from reasoning_embedding.checkpoints import SweepFolder
from reasoning_embedding.checkpoints.locks import hold
from reasoning_embedding.cli.main import main
from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.experiments.processes import share_of_gpus
from reasoning_embedding.sweeps import sweep as sweeping
from reasoning_embedding.sweeps.ledger import SweepLedger
from reasoning_embedding.sweeps.slurm import TrainJob, submit_runs
from reasoning_embedding.sweeps.sweep import (
    ALL_RUNS,
    Shard,
    SweepError,
    hold_sweep,
    launch_command,
    launch_line,
    parse_shard,
    run_sweep,
)
from tests.processes import Forked
from tests.sweeps import fake_train

SWEEP = """\
kind: sweep
name: s
output_dir: OUT
metric: accuracy
base:
  name: tiny
  backbone: {kind: pretrained, path: some/base}
  data: {sources: [{kind: files, path: rows.jsonl}]}
  training: {steps: 4}
grid:
  training.learning_rate: [1e-4, 1e-3]
  seed: [0, 1]
jobs: 2
"""
Sweep = tuple[config.SweepConfig, list[config.SweepRun], SweepLedger]


def fake_command(launch: Any, file: Path) -> list[str]:
    return [sys.executable, fake_train.__file__, *launch_command(launch, file)[1:]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("OUT", str(tmp_path / "out")))
    return path


@pytest.fixture
def sweep(file: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.setattr(sweeping, "launch_command", fake_command)
    loaded = config.load_config(file)
    return loaded.config, config.sweep_runs(loaded), SweepLedger(SweepFolder.of(loaded.config).path)


def states(sweep: Sweep) -> list[str]:
    return [sweep[2].state(run)[0] for run in sweep[1]]


def made(sweep: Sweep) -> Counter[str]:
    file = sweep[2].folder.path / "made.log"
    return Counter(file.read_text().splitlines() if file.exists() else [])


def every_step_once(sweep: Sweep) -> dict[str, int]:
    return {f"{run.name} {step}": 1 for run in sweep[1] for step in range(fake_train.STEPS + 1)}


def test_a_run_is_trained_by_the_verb_and_resumed_by_it() -> None:
    local = config.LocalLaunch()
    assert launch_command(local, Path("x.yaml"))[1:] == [
        "-m",
        "reasoning_embedding",
        "train",
        "x.yaml",
        "--resume",
    ]
    many = config.LocalLaunch(accelerate="8gpu.yaml")
    assert launch_command(many, Path("x.yaml"))[1:] == [
        "-m", "accelerate.commands.launch", "--config_file", "8gpu.yaml", "--main_process_port", "0",
        "-m", "reasoning_embedding", "train", "x.yaml", "--resume",
    ]  # fmt: skip
    assert launch_line(many, Path("a b.yaml")) == (
        "accelerate launch --config_file 8gpu.yaml -m reasoning_embedding train 'a b.yaml' --resume"
    )


def test_finished_runs_are_not_run_again(sweep: Sweep) -> None:
    settings, runs, ledger = sweep
    said: list[str] = []
    assert states(sweep) == ["waiting"] * 4
    run_sweep(settings, runs, text="as written", report=said.append)
    assert states(sweep) == ["finished"] * 4
    assert f"[{runs[0].name}] step 4" in said
    assert made(sweep) == every_step_once(sweep)
    outcome = ledger.outcome(settings, runs[0])
    assert (outcome.value, outcome.step) == (0.4, 4)
    assert (ledger.folder.config_yaml).read_text() == "as written"
    assert [run.point for run in ledger.runs()] == [run.point for run in runs]
    again: list[str] = []
    run_sweep(settings, runs, report=again.append)
    assert again == [f"[{run.name}] done before" for run in runs]
    assert made(sweep) == every_step_once(sweep)


def test_failed_runs_wait_for_retry_and_the_others_go_on(sweep: Sweep) -> None:
    settings, runs, ledger = sweep
    bad = ledger.folder.path / "fail" / runs[1].name
    bad.parent.mkdir(parents=True)
    bad.write_text("")
    with pytest.raises(SweepError, match=f"1 of 4 runs failed: {runs[1].name}"):
        run_sweep(settings, runs, report=lambda line: None)
    assert states(sweep) == ["finished", "failed", "finished", "finished"]
    note = ledger.state(runs[1])[1]
    assert note == "the data are gone, token=***\n  -> bring them back"
    assert "hf_" not in ledger.folder.log(runs[1].name).read_text()
    bad.unlink()
    said: list[str] = []
    with pytest.raises(SweepError):
        run_sweep(settings, runs, report=said.append)
    assert f"[{runs[1].name}] failed before (the data are gone, token=***); --retry tries again" in said
    run_sweep(settings, runs, retry=True, report=lambda line: None)
    assert states(sweep) == ["finished"] * 4
    assert made(sweep) == every_step_once(sweep), "the failed run went on from its last step"


def test_parts_are_disjoint_and_give_the_whole(sweep: Sweep) -> None:
    settings, runs, _ = sweep
    parts = [Shard(index, 3).of(runs) for index in (1, 2, 3)]
    assert sorted(run.name for part in parts for run in part) == sorted(run.name for run in runs)
    for index in (1, 2, 3):
        run_sweep(settings, runs, shard=Shard(index, 3), report=lambda line: None)
        assert states(sweep).count("finished") == sum(len(part) for part in parts[:index])
    assert made(sweep) == every_step_once(sweep)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "1", "a/b", "-1/2", "1/2/3"])
def test_a_part_that_is_none(text: str) -> None:
    with pytest.raises(InputError, match="is no part"):
        parse_shard(text)


def test_a_second_process_is_refused(sweep: Sweep) -> None:
    settings, runs, ledger = sweep
    half, other = Shard(1, 2), Shard(2, 2)
    with hold_sweep(ledger.folder, ALL_RUNS):
        for shard in (ALL_RUNS, half):
            with pytest.raises(InputError, match="another process runs this sweep"):
                run_sweep(settings, runs, shard=shard)
    with hold_sweep(ledger.folder, half):
        for shard in (ALL_RUNS, half):
            with pytest.raises(InputError, match="another process runs this sweep"):
                run_sweep(settings, runs, shard=shard)
        run_sweep(settings, runs, shard=other, report=lambda line: None)
    assert states(sweep).count("finished") == 2


def test_a_run_that_another_process_trains_is_left_to_it(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, runs, ledger = sweep
    monkeypatch.setattr(sweeping, "PATIENCE", 0.3)
    said: list[str] = []
    with hold(ledger.folder.run(runs[2].name).lock, refusal="", todo=""):
        assert states(sweep)[2] == "running"
        with pytest.raises(SweepError, match=f"1 of 4 runs are not finished: {runs[2].name} .running."):
            run_sweep(settings, runs, report=said.append)
    assert f"[{runs[2].name}] another process is training it" in said
    assert states(sweep) == ["finished", "finished", "waiting", "finished"]


def test_a_run_that_another_process_lets_go_is_taken_up(sweep: Sweep) -> None:
    settings, runs, ledger = sweep
    said: list[str] = []
    lock = ledger.folder.run(runs[2].name).lock
    with contextlib.ExitStack() as held:
        held.enter_context(hold(lock, refusal="", todo=""))

        def listen(line: str) -> None:
            said.append(line)
            if line.startswith("waiting up to"):
                threading.Timer(0.3, held.close).start()

        run_sweep(settings, runs, report=listen)
    assert any(line.startswith("waiting up to 60 s") and runs[2].name in line for line in said)
    assert states(sweep) == ["finished"] * 4


def test_a_run_that_was_killed_is_no_success(sweep: Sweep) -> None:
    settings, runs, ledger = sweep
    bad = ledger.folder.path / "killed" / runs[1].name
    bad.parent.mkdir(parents=True)
    bad.write_text("")
    with pytest.raises(SweepError, match=f"1 of 4 runs are not finished: {runs[1].name} .interrupted."):
        run_sweep(settings, runs, report=lambda line: None)
    bad.unlink()
    run_sweep(settings, runs, report=lambda line: None)
    assert made(sweep) == every_step_once(sweep)


#: Starts what it is given and waits, as accelerate's launcher does, which tells it of nothing.
LAUNCHER = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"


@pytest.mark.parametrize("launcher", ["children", "grandchildren"])
def test_nothing_trains_on_when_the_sweep_is_killed(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    settings, runs, ledger = sweep
    if launcher == "grandchildren":

        def launched(launch: Any, file: Path) -> list[str]:
            return [sys.executable, "-c", LAUNCHER, *fake_command(launch, file)]

        monkeypatch.setattr(sweeping, "launch_command", launched)
    ledger.folder.path.mkdir(parents=True)
    slow = ledger.folder.path / "slow"
    slow.write_text("")
    for number in (signal.SIGKILL, signal.SIGTERM):
        scheduler = Forked(lambda: run_sweep(settings, runs, report=lambda line: None))
        wait_for(lambda: states(sweep).count("running") == 2)
        scheduler.send(number)
        assert scheduler.wait() in (-signal.SIGKILL, 128 + signal.SIGTERM)
        wait_for(lambda: "running" not in states(sweep))
    assert not made(sweep), "none came to its first step"
    slow.unlink()
    run_sweep(settings, runs, report=lambda line: None)
    assert states(sweep) == ["finished"] * 4


def wait_for(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def in_a_process(job: Callable[[], object]) -> int:
    """Fork; the child does `job` and ends without this process's own endings."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            job()
            code = 0
        finally:
            os._exit(code)
    return child


def test_the_ledger_survives_sigkill_of_the_scheduler(sweep: Sweep) -> None:
    settings, runs, ledger = sweep
    chance = random.Random(0)
    killed = 0
    for _ in range(6):
        child = in_a_process(lambda: run_sweep(settings, runs, report=lambda line: None))
        time.sleep(chance.uniform(0.0, 0.25))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert set(states(sweep)) <= {"waiting", "running", "interrupted", "finished"}
    assert killed
    run_sweep(settings, runs, report=lambda line: None)
    assert states(sweep) == ["finished"] * 4
    assert all(count == 1 for count in made(sweep).values()), "no step was made twice"
    assert {run.name for run in ledger.runs()} == {run.name for run in runs}


def test_parts_that_start_together_write_in_turns(sweep: Sweep) -> None:
    settings, runs, ledger = sweep

    def write() -> None:
        for _ in range(20):
            ledger.write(settings, runs, "text")

    children = [in_a_process(write) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert len(ledger.runs()) == 4


def test_a_damaged_record_is_named(sweep: Sweep) -> None:
    _, runs, ledger = sweep
    ledger.record(runs[0].name, "failed", "why")
    assert states(sweep)[0] == "failed"
    record = ledger.folder.record(runs[0].name)
    record.write_text("{")
    with pytest.raises(InputError, match=str(record)):
        ledger.state(runs[0])


def test_jobs_side_by_side_share_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert [share_of_gpus(slot, 2)["CUDA_VISIBLE_DEVICES"] for slot in (0, 1)] == ["4,5", "6,7"]
    assert share_of_gpus(0, 1) == {}, "a single job sees all"
    assert share_of_gpus(0, 5) == {}, "more jobs than GPUs"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert share_of_gpus(0, 2) == {}


def slurm_commands(sweep: Sweep) -> dict[str, list[str]]:
    sweep[2].write(sweep[0], sweep[1], None)
    return {
        run.name: fake_command(config.LocalLaunch(), sweep[2].folder.config_file(run.name))
        for run in sweep[1]
    }


def test_jobs_of_a_cluster_note_how_they_ended(sweep: Sweep) -> None:
    pytest.importorskip("submitit")
    _, runs, ledger = sweep
    (ledger.folder.path / "fail").mkdir(parents=True)
    (ledger.folder.path / "fail" / runs[3].name).write_text("")
    commands, said = slurm_commands(sweep), []
    launch = config.SlurmLaunch(kind="slurm", gpus=0, cpus=1, extra={"qos": "low"})
    jobs = submit_runs(ledger, launch, commands, name="s", jobs=2, report=said.append, cluster="debug")
    assert [job.result() for job in jobs] == [0, 0, 0, 2]
    assert states(sweep) == ["finished", "finished", "finished", "failed"]
    assert made(sweep)[f"{runs[0].name} 4"] == 1
    assert said[0].startswith(f"[{runs[0].name}] submitted as job ")


def test_a_submitted_run_is_not_submitted_twice(sweep: Sweep) -> None:
    settings, runs, ledger = sweep
    ledger.write(settings, runs, None)
    ledger.record(runs[0].name, "submitted", "job 17")
    said: list[str] = []
    todo = sweeping.runs_to_start(ledger, runs, retry=False, report=said.append)
    assert [run.name for run in todo] == [run.name for run in runs[1:]]
    assert said == [f"[{runs[0].name}] waits in the queue (job 17); --retry submits it again"]
    assert len(sweeping.runs_to_start(ledger, runs, retry=True, report=said.append)) == 4


def test_a_job_out_of_time_saves_and_is_queued_again(sweep: Sweep) -> None:
    pytest.importorskip("submitit")
    job = TrainJob("folder", "name", ["true"])
    again = job.checkpoint()
    assert (again.function.folder, again.function.name, again.function.command) == (
        "folder",
        "name",
        ["true"],
    )


def test_no_cluster_and_no_submitit(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    commands, launch = slurm_commands(sweep), config.SlurmLaunch(kind="slurm")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SetupError, match="pip install"):
        submit_runs(sweep[2], launch, commands, name="s", jobs=1, report=print)
    monkeypatch.undo()
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetupError, match="no SLURM here"):
        submit_runs(sweep[2], launch, commands, name="s", jobs=1, report=print)


def rembed(*words: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    assert int(caught.value.code or 0) == code


def test_the_verb_lists_prints_and_runs(
    sweep: Sweep, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, runs, ledger = sweep
    rembed("sweep", file, "--list")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "training.learning_rate", "seed", "step", "value", "state"]
    assert lines[1].split() == [runs[0].name, "0.0001", "0", "-", "-", "waiting"]
    assert lines[-1] == "4 waiting"
    assert not ledger.folder.path.exists(), "listing writes nothing"

    rembed("sweep", file, "--dry-run", "--shard", "2/4")
    (line,) = capsys.readouterr().out.splitlines()
    written = ledger.folder.config_file(runs[1].name)
    assert line == f"accelerate launch -m reasoning_embedding train {written} --resume"
    assert config.load_config(written).config == runs[1].config
    assert not ledger.folder.run(runs[1].name).path.exists()

    monkeypatch.setattr("reasoning_embedding.reports.build", lambda folder, say: folder / "page")
    rembed("sweep", file, "--jobs", "4")
    out = capsys.readouterr().out
    assert "4 finished" in out
    assert f"report: {ledger.folder.path / 'page'}" in out
    rembed("sweep", file, "--list", "--dry-run", code=2)
    rembed("sweep", file, "training.steps=4", code=2)
    assert "unknown key 'training' at the top level" in capsys.readouterr().err
    rembed("runs", "ls", ledger.folder.path.parent)
    assert ["s", "sweep", "-", "-", "finished"] in [
        line.split() for line in capsys.readouterr().out.splitlines()
    ]


def test_a_list_of_unfinished_runs_is_no_success_when_asked_strictly(
    file: Path, sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, runs, _ = sweep
    for words, code in ((["--list"], 0), (["--list", "--strict"], 1)):
        with pytest.raises(SystemExit) as end:
            main(["sweep", str(file), *words])
        assert (end.value.code or 0) == code
    run_sweep(settings, runs, report=lambda line: None)
    with pytest.raises(SystemExit) as end:
        main(["sweep", str(file), "--list", "--strict"])
    assert not end.value.code
    with pytest.raises(SystemExit) as end:
        main(["sweep", str(file), "--strict"])
    assert end.value.code == 2
    assert "--strict belongs to --list" in capsys.readouterr().err
