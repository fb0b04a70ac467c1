"""What may change when a run goes on: resources, logging, where it lies, and its length where the schedule says how."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from reasoning_embedding import config, training
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.scores import read_best, scores_while_training
from reasoning_embedding.errors import InputError
from tests.factories import read_lines, write_tiny_backbone

Small = Callable[..., dict[str, Any]]


def _train(settings: dict[str, Any], said: list[str] | None = None, *, resume: bool = True) -> RunFolder:
    report = (lambda _: None) if said is None else said.append
    return training.train(config.RunConfig.model_validate(settings), resume=resume, report=report)


def _weights(run: RunFolder, step: int) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoint(step) / "model.safetensors")


def _largest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.fixture
def stopped(tmp_path: Path, small_run: Small) -> Callable[..., dict[str, Any]]:
    """Train three of six steps of a run, as if it had been stopped then; returns the settings of all six."""

    def stop(**training_: Any) -> dict[str, Any]:
        settings = small_run(tmp_path, **training_)
        run = _train(settings, resume=False)
        shutil.copytree(run.path, tmp_path / "whole")
        for folder in (run.checkpoint(6), run.state(6)):
            shutil.rmtree(folder)
        return settings

    return stop


def test_resources_and_logging_may_change(stopped: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    settings = stopped()
    settings["training"] |= {
        "pack_tokens": 64,
        "memory": "replay",
        "fused_layers": False,
        "timeout_minutes": 3,
        "threads": 2,
    }
    settings["logging"] = {"tensorboard": False, "every": 2}
    run = _train(settings)
    whole = RunFolder(tmp_path / "whole")
    assert 0 <= _largest(_weights(run, 6), _weights(whole, 6)) < 1e-5
    assert _largest(_weights(whole, 3), _weights(whole, 6)) > 1e-4, "the control"
    assert json.loads(run.config_json.read_text())["training"]["memory"] == "replay"
    assert [line["step"] for line in read_lines(run.metrics)] == [1, 2, 3, 4, 6]


def _scorer(name: str, values: dict[int, float]) -> Callable[..., dict[str, float]]:
    return lambda embedder, step, world: {name: values[step], "mean": values[step]}


def test_what_is_scored_may_change_and_older_scores_choose_nothing(tmp_path: Path, small_run: Small) -> None:
    """Scores of the first tasks are higher: mixed with the later ones they would name the wrong step the best."""
    extra = {
        "evaluation": {"tasks": [{"kind": "world", "name": "easy"}], "every": 1},
        "checkpoints": {"every": 2, "log_spaced": False, "keep_states": 3},
    }
    whole = config.RunConfig.model_validate(small_run(tmp_path, "whole", extra))
    easy = _scorer("easy", {0: 0.8, 1: 0.9, 2: 0.95, 3: 0.9, 4: 0.8, 5: 0.8, 6: 0.8})
    undisturbed = training.train(whole, score=easy, report=lambda _: None)
    settings = small_run(tmp_path, extra=extra)
    run = training.train(config.RunConfig.model_validate(settings), score=easy, report=lambda _: None)
    for folder in (run.checkpoint(6), run.state(6)):
        shutil.rmtree(folder)
    assert read_best(run) == {"step": 2, "score": 0.95, "select": "mean"}
    settings["evaluation"] = {"tasks": [{"kind": "world", "name": "hard"}], "every": 2, "select": "hard"}
    changed, hard = config.RunConfig.model_validate(settings), _scorer("hard", {4: 0.3, 6: 0.2})
    wrong = changed.model_copy(
        update={"evaluation": changed.evaluation.model_copy(update={"select": "herd"})}
    )
    before = run.metrics.read_bytes()
    with pytest.raises(InputError, match="no score is named 'herd'"):
        training.train(wrong, resume=True, score=hard, report=lambda _: None)
    assert run.metrics.read_bytes() == before, "nothing was set aside for a faulty name"
    saved = run.config_json.read_bytes()
    for kept in (saved, None):  # without its settings the state tells what was scored
        if kept is None:
            for folder in (run.checkpoint(6), run.state(6)):
                shutil.rmtree(folder)
            run.config_json.unlink()
        said: list[str] = []
        training.train(changed, resume=True, score=hard, report=said.append)
        assert "evaluation changed: the scores before step 4 are set aside, and step 4 is scored anew" in said
        assert read_best(run) == {"step": 4, "score": 0.3, "select": "hard"}
        assert {step: scores["hard"] for step, scores in scores_while_training(run).items()} == {
            4: 0.3,
            6: 0.2,
        }
        assert _largest(_weights(run, 6), _weights(undisturbed, 6)) == 0
    lines = {line["step"]: line for line in read_lines(run.metrics)}
    assert lines[2]["evaluation_before"][0]["easy"] == 0.95, "nothing is lost"
    # A finished run takes no other scores, and says so.
    said = []
    settings["evaluation"]["tasks"][0]["seed"] = 5
    training.train(config.RunConfig.model_validate(settings), resume=True, score=hard, report=said.append)
    assert "stay those of its own evaluation" in "\n".join(said)
    assert read_best(run) == {"step": 4, "score": 0.3, "select": "hard"}


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "weight_decay", 0.3),
        ("training", "learning_rate", 2e-3),
        ("training", "batch_size", 7),
        ("data", "negatives", 1),
        ("loss", "temperature", 0.3),
    ],
)
def test_what_moves_the_gradient_may_not(
    stopped: Callable[..., dict[str, Any]], section: str, key: str, value: float
) -> None:
    settings = stopped()
    changed = {**settings, section: {**settings.get(section, {"kind": "infonce"}), key: value}}
    with pytest.raises(InputError, match=rf"other settings \({section}\.{key}\)"):
        _train(changed)


def test_a_run_is_made_longer_by_a_schedule_that_says_so(tmp_path: Path, small_run: Small) -> None:
    settings = small_run(tmp_path, warmup_ratio=0.2)
    run = _train(settings, resume=False)
    first, log = _weights(run, 6), run.metrics.read_bytes()
    longer = {**settings, "training": {**settings["training"], "steps": 9}}
    with pytest.raises(InputError, match=r"step 4 was taken at a learning rate") as error:
        _train(longer)
    assert "training.restarts: [6]" in str(error.value)
    longer["training"]["restarts"] = [6]
    assert _train(longer).steps() == [0, 3, 6, 9]
    assert _largest(_weights(run, 6), first) == 0
    assert run.metrics.read_bytes().startswith(log)
    rates = [line["learning_rate"] for line in read_lines(run.metrics)]
    assert rates[5] < rates[6] >= rates[7] > rates[8] > 0
    # The same as one that was asked for nine steps at once.
    at_once = _train({**longer, "name": "at-once"}, resume=False)
    assert _largest(_weights(at_once, 9), _weights(run, 9)) == 0
    # A constant rate needs no restart.
    constant = small_run(tmp_path, "constant", schedule="constant", warmup_ratio=0)
    _train(constant, resume=False)
    constant["training"]["steps"] = 9
    assert _train(constant).steps()[-1] == 9


def test_a_moved_run_goes_on(
    stopped: Callable[..., dict[str, Any]], tmp_path: Path, rows: Path, tiny_backbone: Path
) -> None:
    settings = stopped()
    shutil.move(tmp_path / "runs", tmp_path / "elsewhere")
    shutil.move(tmp_path / "elsewhere" / "run", tmp_path / "elsewhere" / "renamed")
    shutil.copy(rows, tmp_path / "moved.jsonl")
    settings |= {"output_dir": str(tmp_path / "elsewhere"), "name": "renamed"}
    # A source's name, which is its file's unless it is given, is part of its rows.
    settings["data"]["sources"] = [{"kind": "files", "path": str(tmp_path / "moved.jsonl"), "name": "rows"}]
    with pytest.raises(InputError, match=r"other settings \(data\.sources\.0\.name\)"):
        _train(settings)
    folder = tmp_path / "other"
    folder.mkdir()
    settings["data"]["sources"] = [{"kind": "files", "path": str(shutil.copy(rows, folder / rows.name))}]
    run = _train(settings)
    assert _largest(_weights(run, 6), _weights(RunFolder(tmp_path / "whole"), 6)) == 0


def test_other_rows_are_not_those_of_the_run(
    stopped: Callable[..., dict[str, Any]], tmp_path: Path, rows: Path
) -> None:
    settings = stopped()
    other = tmp_path / rows.name
    other.write_text(rows.read_text().replace("moon", "mood", 1))
    settings["data"]["sources"] = [{"kind": "files", "path": str(other)}]
    with pytest.raises(InputError, match="the rows are not those that the run there was trained on"):
        _train(settings)


def test_a_checkpoint_that_was_changed_is_opened_by_no_verb(
    stopped: Callable[..., dict[str, Any]], tmp_path: Path, rembed: Callable[..., Any]
) -> None:
    stopped()
    model = RunFolder(tmp_path / "runs" / "run").checkpoint(3)
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    texts = tmp_path / "texts.txt"
    texts.write_text("red cat\n")
    task = tmp_path / "task.yaml"
    task.write_text("tasks: [{kind: world}]\n")
    for words in (
        ("evaluate", model, "-t", "world", "-o", tmp_path / "scores"),
        ("embed", model, texts, "-o", tmp_path / "vectors.npy"),
    ):
        said = rembed(*words, code=2).output
        assert "the files differ from what provenance.json recorded" in said.replace("\n", " ")


def test_a_damaged_backbone_is_not_trained(tmp_path: Path, small_run: Small) -> None:
    from reasoning_embedding.checkpoints import write_provenance

    backbone = write_tiny_backbone(tmp_path / "backbone")
    write_provenance(backbone, kind="sft", parent=None)
    file = backbone / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    settings = small_run(tmp_path, extra={"backbone": {"kind": "pretrained", "path": str(backbone)}})
    with pytest.raises(InputError, match="differ from what"):
        _train(settings, resume=False)
    assert not RunFolder(tmp_path / "runs" / "run").steps()
