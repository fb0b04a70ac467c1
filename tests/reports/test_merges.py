"""Tables and curves of merges: rows of many tensors, schedules, names of models, distance of two ways."""

from __future__ import annotations

import json

import pytest

from reasoning_embedding.errors import InputError
from reasoning_embedding.reports.pages.merge import (
    build_merge,
    contrast_grid,
    merge_tables,
    path_chart,
    point_grid,
    read_merge,
    short_names,
    tensor_grid,
)


def tensor(name, cosine, *, lerp, t=0.5, norm=3.0):
    return {
        "name": name,
        "shape": [2],
        "parameters": 2,
        "norms": [norm, 5.0],
        "norm_merged": 4.0,
        "cosine": [cosine],
        "angle": [10.0],
        "orthogonal_change": [0.25],
        "t": t,
        "lerp": lerp,
    }


def point(method, t, score, similarity):
    summary = {"tensors": 2, "parameters": 4, "lerp_tensors": 0.5, "lerp_parameters": 0.25}
    return {
        "name": f"{method}-{t:g}",
        "method": method,
        "t": t,
        "model": f"models/{method}-{t:g}",
        "tensors": "tensors/x.json",
        "summary": summary,
        "warnings": ["prompts <differ>"],
        "scores": {
            "numbers": {"main_metric": "silhouette_true", "main_score": score, "silhouette_true": score}
        },
        "similarity": {
            "runs/a@last": {"cka": [similarity, None, None]},
            "runs/b@last": {"cka": [1 - similarity, 0.0, 1.0]},
        },
    }


@pytest.fixture
def record():
    points = [point("slerp", t, t / 2, 1 - t) for t in (0.0, 0.5, 1.0)]
    points += [point("linear", t, t / 2 + (0.1 if t == 0.5 else 0), 1 - t) for t in (0.0, 0.5, 1.0)]
    probe = {"kind": "world", "texts": 320}
    models = ["runs/a@last", "runs/b@last"]
    return {"name": "demo", "models": models, "points": points, "failed": ["x: task: why"], "probe": probe}


@pytest.fixture
def folder(tmp_path, record):
    (tmp_path / "tensors").mkdir()
    tensors = [tensor("embed", 0.9, lerp=False), tensor("norm", 0.99999, lerp=True)]
    (tmp_path / "tensors" / "x.json").write_text(json.dumps({"tensors": tensors}))
    (tmp_path / "merge.json").write_text(json.dumps(record))
    return tmp_path


def cells(grid, row):
    return dict(zip(grid.headings(), (cell.plain() for cell in grid.rows[row]), strict=True))


def test_a_row_a_tensor_with_the_share_that_fell_back(folder, record):
    grid = tensor_grid(folder, record)
    assert cells(grid, 1) == {
        "tensor": "norm",
        "params": "2",
        "norm 1": "3.000",
        "norm 2": "5.000",
        "cosine": "0.999990",
        "angle": "10.00",
        "change": "25.00%",
        "LERP": "yes",
    }
    assert grid.caption.endswith("It was for 50.0% of 2 tensors, 25.0% of 4 parameters.")


def test_many_tensors_share_a_row_by_their_place_in_a_layer(folder, record):
    layers = [tensor(f"layers.{i}.q", 0.5 + i / 200, lerp=i == 3, t=i / 100, norm=1.0) for i in range(100)]
    (folder / "tensors" / "x.json").write_text(
        json.dumps({"tensors": [tensor("embed", 0.9, lerp=False), *layers]})
    )
    grid = tensor_grid(folder, record)
    assert len(grid.rows) == 2
    row = cells(grid, 1)
    assert (row["tensor"], row["params"], row["norm 1"]) == ("layers.*.q", "200", "10.000")
    assert (row["cosine"], row["t"], row["LERP"]) == ("0.500000", "0–0.99", "1 of 100")


def test_several_models_have_one_norm_and_no_lerp(folder, record):
    soup = tensor("embed", 0.9, lerp=False)
    for key in ("t", "lerp"):
        del soup[key]
    soup |= {
        "norms": [3.0, 5.0, 4.0],
        "cosine": [0.9, 0.7],
        "angle": [1.0, 2.0],
        "orthogonal_change": [0.1, 0.2],
    }
    (folder / "tensors" / "x.json").write_text(json.dumps({"tensors": [soup]}))
    row = cells(tensor_grid(folder, record), 0)
    assert list(row) == ["tensor", "params", "norm 1", "cosine", "angle", "change"]
    assert (row["cosine"], row["angle"], row["change"]) == ("0.700000", "2.00", "20.00%")


def test_points_have_scores_and_similarity_to_each_model(record):
    grid = point_grid(record)
    assert grid.title == "Merges of a@last and b@last"
    row = cells(grid, 1)
    assert row["numbers · silhouette"] == "0.2500"
    assert row["to a@last · CKA"] == "0.500"
    assert row["to b@last · CKA"] == "0.500 [0.000, 1.000]"
    assert row["to b@last · kNN@10"] == "–"


def test_curves_meet_at_the_ends_and_the_table_says_where_they_part(record):
    chart = path_chart(record)
    panels = {panel.key: panel for panel in chart.panels}
    assert list(panels) == ["numbers/silhouette_true", "numbers/ari", "cka"]
    slerp, linear = panels["numbers/silhouette_true"].lines
    assert (slerp.x, slerp.y) == ([0.0, 0.5, 1.0], [0.0, 0.25, 0.5])
    assert linear.y[0] == slerp.y[0]
    assert len({line.colour for line in panels["cka"].lines}) == 4
    grid = contrast_grid(record, chart)
    rows = {row[0].plain(): [cell.plain() for cell in row[1:]] for row in grid.rows}
    assert rows["numbers: silhouette_true"] == ["0.5000", "0.1000 at t = 0.5"]
    assert rows["numbers: ari"] == ["–", "–"]
    assert rows["Linear CKA to a@last"][0] == "−1.0000"


def test_one_way_or_one_merge_has_nothing_to_part_from(record):
    record["points"] = record["points"][:3]
    assert contrast_grid(record, path_chart(record)) is None
    for one in record["points"]:
        one["t"] = None
    assert path_chart(record) is None


@pytest.mark.parametrize(
    ("references", "names"),
    [
        (["runs/q/runs/a@last", "runs/q/runs/b@last"], ["a@last", "b@last"]),
        (["r/a/checkpoints/step-1", "r/b/checkpoints/step-1"], ["a", "b"]),
        (["r/a/checkpoints/step-1", "r/a/checkpoints/step-2"], ["step-1", "step-2"]),
        (["x", "y/z"], ["x", "y/z"]),
        (["same", "same"], ["same", "same"]),
    ],
)
def test_names_of_models_are_what_sets_them_apart(references, names):
    assert short_names(references) == names


def test_the_page_is_one_file_with_everything_escaped(folder):
    page = build_merge(folder)
    text = page.read_text()
    assert "prompts &lt;differ&gt;" in text
    assert "failed: x: task: why" in text
    assert "http://" not in text
    assert (page.parent / "path.png").stat().st_size > 10_000
    assert "## Merges of a@last and b@last" in (page.parent / "table.md").read_text()
    assert merge_tables(folder).index("Tensors of the models") < merge_tables(folder).index("Merges of")


def test_a_folder_without_a_merge_or_with_half_of_one_is_refused(tmp_path):
    with pytest.raises(InputError, match="no merge here"):
        read_merge(tmp_path)
    (tmp_path / "merge.json").write_text('{"name": ')
    with pytest.raises(InputError, match="not JSON"):
        read_merge(tmp_path)
