"""Experiments over readouts: backbones x readouts x seeds, and nothing else that differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding import config
from reasoning_embedding.checkpoints import ExperimentFolder, RunFolder
from reasoning_embedding.errors import ConfigError, ContractError, InputError
from reasoning_embedding.experiments import run_config, start_training
from reasoning_embedding.experiments.stages import plan_stages
from reasoning_embedding.experiments.training import check_siblings
from reasoning_embedding.files import write_json
from tests.factories import write_lines
from tests.library_models import write_library_model

READOUTS = {"mean": {"pooling": "mean"}, "last": {"attention": "causal", "pooling": "last"}}
GIVEN = [{"kind": "given", "name": name, "path": name} for name in ("base", "sft")]
ABLATION = Path(__file__).parents[2] / "configs" / "readouts" / "ablation.yaml"


def settings(**changes: Any) -> dict[str, Any]:
    """An experiment of two given backbones, two readouts and two seeds, as one writes it."""
    return {
        "kind": "experiment",
        "name": "e",
        "lineage": {"stages": GIVEN},
        "recipe": {"data": {"sources": [{"kind": "world"}]}, "readout": {"prompts": {"query": "q : "}}},
        "readouts": READOUTS,
        "grid": {"backbones": ["base", "sft"], "seeds": [0, 1]},
        **changes,
    }


def experiment(**changes: Any) -> config.ExperimentConfig:
    return config.ExperimentConfig.model_validate(settings(**changes))


def test_a_grid_is_every_backbone_with_every_readout_and_seed() -> None:
    made = experiment()
    assert [run.name for run in made.runs] == [
        f"{backbone}-{readout}-seed{seed}"
        for backbone in ("base", "sft")
        for readout in READOUTS
        for seed in (0, 1)
    ]
    # What is written down of it is read back to the same runs, and may be written by hand.
    assert config.ExperimentConfig.model_validate(config.resolved_json(made)) == made
    by_hand = settings(runs=[run.model_dump() for run in made.runs])
    del by_hand["grid"]
    assert config.ExperimentConfig.model_validate(by_hand) == made
    some = experiment(grid={"backbones": ["base"], "readouts": ["last", "mean"]})
    assert [(run.readout, run.seed) for run in some.runs] == [("last", 0), ("mean", 0)]


def test_runs_differ_in_the_declared_axes_only() -> None:
    made = experiment()
    configs = {run.name: run_config(made, run.name) for run in made.runs}
    last = configs["base-last-seed0"].readout
    assert (last.attention, last.pooling) == ("causal", "last")
    assert last.prompts == config.Prompts(query="q : ")  # the recipe's, which it does not say otherwise
    axes = {"sft-last-seed0": "backbone", "base-mean-seed0": "readout", "base-last-seed1": "seed"}
    for name, axis in axes.items():
        found = {key.split(".")[0] for key, _, _ in config.diff(configs["base-last-seed0"], configs[name])}
        assert found == {"name", axis}


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "runs and a grid": ({"runs": [{"name": "a", "backbone": "base"}]}, "give runs or a grid, not both"),
    "neither": ({"grid": None}, "give runs, or a grid of them"),
    "no such backbone": ({"grid": {"backbones": ["bas"]}}, "'bas' is none of the stages: ['base', 'sft']"),
    "no such readout in the grid": (
        {"grid": {"backbones": ["base"], "readouts": ["men"]}},
        "'men' is none of the readouts: ['mean', 'last']",
    ),
    "a seed twice": ({"grid": {"backbones": ["base"], "seeds": [1, 1]}}, "1 stands twice"),
    "a run without one": (
        {"grid": None, "runs": [{"name": "a", "backbone": "base"}]},
        "run 'a' names no readout; this experiment has ['mean', 'last']",
    ),
    "a run with an unknown one": (
        {"grid": None, "runs": [{"name": "a", "backbone": "base", "readout": "lst"}]},
        "there is no readout 'lst'; did you mean 'last'?",
    ),
    "one that no run has": (
        {"grid": {"backbones": ["base"], "readouts": ["mean"]}},
        "no run has readout 'last'",
    ),
    "one run twice": (
        {
            "grid": None,
            "readouts": {"mean": {}},
            "runs": [{"name": name, "backbone": "base", "readout": "mean"} for name in "ab"],
        },
        "runs 'a' and 'b' are one",
    ),
    "two that say the same": ({"readouts": {"a": {"pooling": "last"}, "b": {"pooling": "last"}}}, "say the same"),
    "the first token of a causal recipe": (
        {"recipe": {**settings()["recipe"], "readout": {"attention": "causal"}}, "readouts": {"a": {"pooling": "first"}}},
        "with the recipe's readout: the first token under causal attention sees none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_at_their_place(tmp_path: Path, mistake: str) -> None:
    changes, said = MISTAKES[mistake]
    written = {key: value for key, value in settings(**changes).items() if value is not None}
    write_json(tmp_path / "e.yaml", written)
    with pytest.raises(ConfigError) as caught:
        config.load_config(tmp_path / "e.yaml")
    assert said in str(caught.value)
    assert f"{tmp_path / 'e.yaml'}:" in str(caught.value)


def keys(made: config.ExperimentConfig) -> dict[str, str]:
    return {stage.name: stage.key({}) for stage in plan_stages(made)}


def test_what_a_readout_says_decides_its_runs_and_what_it_is_called_none() -> None:
    before = keys(experiment())
    other = keys(
        experiment(readouts={**READOUTS, "last": {"attention": "causal", "pooling": "weighted_mean"}})
    )
    assert {name for name in before if before[name] != other[name]} == {
        "train-base-last-seed0", "train-base-last-seed1", "train-sft-last-seed0", "train-sft-last-seed1"
    }  # fmt: skip
    runs = [{"name": "a", "backbone": "base", "readout": "mean"}]
    named = experiment(grid=None, readouts={"mean": READOUTS["last"]}, runs=runs)
    alike = experiment(grid=None, readouts={"x": READOUTS["last"]}, runs=[{**runs[0], "readout": "x"}])
    assert keys(named) == keys(alike)
    # An experiment without the axis has the keys that it had before there was one.
    recipe = {**settings()["recipe"], "readout": READOUTS["last"]}
    without = experiment(grid=None, readouts={}, recipe=recipe, runs=[{"name": "a", "backbone": "base"}])
    prompted = experiment(
        grid=None, recipe={**recipe, "readout": {}}, readouts={"x": READOUTS["last"]}, runs=[{**runs[0], "readout": "x"}]
    )  # fmt: skip
    assert keys(without)["train-a"] == keys(prompted)["train-a"]


def on_backbones(
    tmp_path: Path, folders: dict[str, Path], readouts: dict[str, Any]
) -> config.ExperimentConfig:
    rows = write_lines(
        tmp_path / "rows.jsonl",
        [{"query": f"{a} {b}", "pos": [f"a {a} by {b}"]} for a in ("fox", "tree", "sea", "bird") for b in ("hot", "cold")],
    )  # fmt: skip
    runs = [
        {
            "name": f"{name}-{readout}",
            "backbone": {"kind": "pretrained", "path": str(folder)},
            "readout": readout,
        }
        for name, folder in folders.items()
        for readout in readouts
    ]
    recipe = {
        "data": {"sources": [{"kind": "files", "path": str(rows)}], "query_max_tokens": 32},
        "training": {"batch_size": 4, "steps": 1, "precision": "fp32", "threads": 1},
        "logging": {"tensorboard": False},
    }
    return experiment(
        output_dir=str(tmp_path / "runs"), lineage=None, grid=None, recipe=recipe, readouts=readouts, runs=runs
    )  # fmt: skip


def test_tokens_may_differ_between_readouts_and_runs_train_by_their_own(
    tmp_path: Path, tiny_backbone: Path
) -> None:
    """An end token and prompts are a readout's own: within one the tokens are the same, between two they need not be."""
    other = Path(shutil.copytree(tiny_backbone, tmp_path / "other"))
    readouts = {**READOUTS, "asked": {"pooling": "mean", "prompts": {"query": "who "}}}
    made = on_backbones(tmp_path, {"one": tiny_backbone, "two": other}, readouts)
    check_siblings(made)
    said: list[str] = []
    start_training(run_config(made, "two-last"), experiment=made, report=said.append)
    assert "readout: causal, last token, end token" in said
    run = RunFolder(ExperimentFolder.of(made).runs / "two-last")
    assert json.loads(run.manifest.read_text())["input_contract"]["ends_with"] is not None


