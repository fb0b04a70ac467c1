"""Stages: their order, their keys, and when they count as done."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from reasoning_embedding import config
from reasoning_embedding.checkpoints import ExperimentFolder, RunFolder, content_hash
from reasoning_embedding.checkpoints.locks import hold
from reasoning_embedding.cli import main as verbs
from reasoning_embedding.errors import InputError
from reasoning_embedding.experiments import __main__ as stage_process
from reasoning_embedding.experiments import read_experiment, run_experiment
from reasoning_embedding.experiments import stages as stages_module
from reasoning_embedding.experiments.records import StageRecords
from reasoning_embedding.experiments.runner import StageError, run_stages
from reasoning_embedding.experiments.scoring import chosen_steps
from reasoning_embedding.experiments.stages import Stage, find_stage, plan_stages
from reasoning_embedding.files import read_json

BEFORE = Path(__file__).parents[1] / "goldens" / "before"


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
    records = StageRecords(ExperimentFolder(folder), stages)
    return {stage.name: records.is_done(stage.name) for stage in stages}


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, str]:
    """An experiment whose stages but the last are recorded as finished."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("content")
    records = StageRecords(ExperimentFolder(tmp_path), plan_stages(_experiment(str(rows))))
    for name, folder in (
        ("grow-base", "lineage/base"),
        ("grow-sft", "lineage/sft"),
        ("train-a", "runs/a/checkpoints/step-000002"),
        ("train-b", "runs/b/checkpoints/step-000002"),
    ):
        _model(tmp_path / folder, name.encode())
        records.finish(name, 1.0)
    (tmp_path / "contamination.json").write_text("{}")
    records.finish("contamination", 1.0)
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


class Write(Stage):
    """Writes a model with a script, which takes folder and stage."""

    def work(self, folder: ExperimentFolder, report: Callable[[str], None]) -> None:
        raise AssertionError("a script does it")

    def output(self, folder: ExperimentFolder) -> str | None:
        model = folder.stage(self.name).path
        return content_hash(model) if model.is_dir() else None


STAGES = [Write("x", {}), Write("y", {}, ("x",))]
GROW = """
target = folder / "lineage" / name
target.mkdir(parents=True, exist_ok=True)
(target / "model.safetensors").write_text(name)
print("growing")
"""


def _run(folder: Path, body: str, said: list[str], jobs: int = 1) -> None:
    """Run the stages with a script of `body`, which has FOLDER and STAGE."""
    script = folder / "work.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfolder, name = Path(sys.argv[1]), sys.argv[2]\n" + body
    )

    def command(folder: ExperimentFolder, stage: Stage) -> list[str]:
        return [sys.executable, str(script), str(folder.path), stage.name]

    run_stages(ExperimentFolder(folder), STAGES, jobs=jobs, report=said.append, command=command)


def test_stages_run_once_and_in_order(tmp_path: Path) -> None:
    said: list[str] = []
    _run(tmp_path, GROW, said, jobs=2)
    assert said.index("[x] growing") < said.index("[y] growing")
    again: list[str] = []
    _run(tmp_path, GROW, again, jobs=2)
    assert again == ["[x] done before", "[y] done before"]


def test_a_failed_stage_keeps_its_message_and_code(tmp_path: Path) -> None:
    fail = 'if name == "y":\n    print("error: the corpus is empty\\n  -> add text")\n    sys.exit(2)\n'
    with pytest.raises(StageError, match=r"y: the corpus is empty\n  -> add text") as caught:
        _run(tmp_path, GROW + fail, [])
    assert caught.value.exit_code == 2
    assert "y.log" in str(caught.value)
    records = StageRecords(ExperimentFolder(tmp_path), STAGES)
    assert records.is_done("x")
    assert not records.is_done("y")


def test_a_terminated_experiment_leaves_no_stage_behind(tmp_path: Path) -> None:
    body = """
import os, signal, time
(folder / "pid").write_text(str(os.getpid()))
os.kill(os.getppid(), signal.SIGTERM)
time.sleep(60)
"""
    with pytest.raises(SystemExit) as caught:
        _run(tmp_path, body, [])
    assert caught.value.code == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_stage_is_found_by_its_name() -> None:
    assert find_stage(_experiment(), "train-b").needs == ("grow-sft",)
    with pytest.raises(InputError, match="no stage 'train-c'"):
        find_stage(_experiment(), "train-c")


