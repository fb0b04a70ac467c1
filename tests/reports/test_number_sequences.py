"""Number sequences in a report: their own table and figure, and no silhouette among the nDCG."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reasoning_embedding.config import NumberSequencesTask
from reasoning_embedding.evaluation.number_sequences import score
from reasoning_embedding.reports import build
from reasoning_embedding.reports.charts import sequence_plots
from reasoning_embedding.reports.reading import read_experiment
from reasoning_embedding.reports.resources import published
from reasoning_embedding.reports.tables import score_table, sequence_tables


class Clusters:
    """Six clusters in eight dimensions, as far apart as `noise` lets them."""

    dimension = 8

    def __init__(self, noise: float) -> None:
        self.noise = noise

    def encode(self, texts, **options) -> np.ndarray:
        vectors = np.eye(6, 8).repeat(len(texts) // 6, axis=0)
        vectors = vectors + self.noise * np.random.default_rng(0).standard_normal(vectors.shape)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


STANDARD = NumberSequencesTask(kind="number-sequences", null_draws=9)
LARGER = NumberSequencesTask(
    kind="number-sequences", name="larger", terms=60, chunks=12, shuffled=True, null_draws=9
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiment")
    for place, noise in {
        "runs/base/evaluation/step-000000": 0.6,
        "runs/base/evaluation/step-000200": 0.2,
        "evaluation/untrained": 2.0,
    }.items():
        tasks = [score(Clusters(noise), task) for task in (STANDARD, LARGER)]
        retrieval = {"task": "toy", "main_score": 0.5, "ndcg_at_10": 0.5}
        (folder / place).mkdir(parents=True)
        record = {"model": "base", "revision": "r", "step": 0, "tasks": [retrieval, *tasks], "failed": []}
        (folder / place / "scores.json").write_text(json.dumps(record))
    return folder


def test_table_holds_model_baselines_and_published(folder: Path) -> None:
    experiment = read_experiment(folder)
    standard, larger = sequence_tables(experiment)
    names = [row[0].plain() for row in standard.rows]
    assert names[:3] == ["base step 0", "base step 200", "untrained baseline"]
    assert len(names) == 3 + 4 + 14
    digits = standard.rows[names.index("digit histogram no model")]
    assert [cell.text for cell in digits[1:5]] == ["−0.1535", "3.5046", "0.2672", "1.1101"]
    assert standard.rows[names.index("random vectors no model")][1].note.startswith("sd 0.0")
    assert standard.rows[-1][0].plain() == "bge-multilingual-gemma2 published"
    entry = experiment.runs[0].scores[200].sequences["number-sequences"]
    assert standard.rows[1][1].text == f"{entry['silhouette_true']:.4f}"
    assert standard.rows[1][6].text == "0.100"
    assert standard.reference_rows == frozenset(range(3, 21))
    assert len(larger.rows) == 3 + 4  # other texts than the published ones


def test_silhouettes_are_not_among_retrieval_scores(folder: Path) -> None:
    experiment = read_experiment(folder)
    assert experiment.tasks == ("toy",)
    assert [column.group for column in score_table(experiment).columns[1:]] == ["toy"] * 3


def test_panels_keep_families_apart(folder: Path) -> None:
    plots = sequence_plots(read_experiment(folder))
    assert [plot.title for plot in plots["larger"]] == [
        "base · step 0",
        "base · step 200",
        "untrained · baseline",
    ]
    assert [len(points) for points in plots["number-sequences"][1].points] == [4] * 6
    trained = [np.array(points) for points in plots["larger"][1].points]
    spread = max(np.linalg.norm(points - points.mean(0), axis=1).mean() for points in trained)
    centres = np.array([points.mean(0) for points in trained])
    gaps = np.linalg.norm(centres[:, None] - centres, axis=2) + 1e9 * np.eye(6)
    assert gaps.min() > spread


def test_report_shows_figure_and_table(folder: Path) -> None:
    page = build(folder).read_text(encoding="utf-8")
    assert 'id="table-sequences-number-sequences"' in page
    assert page.count('id="chart-tsne-') == 2
    assert page.count('class="mark"') > 24 * 3  # a mark a text in each of three panels
    png = (folder / "report" / "figures" / "tsne-number-sequences.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert "EmbeddingGemma-0.3B" in (folder / "report" / "table.md").read_text(encoding="utf-8")


def test_published_table() -> None:
    found = published("number-sequences")
    assert len(found["models"]) == 14
    assert found["models"]["Qwen3-Embedding-8B"] == [0.3103, 1.0893, 0.3103, 1.0893]
    assert {len(values) for values in found["models"].values()} == {len(found["metrics"])}
