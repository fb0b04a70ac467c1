"""Training a run of an experiment by each of its routes: what one refuses, all refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from typer.testing import CliRunner

from reasoning_embedding import config
from reasoning_embedding.checkpoints import ExperimentFolder, RunFolder, write_provenance
from reasoning_embedding.cli.main import app
from reasoning_embedding.errors import InputError, ReasoningEmbeddingError
from reasoning_embedding.experiments import run_config, start_training
from reasoning_embedding.experiments.stages import plan_stages
from reasoning_embedding.files import write_json
from tests.factories import build_tiny_tokenizer, write_lines, write_tiny_backbone

Experiment = config.ExperimentConfig


def by_command(experiment: Experiment, path: Path) -> str:
    result = CliRunner().invoke(app, ["train", str(path), "--run", "two"])
    assert (result.exit_code == 0) == ("error:" not in result.output), result.output
    return result.output


def by_stages(experiment: Experiment, path: Path) -> str:
    said: list[str] = []
    try:
        for stage in plan_stages(experiment):
            if stage.name in ("contamination", "train-two"):
                stage.work(ExperimentFolder.of(experiment), said.append)
    except ReasoningEmbeddingError as error:
        said.append(str(error))
    return "\n".join(said)


def by_python(experiment: Experiment, path: Path) -> str:
    said: list[str] = []
    try:
        start_training(run_config(experiment, "two"), experiment=experiment, report=said.append)
    except ReasoningEmbeddingError as error:
        said.append(str(error))
    return "\n".join(said)


Route = Callable[[Experiment, Path], str]
ROUTES = [by_command, by_stages, by_python]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Sixteen rows, none of them text of the tasks."""
    words = ("fox", "tree", "queen", "star", "sea", "road", "bird", "cold")
    rows = [{"query": f"{a} {b}", "pos": [f"a slow {a} by {b}"]} for a in words for b in ("hot", "small")]
    return write_lines(tmp_path / "rows.jsonl", rows)


@pytest.fixture
def pair(tmp_path: Path, rows: Path, tiny_backbone: Path) -> dict[str, Any]:
    """An experiment of two runs on two backbones that differ in nothing."""
    other = tmp_path / "other"
    shutil.copytree(tiny_backbone, other)
    return {
        "kind": "experiment",
        "name": "pair",
        "output_dir": str(tmp_path / "runs"),
        "recipe": {
            "data": {"sources": [{"kind": "files", "path": str(rows)}], "query_max_tokens": 32},
            "training": {"batch_size": 8, "steps": 1, "precision": "fp32", "threads": 1},
            "logging": {"tensorboard": False},
        },
        "runs": [
            {"name": "one", "backbone": {"kind": "pretrained", "path": str(tiny_backbone)}},
            {"name": "two", "backbone": {"kind": "pretrained", "path": str(other)}},
        ],
    }


def written(settings: dict[str, Any]) -> tuple[Experiment, Path]:
    path = Path(settings["output_dir"]).parent / "pair.yaml"
    write_json(path, settings)
    return config.load_config(path, expect=Experiment).config, path


def ending_in_eos(pair: dict[str, Any], folder: Path, beir: Path) -> Iterator[str]:
    tokenizer = build_tiny_tokenizer()
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    tokenizer.save_pretrained(folder)
    yield "'one' and 'two' differ in token_hash, ends_with"


def with_a_chat_template(pair: dict[str, Any], folder: Path, beir: Path) -> Iterator[str]:
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    yield "'one' and 'two' have different chat templates"


def scored_on_its_data(pair: dict[str, Any], folder: Path, beir: Path) -> Iterator[str]:
    pair["recipe"]["data"]["sources"][0]["path"] = str(beir / "queries.jsonl")
    pair["evaluation"] = {"tasks": [{"kind": "beir", "path": str(beir)}]}
    yield "is also an evaluation task"


def scored_on_what_its_rows_were_drawn_from(pair: dict[str, Any], folder: Path, beir: Path) -> Iterator[str]:
    rows = Path(pair["recipe"]["data"]["sources"][0]["path"])
    records = [json.loads(line) | {"source": "stsb"} for line in rows.read_text().splitlines()]
    pair["recipe"]["data"]["sources"][0]["path"] = str(write_lines(folder / "drawn.jsonl", records))
    pair["evaluation"] = {"tasks": [{"kind": "mteb", "name": "STS12"}]}
    yield "source 'stsb' looks like the evaluation set STS benchmark"


MISMATCHES = [
    ending_in_eos,
    with_a_chat_template,
    scored_on_its_data,
    scored_on_what_its_rows_were_drawn_from,
]


@pytest.mark.parametrize("mismatch", MISMATCHES)
@pytest.mark.parametrize("route", ROUTES)
def test_every_route_refuses_the_same_before_it_trains(
    route: Route, mismatch: Callable[..., Iterator[str]], pair: dict[str, Any], tmp_path: Path, beir: Path
) -> None:
    [said] = mismatch(pair, tmp_path / "other", beir)
    experiment, path = written(pair)
    assert said in route(experiment, path)
    folder = ExperimentFolder.of(experiment)
    assert not any(folder.run(name).steps() for name in ("one", "two"))


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_trains_what_matches_and_counts_the_same_texts(
    route: Route, pair: dict[str, Any], beir: Path
) -> None:
    pair["evaluation"] = {"tasks": [{"kind": "beir", "path": str(beir)}]}
    experiment, path = written(pair)
    said = route(experiment, path)
    assert "contamination of tiny: 0 exact and 0 near of 3 queries; 0 exact and 0 near of 5 documents" in said
    assert said.count("contamination of tiny") == 1
    assert ExperimentFolder.of(experiment).run("two").steps() == [0, 1]


def test_a_run_is_not_resumed_on_a_backbone_that_has_changed(pair: dict[str, Any], tmp_path: Path) -> None:
    experiment, _ = written(pair)
    settings = run_config(experiment, "two")
    run = start_training(settings, report=lambda _: None)
    first = (run.checkpoint(0) / "model.safetensors").read_bytes()
    write_tiny_backbone(tmp_path / "other", seed=1)
    write_provenance(tmp_path / "other", kind="sft", parent=None)
    with pytest.raises(InputError, match="started from another model than the one in"):
        start_training(settings, resume=True)
    other = settings.model_copy(update={"seed": 5})
    with pytest.raises(InputError, match=r"had other settings \(seed\)"):
        start_training(other, resume=True)
    # The stage of an experiment keeps the old run and trains anew.
    [stage] = [stage for stage in plan_stages(experiment) if stage.name == "train-two"]
    folder = ExperimentFolder.of(experiment)
    stage.work(folder, lambda _: None)
    assert (
        RunFolder(folder.path / "set-aside/runs/two.1").checkpoint(0) / "model.safetensors"
    ).read_bytes() == first
    assert (run.checkpoint(0) / "model.safetensors").read_bytes() != first


def test_a_run_goes_on_without_the_backbone_it_started_from(pair: dict[str, Any], tmp_path: Path) -> None:
    experiment, _ = written(pair)
    settings = run_config(experiment, "two")
    run = start_training(settings, report=lambda _: None)
    shutil.rmtree(tmp_path / "other")
    said: list[str] = []
    start_training(settings, resume=True, report=said.append)
    assert f"finished before: {run.path}" in said
