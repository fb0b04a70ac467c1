"""Weights of two models compared: oracles in plain numpy, random updates at their nulls, planted ones away from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.tensors import TensorFolder
from reasoning_embedding.cli.main import app
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import read_json, write_json
from reasoning_embedding.hrsa.weights import (
    MATRIX_MEASURES,
    ModelWeights,
    compare_weights,
    update_cosine,
    weights_record,
)

SHAPES = {"embed_tokens.weight": (90, 20), "layers.0.mlp.up_proj.weight": (60, 20)} | {
    f"layers.{layer}.mlp.down_proj.weight": (20, 60) for layer in range(8)
}


def _gaussian(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()} | {"norm.weight": np.ones(20)}


def _model(folder: Path, tensors: dict[str, np.ndarray], prefix: str = "") -> ModelWeights:
    folder.mkdir(parents=True)
    content = {f"{prefix}{name}": torch.from_numpy(np.ascontiguousarray(t)) for name, t in tensors.items()}
    save_file(content, folder / "model.safetensors", metadata={"format": "pt"})
    return ModelWeights(TensorFolder(folder))


def _plus(a: dict[str, np.ndarray], change: dict[str, np.ndarray], size: float) -> dict[str, np.ndarray]:
    return {name: a[name] + size * change.get(name, np.zeros_like(a[name])) for name in a}


def _oracle(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """The definitions, by full singular value decompositions."""
    k = round(0.1 * min(a.shape))
    (u, s, vt), (v, t, wt) = np.linalg.svd(a), np.linalg.svd(b)
    d = b - a
    total = np.sum(d**2)
    energy = (np.sum((u[:, :k].T @ d) ** 2) + np.sum((d @ vt[:k].T) ** 2)) / (2 * total)
    best = np.abs(u[:, :k] * s[:k] @ vt[:k])
    mask = best >= np.sort(best, axis=None)[-round(0.1 * best.size)]
    cosines = [np.linalg.svd(x, compute_uv=False) for x in (u[:, :k].T @ v[:, :k], vt[:k] @ wt[:k].T)]
    share = np.linalg.svd(d, compute_uv=False)
    share = share[share > 1e-9 * share[0]]
    p = share / share.sum()
    return {
        "leading_energy": energy,
        "principal_weights": np.sum(d[mask] ** 2) / total,
        "rotation": np.degrees(np.mean(np.arccos(np.clip(cosines, -1, 1)))),
        "spectral_drift": np.linalg.norm(t - s) / np.linalg.norm(s),
        "effective_rank": np.exp(-np.sum(p * np.log(p))),
    }


def test_measures_are_their_definitions(tmp_path: Path) -> None:
    a = _gaussian(0)
    b = _plus(a, _gaussian(1), 0.05)
    found = compare_weights(_model(tmp_path / "a", a), _model(tmp_path / "b", b), print)
    assert len(found) == len(a)
    for change in found:
        x, y = a[change.name], b[change.name]
        assert change.squared_change == pytest.approx(np.sum((y - x) ** 2))
        moved = np.abs(y - x) > 1e-3 * np.maximum(np.abs(x), np.abs(y))
        assert change.changed == pytest.approx(moved.mean())
        if x.ndim == 2:
            wanted = _oracle(x, y)
            assert change.effective_rank == pytest.approx(wanted.pop("effective_rank"), rel=1e-6)
            assert {name: value for name, (value, _) in change.measures.items()} == pytest.approx(
                wanted, rel=1e-5
            )
        else:
            assert not change.measures


def test_a_random_update_lies_at_every_null(tmp_path: Path) -> None:
    a = _gaussian(0)
    b = _plus(a, {name: t for name, t in _gaussian(1).items() if t.ndim == 2}, 0.02)
    record = weights_record(_model(tmp_path / "a", a), _model(tmp_path / "b", b), print)
    for name in MATRIX_MEASURES:
        value, null = record["all"]["measures"][name]
        assert value == pytest.approx(null, rel=0.35), name  # ten small matrices
    energy, null = record["all"]["measures"]["leading_energy"]
    assert energy == pytest.approx(null, rel=0.1)


@pytest.mark.parametrize(("along", "above"), [("leading", True), ("last", False)])
def test_an_update_along_or_off_the_leading_directions_is_told(
    tmp_path: Path, along: str, above: bool
) -> None:
    a, change = _gaussian(0), {}
    rng = np.random.default_rng(2)
    for name in SHAPES:
        u, _, vt = np.linalg.svd(a[name], full_matrices=False)
        part = slice(0, 2) if along == "leading" else slice(-8, None)
        inner = rng.normal(size=(u[:, part].shape[1],) * 2)
        change[name] = u[:, part] @ inner @ vt[part]
    record = weights_record(_model(tmp_path / "a", a), _model(tmp_path / "b", _plus(a, change, 0.02)), print)
    energy, null = record["all"]["measures"]["leading_energy"]
    assert energy == pytest.approx(1.0 if above else 0.0, abs=1e-6)
    assert 0.05 < null < 0.1
    weights, tenth = record["all"]["measures"]["principal_weights"]
    assert (weights > 2 * tenth) if above else (weights < tenth)
    assert record["all"]["effective_rank"] < 9


def test_turning_both_models_the_same_way_changes_no_matrix_measure(tmp_path: Path) -> None:
    a = _gaussian(0)
    b = _plus(a, _gaussian(1), 0.05)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(20, 20)))[0]
    name = "layers.0.mlp.up_proj.weight"
    pairs = [({name: a[name] @ q}, {name: b[name] @ q}) for q in (np.eye(20), turn)]
    one, two = (
        compare_weights(_model(tmp_path / f"a{i}", x), _model(tmp_path / f"b{i}", y), print)[0]
        for i, (x, y) in enumerate(pairs)
    )
    for measure in ("leading_energy", "rotation", "spectral_drift"):
        assert two.measures[measure][0] == pytest.approx(one.measures[measure][0], rel=1e-6)
    assert two.effective_rank == pytest.approx(one.effective_rank or 0, rel=1e-6)
    # Which entries are principal depends on the axes: that one is no invariant.
    assert two.measures["principal_weights"][0] != pytest.approx(
        one.measures["principal_weights"][0], rel=1e-3
    )


def test_nothing_changed_is_said_as_such(tmp_path: Path) -> None:
    a = _gaussian(0)
    record = weights_record(_model(tmp_path / "a", a), _model(tmp_path / "b", a, "model."), print)
    assert record["all"] | {"tensors": 0, "entries": 0} == {
        "tensors": 0,
        "entries": 0,
        "matrices": 0,
        "changed": 0.0,
        "relative_change": 0.0,
        "effective_rank": None,
        "largest_rank": None,
        "top_share": None,
        "measures": {},
    }


def test_updates_of_two_seeds_have_a_cosine(tmp_path: Path) -> None:
    a = _gaussian(0)
    before = _model(tmp_path / "a", a)
    one, two = (_model(tmp_path / str(seed), _plus(a, _gaussian(seed), 0.1)) for seed in (1, 2))
    shared = _plus(_plus(a, _gaussian(1), 0.1), _gaussian(2), 0.1)
    assert update_cosine(before, one, one) == pytest.approx(1.0)
    assert abs(update_cosine(before, one, two) or 1) < 0.06
    assert update_cosine(before, one, _model(tmp_path / "both", shared)) == pytest.approx(2**-0.5, abs=0.05)
    assert update_cosine(before, before, one) is None


def test_models_of_other_shapes_are_refused_before_any_work(tmp_path: Path) -> None:
    a = _gaussian(0)
    before = _model(tmp_path / "a", a)
    other = _model(tmp_path / "b", a | {"norm.weight": np.ones(21)})
    with pytest.raises(InputError, match=r"norm.weight has shape \[20\] in the one model and \[21\]"):
        compare_weights(before, other, print)
    with pytest.raises(InputError, match="has shape"):
        weights_record(before, before, print, sibling=other)
    with pytest.raises(InputError, match="share no tensor"):
        compare_weights(before, _model(tmp_path / "c", {"other": np.ones(3)}), print)


def test_the_command_tells_it_in_words_and_keeps_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    a = _gaussian(0)
    for name, seed in (("b", 1), ("c", 2)):
        folder = _model(tmp_path / name, _plus(a, _gaussian(seed), 0.1)).folder.path
        (folder / "config.json").write_text("{}")
    (_model(tmp_path / "a", a).folder.path / "config.json").write_text("{}")
    done = CliRunner().invoke(app, ["analyze", "a", "b", "--weights", "--sibling", "c", "-o", "found.json"])
    assert done.exit_code == 0, done.output
    assert "layers.mlp.down_proj" in done.output or "mlp.down_proj" in done.output
    assert "cosine of B's change with that of c: " in done.output
    record = json.loads((tmp_path / "found.json").read_text())
    assert (record["a"], record["b"], record["kind"]) == ("a", "b", "weights")
    assert abs(record["sibling"]["cosine"]) < 0.06
    kinds = record["kinds"]
    assert kinds["mlp.down_proj"]["tensors"] == 8
    assert list(record["layers"]) == [str(layer) for layer in range(8)]


def test_a_run_is_followed_and_what_was_measured_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    a, run = _gaussian(0), RunFolder(tmp_path / "trained")
    for step, size in ((0, 0.0), (2, 0.05), (4, 0.1)):
        folder = _model(run.checkpoint(step), _plus(a, _gaussian(1), size)).folder.path
        (folder / "config.json").write_text("{}")
    done = CliRunner().invoke(app, ["track", "trained", "--weights"])
    assert done.exit_code == 0, done.output
    record = read_json(run.weight_track)
    assert [step["step"] for step in record["steps"]] == [0, 2, 4]
    moved = [step["all"]["relative_change"] for step in record["steps"]]
    assert moved == [0.0, pytest.approx(0.05, rel=0.1), pytest.approx(2 * moved[1])]
    record["steps"][1]["all"]["changed"] = 0.125  # shows whether it is measured again
    write_json(run.weight_track, record, summed=True)
    assert CliRunner().invoke(app, ["track", "trained", "--weights"]).exit_code == 0
    assert json.loads(run.weight_track.read_text())["steps"][1]["all"]["changed"] == 0.125
    assert (
        CliRunner()
        .invoke(app, ["track", "trained", "--weights", "--against", str(run.checkpoint(2))])
        .exit_code
        == 0
    )
    steps = json.loads(run.weight_track.read_text())["steps"]
    assert [step["all"]["matrices"] for step in steps] == [10, 0, 10]
