"""What a reference to a model points to."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasoning_embedding.checkpoints import RunFolder, content_hash
from reasoning_embedding.checkpoints.references import resolve, series_of_steps
from reasoning_embedding.config.references import parse
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import write_json


def _model(folder: Path, content: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(content)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run ``a`` (steps 0, 50, 200; best 50), run ``b`` without steps, stages ``base`` and ``sft`` (steps 0, 4)."""
    folder = tmp_path / "experiment"
    for step in (0, 50, 200):
        _model(RunFolder(folder / "runs" / "a").checkpoint(step), str(step).encode())
    write_json(RunFolder(folder / "runs" / "a").best, {"step": 50, "score": 0.5})
    RunFolder(folder / "runs" / "b").checkpoints.mkdir(parents=True)
    _model(folder / "lineage" / "base")
    sft = _model(folder / "lineage" / "sft")
    for step in (0, 4):
        _model(RunFolder(sft).checkpoint(step))
    monkeypatch.chdir(tmp_path)
    return folder


STEPS = {"@first": 0, "@last": 200, "@best": 50, "@50": 50, "@0": 0}


@pytest.mark.parametrize(("at", "step"), STEPS.items())
@pytest.mark.parametrize("run", ["run:a", "run:experiment/runs/a", "experiment/runs/a"])
def test_a_step_of_a_run(experiment: Path, run: str, at: str, step: int) -> None:
    found = resolve(run + at, experiment)
    assert found.folder.resolve() == RunFolder(experiment / "runs" / "a").checkpoint(step)
    assert (found.step, found.reference) == (step, run + at)
    assert found.content == content_hash(found.folder)


def test_models_of_an_experiment(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("run:a", experiment).step == 200
    assert resolve("lineage:base", experiment).folder == experiment / "lineage" / "base"
    # A stage that kept steps is a model; its steps are named like a run's.
    assert resolve("lineage:sft", experiment).folder == experiment / "lineage" / "sft"
    assert resolve("lineage:sft@4", experiment).folder.name == "step-000004"
    assert resolve("experiment/lineage/sft").folder.resolve() == experiment / "lineage" / "sft"
    assert resolve("experiment/lineage/sft@first").step == 0
    monkeypatch.chdir(experiment)
    assert resolve("run:a@50").folder.resolve() == RunFolder(experiment / "runs" / "a").checkpoint(50)


def test_a_folder_is_taken_as_it_is_written(experiment: Path) -> None:
    odd = _model(experiment / "x@200")
    assert resolve(str(odd)).folder == odd
    assert resolve("experiment/x@200").folder.resolve() == odd


def test_a_model_of_the_hub(experiment: Path) -> None:
    model = resolve("owner/name@step8")
    assert (model.path, model.revision, model.content) == ("owner/name", "step8", "owner/name@step8")
    assert (resolve("owner/name").revision, resolve("owner/name").content) == (None, None)
    with pytest.raises(InputError, match="no model on this machine"):
        _ = resolve("owner/name").folder


def test_what_names_all_steps(experiment: Path) -> None:
    run = RunFolder(experiment / "runs" / "a")
    for reference in ("experiment/runs/a", "run:a", str(run.path)):
        found = series_of_steps(reference, experiment)
        assert found is not None
        assert found.steps() == [0, 50, 200]
    kept = series_of_steps("lineage:sft", experiment)
    assert kept is not None
    assert kept.steps() == [0, 4]
    for model in (
        "run:a@50",
        "experiment/runs/a@50",
        "lineage:sft@4",
        "experiment/lineage/sft",
        "owner/name",
    ):
        assert series_of_steps(model, experiment) is None


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("run:a@51", r"'run:a@51' names no checkpoint\n.*steps there: \[0, 50, 200\]"),
        ("experiment/runs/a@51", r"names no checkpoint\n.*steps there: \[0, 50, 200\]"),
        ("experiment/runs/b@last", r"names no checkpoint\n.*steps there: none"),
        ("experiment/lineage/base@4", "names no run"),
        ("run:b@best", "was not scored while it trained"),
        ("run:absent@1", "names no checkpoint"),
        ("experiment/absent@1", "names no run"),
        ("./absent@best", "names no run"),
        ("experiment/runs/a", r"is a run, not a model\n.*experiment/runs/a@last"),
        ("lineage:absent", r"names no model\n.*grow it first"),
        ("lineage:base@4", "names no checkpoint"),
        ("./absent", "names no model"),
        ("absent", "names no model"),
        ("experiment/lineage/base/absent", "names no model"),
    ],
)
def test_what_is_not_there_is_said(experiment: Path, reference: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        resolve(reference, experiment)


def test_a_run_of_an_experiment_is_not_sought_elsewhere(experiment: Path, tmp_path: Path) -> None:
    _model(RunFolder(tmp_path / "c").checkpoint(7))  # in the current folder, and none of the experiment's
    with pytest.raises(InputError, match="names no checkpoint"):
        resolve("run:c@7", experiment)
    assert resolve("run:c@7", tmp_path).step == 7


def test_the_grammar_looks_nothing_up() -> None:
    parts = {
        "lineage:sft@4": ("lineage", "sft", "4"),
        "run:a": ("run", "a", None),
        "run:/x/y@best": ("run", "/x/y", "best"),
        "runs/a@200": ("path", "runs/a", "200"),
        "owner/name": ("path", "owner/name", None),
        "./a:b": ("path", "./a:b", None),
    }
    for text, expected in parts.items():
        found = parse(text)
        assert (found.kind, found.name, found.at) == expected
