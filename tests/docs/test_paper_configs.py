"""The paper's pairs: its recipe to the letter, 782 steps, members that differ in the backbone only."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from reasoning_embedding.cli.main import app
from reasoning_embedding.config import ExperimentConfig, GivenStage, load_config
from reasoning_embedding.data.plan import Plan
from reasoning_embedding.experiments import run_config
from tests.factories import make_table

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "paper"
PAIRS = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "recipe.yaml")
ROWS = 1_603_172


def load(path: Path) -> ExperimentConfig:
    return load_config(path).config


def test_every_pair_of_the_paper_is_there() -> None:
    given = []
    for path in PAIRS:
        lineage = load(path).lineage
        assert lineage is not None
        given.append(tuple(stage.path for stage in lineage.stages if isinstance(stage, GivenStage)))
    assert len(given) == len(set(given)) == 9
    assert ("Qwen/Qwen3-0.6B-Base", "Qwen/Qwen3-0.6B") in given
    assert (
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        "nvidia/Nemotron-Research-Reasoning-Qwen-1.5B",
    ) in given


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_members_differ_in_the_backbone_only(path: Path) -> None:
    experiment, recipe = load(path), load(FOLDER / "recipe.yaml")
    assert experiment.recipe == recipe.recipe
    assert experiment.evaluation == recipe.evaluation
    assert experiment.lineage is not None
    base, reason = experiment.lineage.stages
    assert isinstance(base, GivenStage)
    assert isinstance(reason, GivenStage)
    assert base.revision
    assert reason.revision
    assert reason.tokenizer_of == base.name
    assert [(run.backbone, run.seed) for run in experiment.runs] == [
        (stage, seed) for stage in ("base", "reason") for seed in (0, 1, 2)
    ]
    for seed in (0, 1, 2):
        members = [run_config(experiment, f"{name}-seed{seed}").model_dump() for name in ("base", "reason")]
        differing = {key for key in members[0] if members[0][key] != members[1][key]}
        assert differing == {"name", "backbone"}


def test_the_recipe_is_the_papers() -> None:
    experiment = load(FOLDER / "recipe.yaml")
    recipe, training = experiment.recipe, experiment.recipe.training
    assert sum(source.expected_rows or 0 for source in recipe.data.sources) == ROWS
    assert (training.batch_size, training.epochs, training.steps) == (2048, 1, None)
    assert (training.learning_rate, training.weight_decay, training.warmup_ratio) == (2e-5, 0.05, 0.03)
    assert (training.schedule, training.precision, training.optimizer.kind) == ("cosine", "bf16", "adamw")
    assert training.activation_checkpointing is True
    assert recipe.loss.temperature == 0.02
    assert recipe.loss.directions == ("query_document",)
    assert recipe.loss.false_negatives is None
    assert recipe.loss.mask_same_text is False
    assert (recipe.data.negatives, recipe.data.batching) == (3, "one_source")
    assert (recipe.data.query_max_tokens, recipe.data.document_max_tokens) == (512, 512)
    assert recipe.data.query_template == "Instruct: {instruction}\nQuery: "
    assert not recipe.readout.include_prompt
    assert recipe.checkpoints.every == 200
    assert experiment.evaluation is not None
    assert [task.name for task in experiment.evaluation.tasks] == [
        "MTEB(Multilingual, v2)", "MTEB(Code, v1)", "BRIGHT(v1.1)",
    ]  # fmt: skip


def test_an_epoch_has_782_steps_of_one_source_but_for_the_leftovers() -> None:
    recipe = load(FOLDER / "recipe.yaml").recipe
    counts = [source.expected_rows or 0 for source in recipe.data.sources]
    plan = Plan(make_table(counts, negatives=3), recipe.training, recipe.data, seed=0)
    assert plan.steps == plan.steps_per_epoch == ROWS // 2048 == 782
    # Full batches of each set alone; the rest is pooled, and less than a batch sits out.
    pure = sum(count // 2048 for count in counts)
    sources = [plan.at(step).source for step in range(1, 783)]
    assert sources.count("mixed") == 782 - pure > 0


def test_a_dry_run_prints_commands_memory_and_hours() -> None:
    path = FOLDER / "qwen3-0.6b-sft.yaml"
    result = CliRunner().invoke(app, ["experiment", str(path), "--dry-run"])
    assert result.exit_code == 0, result.output
    rows = [
        line.split() for line in result.output.splitlines() if line.startswith(("base-seed", "reason-seed"))
    ]
    assert len(rows) == 6
    for row in rows:
        assert row[2] == "782"
        assert 0.1 < float(row[-1]) < 100
    assert "GB a GPU: " in result.output
    launches = [line for line in result.output.splitlines() if line.startswith("accelerate launch")]
    assert len(launches) == 6
    assert launches[0].endswith(f"-m reasoning_embedding train {path} --run base-seed0 --resume")
    launcher = launches[0].split("--config_file ")[1].split()[0]
    assert (FOLDER.parents[1] / launcher).is_file()
    assert not Path("runs/paper-qwen3-0.6b-sft").exists()
