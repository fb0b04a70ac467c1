"""Stages: their order, their keys, and when they count as done."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.locks import hold
from reasoning_embedding.errors import InputError
from reasoning_embedding.experiments import chosen_steps, run_experiment
from reasoning_embedding.experiments import processes as pool
from reasoning_embedding.experiments.scheduler import StageError, run_stages
from reasoning_embedding.experiments.stages import Ledger, Stage, plan_stages


def _experiment(rows: str = "rows.jsonl", seed: int = 0) -> config.ExperimentConfig:
    return config.ExperimentConfig.model_validate(
        {
            "kind": "experiment",
            "name": "e",
            "lineage": {
                "tokenizer": {"kind": "world"},
                "stages": [
                    {"kind": "pretrain", "name": "base", "architecture": {}, "corpus": {"kind": "world"},
                     "learning_rate": 1e-3, "steps": 2, "batch_size": 2},
                    {"kind": "sft", "name": "sft", "parent": "base", "learning_rate": 1e-3, "steps": 2,
                     "batch_size": 2},
                ],
            },
            "recipe": {"data": {"sources": [{"kind": "files", "path": rows}]}},
            "runs": [{"name": "a", "backbone": "base", "seed": seed}, {"name": "b", "backbone": "sft"}],
            "evaluation": {"tasks": [{"kind": "world"}]},
        }
    )  # fmt: skip


def _model(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(content)


def test_parents_come_first() -> None:
    stages = plan_stages(_experiment())
    names = ["contamination", "grow-base", "grow-sft", "train-a", "train-b", "evaluate"]
    assert [stage.name for stage in stages] == names
    assert [stage.needs for stage in stages[:5]] == [(), (), ("grow-base",), ("grow-base",), ("grow-sft",)]


def test_data_are_compared_before_training_but_do_not_decide_it() -> None:
    stages = {stage.name: stage for stage in plan_stages(_experiment())}
    assert stages["train-a"].after == ("contamination",)
    assert "contamination" not in stages["evaluate"].needs
    alone = _experiment().model_copy(update={"evaluation": None})
    assert all(stage.name != "contamination" and not stage.after for stage in plan_stages(alone))


def _done(folder: Path, experiment: config.ExperimentConfig) -> dict[str, bool]:
    stages = plan_stages(experiment)
    ledger = Ledger(folder, stages)
    return {stage.name: ledger.is_done(stage.name) for stage in stages}


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, str]:
    """An experiment whose stages but the last are recorded as finished."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("content")
    stages = plan_stages(_experiment(str(rows)))
    ledger = Ledger(tmp_path, stages)
    for name, folder in (
        ("grow-base", "lineage/base"),
        ("grow-sft", "lineage/sft"),
        ("train-a", "runs/a/checkpoints/step-000002"),
        ("train-b", "runs/b/checkpoints/step-000002"),
    ):
        _model(tmp_path / folder, name.encode())
        ledger.finish(name, 1.0)
    (tmp_path / "contamination.json").write_text("{}")
    ledger.finish("contamination", 1.0)
    return tmp_path, str(rows)


def test_finished_stages_are_recognised(finished: tuple[Path, str]) -> None:
    folder, rows = finished
    assert _done(folder, _experiment(rows)) == {
        "contamination": True, "grow-base": True, "grow-sft": True, "train-a": True, "train-b": True,
        "evaluate": False,
    }  # fmt: skip


def test_another_setting_undoes_only_what_it_decides(finished: tuple[Path, str]) -> None:
    folder, rows = finished
    done = _done(folder, _experiment(rows, seed=1))
    assert [name for name, is_done in done.items() if not is_done] == ["train-a", "evaluate"]


def test_another_task_compares_the_data_again_and_trains_nothing_again(finished: tuple[Path, str]) -> None:
    folder, rows = finished
    experiment = _experiment(rows)
    other = config.Evaluation.model_validate({"tasks": [{"kind": "world", "seed": 1}]})
    done = _done(folder, experiment.model_copy(update={"evaluation": other}))
    assert [name for name, is_done in done.items() if not is_done] == ["contamination", "evaluate"]