#: Keys that version 0.1.0 gave the stages of :func:`_experiment` before they were objects.
KEYS = {
    "contamination": "45138cef389868ccf35986bbb494bc529c093d74f59c87efe798eed3c2be4c6c",
    "grow-base": "1657f4b711bba1821887e4c7f6b45e6fa4de8ed57cca3d490f89f854fdcee812",
    "grow-sft": "a99739c854ded5fe4baec1186f630a083f0a55b5ff396899ec287785dd19f47e",
    "train-a": "6db6e2a6dc99a2c077f051dc86fa8165f957b17c1a55cd87cf504bc645297577",
    "train-b": "31c851f010b4494b0aaa40a2ca2a68e6210043b083d580d5f6aabc0f0a653fff",
    "evaluate": "d3e122661cb23cc5b103e7a4a95f3836922cffc56b4e20c936da49e1561b1943",
}


def test_keys_are_those_of_the_version_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages_module, "__version__", "0.1.0")
    with contextlib.chdir(tmp_path):
        stages = plan_stages(_experiment())
        assert {stage.name: stage.key({}, as_before=True) for stage in stages} == KEYS


def test_a_stored_experiment_has_nothing_left_to_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages_module, "__version__", "0.1.0")
    shutil.copytree(BEFORE, tmp_path, dirs_exist_ok=True)
    with contextlib.chdir(tmp_path):
        folder = ExperimentFolder(Path("experiments/pair"))
        checked = []
        for stage in plan_stages(read_experiment(folder)):
            record = read_json(folder.record(stage.name))
            if not stage.name.startswith("train-"):  # the weights of its runs were not stored
                outputs = {need: read_json(folder.record(need))["output"] for need in stage.needs}
                assert record["key"] in (stage.key(outputs), stage.key(outputs, as_before=True)), stage.name
                assert stage.output(folder) == record["output"], stage.name
                checked.append(stage.name)
    assert checked == ["contamination", "evaluate", "analyze", "track"]


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


@pytest.mark.parametrize("let_go", [True, False])
def test_a_stage_waits_for_a_process_of_an_earlier_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], let_go: bool
) -> None:
    folder, worked = ExperimentFolder(tmp_path), []
    stage = Write("x", {})
    monkeypatch.setattr(stage, "work", lambda folder, report: worked.append(folder.path))
    monkeypatch.setattr(stage_process, "read_experiment", lambda folder: None)
    monkeypatch.setattr(stage_process, "find_stage", lambda experiment, name: stage)
    monkeypatch.setattr(stage_process, "PATIENCE", 10.0 if let_go else 0.3)
    monkeypatch.setattr("sys.argv", ["stage", str(tmp_path), "x"])
    with contextlib.ExitStack() as held:
        held.enter_context(hold(folder.records / ".x.lock", refusal="", todo=""))
        if let_go:
            threading.Timer(0.3, held.close).start()
        code = stage_process.main()
    assert code == (0 if let_go else 2)
    assert worked == ([tmp_path] if let_go else [])
    if not let_go:
        assert "another process still works on stage x" in capsys.readouterr().out


def test_a_full_disk_in_a_stage_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Write("x", {})

    def full(folder: ExperimentFolder, report: Callable[[str], None]) -> None:
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(stage, "work", full)
    monkeypatch.setattr(stage_process, "read_experiment", lambda folder: None)
    monkeypatch.setattr(stage_process, "find_stage", lambda experiment, name: stage)
    monkeypatch.setattr("sys.argv", ["stage", str(tmp_path), "x"])
    assert stage_process.main() == 3
    assert "error: cannot write: the disk is full" in capsys.readouterr().out


def test_a_stage_and_a_verb_end_with_their_parent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list[str] = []
    monkeypatch.setattr(stage_process, "end_with_parent", lambda: called.append("stage"))
    monkeypatch.setattr("sys.argv", ["stage", str(tmp_path), "x"])
    with contextlib.suppress(Exception):
        stage_process.main()
    monkeypatch.setattr(verbs, "end_with_parent", lambda: called.append("verb"))
    with pytest.raises(SystemExit):
        verbs.main(["--version"])
    assert called == ["stage", "verb"]


def test_what_a_setting_says_today_is_told_from_its_earlier_default(finished: tuple[Path, str]) -> None:
    """Null means another thing than it did: a run of today is not done because one that says `false` would be."""
    folder, rows = finished
    experiment = _experiment(rows)
    loss = experiment.recipe.loss.model_copy(update={"mask_same_text": False})
    recipe = experiment.recipe.model_copy(update={"loss": loss})
    done = _done(folder, experiment.model_copy(update={"recipe": recipe}))
    assert not done["train-a"]