def test_backbones_that_read_out_in_their_own_way_are_refused(tmp_path: Path) -> None:
    folders = {
        "one": write_library_model(tmp_path / "one", pooling="mean"),
        "two": write_library_model(tmp_path / "two", pooling="last"),
    }
    open_readout = on_backbones(tmp_path, folders, {"own": {"attention": "causal"}})
    with pytest.raises(ContractError) as caught:
        check_siblings(open_readout)
    assert "'one-own' and 'two-own' read out differently (pooling: mean and last" in str(caught.value)
    assert "readout 'own'" in str(caught.value)
    said = {"pooling": "mean", "include_prompt": True, "end_token": True}
    check_siblings(on_backbones(tmp_path, folders, {"own": said}))


def test_two_readouts_that_are_one_on_a_backbone_are_refused(tmp_path: Path, tiny_backbone: Path) -> None:
    made = on_backbones(tmp_path, {"one": tiny_backbone}, {"said": {"pooling": "mean"}, "default": {}})
    with pytest.raises(ContractError, match="'one-said' and 'one-default' have two readouts that are one"):
        check_siblings(made)


def test_a_backbone_that_cannot_have_a_readout_is_refused(tmp_path: Path) -> None:
    folder = write_library_model(tmp_path / "one", end_token=True)
    made = on_backbones(tmp_path, {"one": folder}, {"a": {"end_token": False}})
    with pytest.raises(InputError, match="ends each text with a special token by itself"):
        check_siblings(made)


def test_the_shipped_ablation_is_pooling_times_attention() -> None:
    made = config.load_config(ABLATION, expect=config.ExperimentConfig).config
    said = {(made.readout(name).attention, made.readout(name).pooling) for name in made.readouts}
    assert said == {
        (attention, pooling)
        for attention in ("bidirectional", "causal")
        for pooling in ("mean", "last", "weighted_mean")
    }
    assert len(made.runs) == 2 * 6 * 3
