"""Replicate designs: what one lineage's file becomes for all, what is refused, and what a resolved file keeps."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding.config import ExperimentConfig, load_config, resolved_json
from reasoning_embedding.errors import ConfigError
from reasoning_embedding.experiments.stages import plan_stages

STEPS = {"learning_rate": 1e-3, "steps": 4, "batch_size": 2}
DESIGN: dict[str, Any] = {
    "kind": "experiment",
    "name": "design",
    "lineage": {
        "tokenizer": {"kind": "world"},
        "stages": [
            {
                "kind": "pretrain",
                "name": "base",
                "seed": 5,
                "architecture": {"model_type": "qwen3"},
                "corpus": {"kind": "world"},
                **STEPS,
            },
            {"kind": "rlvr", "name": "rlvr", "parent": "base", "gates": {"sampled_accuracy": 0.5}, **STEPS},
            {"kind": "sft", "name": "sft", "parent": "base", **STEPS},
        ],
    },
    "recipe": {
        "data": {"sources": [{"kind": "world", "split": "train"}]},
        "training": {"batch_size": 2, "steps": 2},
    },
    "runs": [{"name": name, "backbone": name} for name in ("base", "rlvr", "sft")],
    "analysis": {
        "probe": {"kind": "world"},
        "pairs": [{"name": "kept", "a": "lineage:base", "b": "run:sft@first"}],
    },
    "evaluation": {"tasks": [{"kind": "world"}]},
    "replicates": {
        "lineages": 3,
        "base": "base",
        "arms": ["rlvr", "sft"],
        "primary": {"arm": "rlvr", "metric": "cka_debiased", "margin": 0.2},
        "others": [
            {"of": "backbones", "metric": "cka", "margin": 0.2},
            {
                "of": "scores",
                "task": "world-heldout",
                "metric": "ndcg_at_10",
                "scale": "plain",
                "margin": 0.02,
            },
        ],
    },
}


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    """The design with one value changed; None: taken out."""
    found = copy.deepcopy(DESIGN)
    place: Any = found
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return found


def test_one_lineage_is_written_out_for_all() -> None:
    design = ExperimentConfig.model_validate(DESIGN)
    assert design.lineage is not None
    stages = {stage.name: stage for stage in design.lineage.stages}
    assert list(stages)[:5] == ["base-1", "rlvr-1", "rlvr-placebo-1", "sft-1", "sft-placebo-1"]
    assert len(stages) == 15
    assert [stages[f"base-{n}"].seed for n in (1, 2, 3)] == [5, 6, 7]
    placebo = stages["rlvr-placebo-2"].model_dump()
    twin = stages["rlvr-2"].model_dump()
    assert (placebo["parent"], placebo["placebo_of"]) == ("base-2", "rlvr-2")
    assert {key for key in twin if twin[key] != placebo[key]} == {"name", "placebo_of", "gates"}
    seeds = {run.name: run.seed for run in design.runs}
    assert (
        [seeds[f"rlvr-{n}"] for n in (1, 2, 3)]
        == [seeds[f"rlvr-placebo-{n}"] for n in (1, 2, 3)]
        == [0, 1, 2]
    )
    assert design.analysis is not None
    pairs = {pair.name: (pair.a, pair.b) for pair in design.analysis.pairs}
    assert pairs["embedders-base-rlvr-placebo-3"] == ("run:base-3@last", "run:rlvr-placebo-3@last")
    assert pairs["backbones-base-sft-2"] == ("lineage:base-2", "lineage:sft-2")
    assert pairs["kept-2"] == ("lineage:base-2", "run:sft-2@first")
    assert len(pairs) == 3 + 2 * 4 * 3


def test_no_two_lineages_share_a_contrastive_seed() -> None:
    design = ExperimentConfig.model_validate(changed("replicates", "seeds", to=2))
    seeds = [run.seed for run in design.runs if run.name.startswith("base-")]
    assert seeds == [0, 1, 2, 3, 4, 5]
    assert design.replicates is not None
    assert {run.name for run in design.runs} >= {design.replicates.run("sft-placebo", 3, 2)}


def test_a_given_base_is_shared_and_variants_differ_in_their_seed() -> None:
    given = changed("lineage", "stages", 0, to={"kind": "given", "name": "base", "path": "some/model"})
    design = ExperimentConfig.model_validate(given)
    assert design.lineage is not None
    names = [stage.name for stage in design.lineage.stages]
    assert names[:2] == ["base", "rlvr-1"]
    assert {run.backbone for run in design.runs if run.name.startswith("base-")} == {"base"}
    assert [stage.seed for stage in design.lineage.stages if stage.name.startswith("sft-placebo")] == [
        0,
        1,
        2,
    ]


def test_a_resolved_design_is_read_back_as_it_is() -> None:
    design = ExperimentConfig.model_validate(DESIGN)
    assert ExperimentConfig.model_validate(resolved_json(design)) == design


def test_a_placebo_waits_for_its_twin() -> None:
    stages = {stage.name: stage for stage in plan_stages(ExperimentConfig.model_validate(DESIGN))}
    assert stages["grow-rlvr-placebo-1"].needs == ("grow-base-1", "grow-rlvr-1")
    assert stages["grow-rlvr-1"].needs == ("grow-base-1",)


def test_the_primary_question_comes_first_and_no_other_is_lost() -> None:
    design = ExperimentConfig.model_validate(changed("replicates", "primary", "arm", to="sft"))
    assert design.replicates is not None
    assert [question.name for question in design.replicates.questions] == [
        "sft: embedders, cka_debiased, layer last",
        "rlvr: embedders, cka_debiased, layer last",
        "rlvr: backbones, cka, layer last",
        "rlvr: scores, ndcg_at_10, world-heldout",
        "sft: backbones, cka, layer last",
        "sft: scores, ndcg_at_10, world-heldout",
    ]


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (("replicates", "primary"), None, "primary"),
        (("replicates", "primary", "margin"), None, "margin"),
        (("replicates", "primary", "arm"), None, "of which arm? One of rlvr, sft"),
        (("replicates", "primary", "arm"), "rvlr", "no arm 'rvlr' among rlvr, sft; did you mean 'rlvr'?"),
        (("replicates", "base"), "bases", "'bases' is no run on a stage of the lineage"),
        (("replicates", "arms"), ["rlvr", "base"], "'base' is named twice"),
        (("replicates", "others", 0, "of"), "scores", "a measure of scores needs a task"),
        (("analysis",), None, "the experiment needs an analysis"),
        (("replicates", "primary", "metric"), "cka_debaised", "no metric 'cka_debaised' of HRSA"),
        (("replicates", "primary", "metric"), "knn_jaccard@7", "did you mean 'knn_jaccard@5'?"),
        (("replicates", "others", 1, "task"), "world", "no task 'world' among world-heldout"),
        (("evaluation",), None, "the experiment needs an evaluation"),
        (("runs", 1, "backbone"), "base", "arm 'rlvr' is grown by pretrain, which has no placebo"),
        (("lineage",), None, "stage"),
    ],
)  # fmt: skip
def test_designs_that_cannot_be_are_refused(
    tmp_path: Path, path: tuple[str | int, ...], to: Any, said: str
) -> None:
    file = tmp_path / "design.yaml"
    file.write_text(json.dumps(changed(*path, to=to), indent=1))
    with pytest.raises(ConfigError, match=r"design\.yaml") as error:
        load_config(file)
    assert said in str(error.value)


def test_a_placebo_that_is_not_grown_like_its_twin_is_refused(tmp_path: Path) -> None:
    twin = DESIGN["lineage"]["stages"][2]
    stages = [*DESIGN["lineage"]["stages"], twin | {"name": "sham", "placebo_of": "sft", "steps": 9}]
    lineage = {"kind": "lineage", "name": "l", **DESIGN["lineage"], "stages": stages}
    file = tmp_path / "lineage.yaml"
    file.write_text(json.dumps(lineage, indent=1))
    with pytest.raises(
        ConfigError, match="'sham' differs from 'sft' in steps: a placebo is grown like its twin"
    ):
        load_config(file)


def seed_band(a: str, b: str, **design: Any) -> ExperimentConfig:
    """An experiment whose band is one pair."""
    pairs = {"probe": {"kind": "world"}, "pairs": [{"name": "seeds", "a": a, "b": b}], "seed_band": "seeds"}
    kept = {key: value for key, value in DESIGN.items() if key != "replicates"} | design
    return ExperimentConfig.model_validate(kept | {"analysis": pairs})


def test_members_of_a_seed_band_differ_in_their_seed_only() -> None:
    runs = [*DESIGN["runs"], {"name": "again", "backbone": "rlvr", "seed": 3}]
    assert seed_band("run:rlvr@last", "run:again", runs=runs).analysis is not None
    for a, b, said in (
        ("run:base", "run:rlvr", "differ in more than their seeds"),
        ("run:rlvr@last", "run:again@first", "differ in more than their seeds"),
        ("run:rlvr", "run:rlvr", "with itself"),
        ("lineage:rlvr", "lineage:sft", "differ in more than their seeds"),
    ):
        with pytest.raises(ValueError, match=said):
            seed_band(a, b, runs=runs)
    # The same stage grown from another seed is a member, and so is one whose parent was.
    stages = [*DESIGN["lineage"]["stages"], DESIGN["lineage"]["stages"][0] | {"name": "base2", "seed": 6}]
    stages.append(DESIGN["lineage"]["stages"][1] | {"name": "rlvr2", "parent": "base2"})
    grown = {"tokenizer": {"kind": "world"}, "stages": stages}
    assert seed_band("lineage:rlvr", "lineage:rlvr2", lineage=grown).analysis is not None
