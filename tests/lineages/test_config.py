"""What a lineage's configuration refuses, and siblings that would not see the same tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding.config import ExperimentConfig, load_config
from reasoning_embedding.errors import ConfigError, ContractError
from reasoning_embedding.experiments.stages import plan_stages
from reasoning_embedding.experiments.training import check_siblings

GIVEN = {"kind": "given", "name": "base", "path": "some/model"}
RLVR = {"kind": "rlvr", "name": "rlvr", "parent": "base", "learning_rate": 1e-5, "steps": 4, "batch_size": 2}
FILES = {"kind": "files", "paths": ["rows.jsonl"]}


def refused(path: Path, *stages: dict[str, Any], **more: Any) -> str:
    """Return what is said about a lineage of these stages."""
    config = {"kind": "lineage", "name": "l", "stages": list(stages)} | more
    path.write_text(json.dumps(config, indent=1))
    with pytest.raises(ConfigError) as error:
        load_config(path)
    return str(error.value)


def test_an_unknown_reward_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "l.yaml"
    said = refused(path, GIVEN, RLVR | {"reward": "exact_macth"})
    assert "no reward 'exact_macth'" in said
    assert "did you mean 'exact_match'?" in said
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if "exact_macth" in text)
    assert f"l.yaml:{line}:" in said


@pytest.mark.parametrize(
    ("stages", "more", "what"),
    [
        ([GIVEN, RLVR | {"data": FILES}], {}, "max_completion_tokens"),
        ([GIVEN | {"tokenizer_of": "other"}], {}, "names tokenizer_of 'other'"),
        ([GIVEN, RLVR | {"parent": "sft"}], {}, "names parent 'sft'; the stages before it are ['base']"),
        ([GIVEN, RLVR], {"hrsa": {"probe": {"kind": "world"}}}, "no stage has checkpoints to track"),
        ([GIVEN, RLVR | {"dead_stebs": 3}], {}, "did you mean 'dead_steps'"),
        (
            [{"kind": "pretrain", "name": "base", "architecture": {}, "corpus": {"kind": "world"}}
             | {key: RLVR[key] for key in ("learning_rate", "steps", "batch_size")}],
            {}, "the lineage needs a tokenizer",
        ),
    ],
)  # fmt: skip
def test_stages_that_cannot_be_grown_are_refused(
    tmp_path: Path, stages: list[dict[str, Any]], more: dict[str, Any], what: str
) -> None:
    assert what in refused(tmp_path / "l.yaml", *stages, **more)


def experiment(folder: Path, *stages: dict[str, Any], **analysis: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "kind": "experiment",
            "name": "pair",
            "output_dir": str(folder),
            "lineage": {"stages": list(stages)},
            "recipe": {"data": {"sources": [{"kind": "world"}]}},
            "runs": [{"name": f"of-{stage['name']}", "backbone": stage["name"]} for stage in stages],
            "analysis": {"probe": {"kind": "world"}, **analysis},
        }
    )


@pytest.mark.parametrize(
    ("analysis", "what"),
    [
        (
            {"pairs": [{"name": "p", "a": "lineage:base", "b": "lineage:rlvr@4"}]},
            "stage 'rlvr' keeps no steps",
        ),
        (
            {"pairs": [{"name": "p", "a": "lineage:base", "b": "lineage:sft"}]},
            "'lineage:sft' is not known here",
        ),
        ({"realignment": [{"name": "t", "run": "lineage:rlvr", "against": "first"}]}, "keeps no steps"),
        ({"realignment": [{"name": "t", "run": "rlvr", "against": "first"}]}, "there is no run 'rlvr'"),
        (
            {"realignment": [{"name": "t", "run": "lineage:sft", "against": "first"}]},
            "there is no stage 'sft'",
        ),
    ],
)
def test_references_to_what_is_not_there_are_refused(analysis: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        experiment(Path(), GIVEN, RLVR, **analysis)


def test_references_to_kept_steps_are_taken() -> None:
    kept = RLVR | {"checkpoints": {"every": 2}}
    pairs = [{"name": "p", "a": "lineage:base", "b": "lineage:rlvr@2"}]
    track = [{"name": "t", "run": "lineage:rlvr", "against": "first"}]
    assert experiment(Path(), GIVEN, kept, pairs=pairs, realignment=track).analysis is not None


def test_siblings_with_different_chat_templates_are_refused_before_a_run(
    tmp_path: Path, tiny_tokenizer: Path
) -> None:
    stages = [GIVEN, GIVEN | {"name": "reason"}]
    settings = experiment(tmp_path, *stages)
    for stage in stages:
        shutil.copytree(tiny_tokenizer, tmp_path / "pair" / "lineage" / stage["name"])
    check_siblings(settings)
    template = tmp_path / "pair" / "lineage" / "reason" / "chat_template.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(
        ContractError, match="'of-base' and 'of-reason' have different chat templates; 'of-base' has none"
    ):
        check_siblings(settings)
    # Whoever trains first, both given backbones are there and looked at.
    plan = {stage.name: stage for stage in plan_stages(settings)}
    assert {"grow-base", "grow-reason"} <= {*plan["train-of-base"].needs, *plan["train-of-base"].after}