def test_changed_data_undoes_the_runs(finished: tuple[Path, str]) -> None:
    folder, rows = finished
    Path(rows).write_text("other content")
    done = _done(folder, _experiment(rows))
    assert done["grow-sft"]
    assert not done["train-a"]
    assert not done["train-b"]


def test_changed_weights_undo_the_stage_and_its_children(finished: tuple[Path, str]) -> None:
    folder, rows = finished
    _model(folder / "lineage" / "sft", b"touched")
    done = _done(folder, _experiment(rows))
    assert done == {
        "contamination": True,
        "grow-base": True,
        "grow-sft": False,
        "train-a": True,
        "train-b": False,
        "evaluate": False,
    }


def _fake_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    """Let stages run `body` (with FOLDER and STAGE as argv) instead of the real work."""
    script = tmp_path / "work.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfolder, name = Path(sys.argv[1]), sys.argv[2]\n" + body
    )
    popen = pool.subprocess.Popen

    def replaced(command, **options):  # type: ignore[no-untyped-def]
        return popen([sys.executable, str(script), *command[-2:]], **options)

    monkeypatch.setattr(pool.subprocess, "Popen", replaced)


STAGES = [Stage("grow-x", {}), Stage("grow-y", {}, ("grow-x",))]
GROW = """
target = folder / "lineage" / name.removeprefix("grow-")
target.mkdir(parents=True, exist_ok=True)
(target / "model.safetensors").write_text(name)
print("growing")
"""


def test_stages_run_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_work(monkeypatch, tmp_path, GROW)
    said: list[str] = []
    run_stages(tmp_path, STAGES, Ledger(tmp_path, STAGES), jobs=2, report=said.append)
    assert said.index("[grow-x] growing") < said.index("[grow-y] growing")
    again: list[str] = []
    run_stages(tmp_path, STAGES, Ledger(tmp_path, STAGES), jobs=2, report=again.append)
    assert again == ["[grow-x] done before", "[grow-y] done before"]


def test_a_failed_stage_keeps_its_message_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = (
        GROW
        + 'if name == "grow-y":\n    print("error: the corpus is empty\\n  -> add text")\n    sys.exit(2)\n'
    )
    _fake_work(monkeypatch, tmp_path, body)
    ledger = Ledger(tmp_path, STAGES)
    with pytest.raises(StageError, match=r"grow-y: the corpus is empty\n  -> add text") as caught:
        run_stages(tmp_path, STAGES, ledger, jobs=1, report=lambda _: None)
    assert caught.value.exit_code == 2
    assert "grow-y.log" in str(caught.value)
    assert ledger.is_done("grow-x")
    assert not ledger.is_done("grow-y")


def test_a_terminated_experiment_leaves_no_stage_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
import os, signal, time
(folder / "pid").write_text(str(os.getpid()))
os.kill(os.getppid(), signal.SIGTERM)
time.sleep(60)
"""
    _fake_work(monkeypatch, tmp_path, body)
    with pytest.raises(SystemExit) as caught:
        run_stages(tmp_path, STAGES, Ledger(tmp_path, STAGES), jobs=1, report=lambda _: None)
    assert caught.value.code == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_steps_to_score(tmp_path: Path) -> None:
    for step in (0, 50, 200):
        RunFolder(tmp_path / "runs" / "a").checkpoint(step).mkdir(parents=True)
    run = RunFolder(tmp_path / "runs" / "a")
    assert chosen_steps(run, "ends") == [0, 200]
    assert chosen_steps(run, "all") == [0, 50, 200]
    assert chosen_steps(run, [50]) == [50]
    with pytest.raises(InputError, match="51"):
        chosen_steps(run, [51])


def test_a_second_process_on_an_experiment_is_refused(tmp_path: Path) -> None:
    experiment = _experiment().model_copy(update={"output_dir": str(tmp_path)})
    with (
        hold(tmp_path / "e" / ".lock", refusal="", todo=""),
        pytest.raises(InputError, match="another process runs this experiment"),
    ):
        run_experiment(experiment)
    assert not (tmp_path / "e" / "config.resolved.json").exists()
