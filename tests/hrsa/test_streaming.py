"""Sums over all rows, heat maps by stacks, the cache: each against the slow twin it must equal."""

from __future__ import annotations

import os
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch

from reasoning_embedding import config, hrsa
from reasoning_embedding.data.miniature_world import MiniatureWorld
from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa import instrument as instrument_module
from reasoning_embedding.hrsa import moments
from reasoning_embedding.hrsa.cache import ActivationCache
from reasoning_embedding.hrsa.capture import Activations, draw_sample
from reasoning_embedding.hrsa.instrument import Checkpoint, Instrument
from reasoning_embedding.hrsa.measure import measure_sums
from reasoning_embedding.hrsa.metrics.cka import cka_map, gram_is_cheaper
from reasoning_embedding.hrsa.metrics.correlation import correlation_map
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.metrics.procrustes import heldout_texts, procrustes_of_sums
from reasoning_embedding.hrsa.metrics.spectrum import eigenvalues
from reasoning_embedding.hrsa.moments import PairSums, needed_mib
from reasoning_embedding.hrsa.pair import compare
from reasoning_embedding.hrsa.probes import load_probe
from tests.hrsa.hrsa_models import qwen3, save

TEXTS, ROWS = 60, 420


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two layers far from the origin with a steep spectrum, and the text of each row."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, 24)) * np.linspace(5, 0.1, 24) + 300 * rng.standard_normal(24)
    y = x @ rng.standard_normal((24, 24)) + rng.standard_normal((ROWS, 24)) - 40
    return x, y, np.sort(rng.integers(0, TEXTS, ROWS))


def streamed(x, y, documents, *, block: int = 100, skip: int | None = None) -> PairSums:
    """Rows fed in blocks of uneven size; `skip` leaves one block out."""
    held = heldout_texts(TEXTS, 0.2, 0)[documents]
    stream = PairSums([(0, 0)])
    starts = [0, 3, *range(block, len(x), block), len(x)]
    for number, (start, end) in enumerate(pairwise(starts)):
        if number != skip:
            both = [[torch.from_numpy(side[start:end].copy())] for side in (x, y)]
            stream.add(both, torch.from_numpy(held[start:end]))
    return stream


def test_sums_give_what_the_rows_in_memory_give(rows):
    x, y, documents = rows
    # every text has a row, so that holding out by text draws the same texts
    assert len(np.unique(documents)) == TEXTS
    pair = streamed(x, y, documents).cross[0, 0]
    found = measure_sums(pair)
    fit = hrsa.orthogonal_procrustes(x, y, documents=documents)
    expected = {
        "dimension_correlation": hrsa.dimension_wise_correlation(x, y).value,
        "cka": hrsa.linear_cka(x, y).value,
        "cka_debiased": hrsa.debiased_linear_cka(x, y).value,
        "h_inv": fit.value,
        "h_inv_rescaled": fit.rescaled,
        "procrustes_residual": fit.residual,
    }
    assert found.metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert found.metrics[name].value == pytest.approx(value, rel=1e-10, abs=1e-10), name
    assert found.metrics["cka"].chance == pytest.approx(hrsa.linear_cka(x, y).chance, rel=1e-10)
    assert found.metrics["procrustes_residual"].chance == pytest.approx(fit.residual_chance, rel=1e-10)
    assert found.metrics["h_inv"].n == fit.n
    held = heldout_texts(TEXTS, 0.2, 0)[documents]
    of_rows = procrustes_of_sums(pair, (x[held], y[held], np.flatnonzero(held)))
    assert of_rows.row_cosines == pytest.approx(fit.row_cosines, abs=1e-10)
    assert of_rows.cosine == pytest.approx(fit.cosine, abs=1e-10)
    assert of_rows.map == pytest.approx(fit.map, abs=1e-8)
    for name, metric in (("cka", hrsa.linear_cka(x, y)), ("h_inv", fit)):
        assert found.metrics[name].definition == metric.definition
    assert pair.x.eigenvalues() == pytest.approx(eigenvalues(x), rel=1e-8, abs=1e-10 * eigenvalues(x)[0])


def test_blocks_do_not_matter_but_every_row_does(rows, monkeypatch):
    whole = measure_sums(streamed(*rows).cross[0, 0]).metrics
    small = measure_sums(streamed(*rows, block=17).cross[0, 0]).metrics
    monkeypatch.setattr(moments, "_BLOCK", 7)  # blocks that are cut into smaller ones
    cut = measure_sums(streamed(*rows, block=17).cross[0, 0]).metrics
    for name, metric in whole.items():
        for found in (small, cut):
            assert found[name].value == pytest.approx(metric.value, rel=1e-9, abs=1e-10)
            assert found[name].n == metric.n
    short = measure_sums(streamed(*rows, skip=2).cross[0, 0]).metrics
    assert abs(short["cka"].value - whole["cka"].value) > 1e-6


def test_different_widths_and_constant_dimensions(rows):
    x, y, documents = rows
    narrow = measure_sums(streamed(x, y[:, :10], documents).cross[0, 0])
    assert narrow.metrics.keys() == {"cka", "cka_debiased"}
    assert narrow.metrics["cka"].value == pytest.approx(float(hrsa.linear_cka(x, y[:, :10])), rel=1e-10)
    still = x.copy()
    still[:, 3] = 1234.5678
    found = measure_sums(streamed(still, y, documents).cross[0, 0])
    expected = float(hrsa.dimension_wise_correlation(still, y))
    assert found.metrics["dimension_correlation"].value == pytest.approx(expected, abs=1e-10)
    assert "1 of 24 dimensions are constant and left out" in found.warnings
    flat = measure_sums(streamed(np.full_like(x, 7.1), y, documents).cross[0, 0])
    assert not flat.metrics
    assert any("all rows are equal" in text for text in flat.warnings)


def test_the_memory_announced_is_the_memory_of_the_sums():
    shapes = (3, 8), (4, 8)
    pairs = [(i, j) for i in range(3) for j in range(4)]
    stream = PairSums(pairs, [(0, 0), (1, 1), (2, 3)])
    stream.begin([[torch.zeros(8)] * layers for layers, _ in shapes])
    sums = [m for side in stream.layers for m in side] + list(stream.cross.values())
    squares = [tensor for one in sums for tensor in one.tensors() if tensor.dim() == 2]
    assert needed_mib(*shapes, len(pairs)) == sum(tensor.nbytes for tensor in squares) / 2**20


@pytest.mark.parametrize("n", [40, 700])
def test_heat_maps_equal_one_pair_at_a_time(n):
    rng = np.random.default_rng(n)
    shared = rng.standard_normal((n, 12))
    a, b = ([shared + rng.standard_normal((n, 12)) + 5 for _ in range(count)] for count in (3, 2))
    a[0][:, 4] = 2.5
    x, y = ([Layer(rows) for rows in side] for side in (a, b))
    cka = [[float(hrsa.linear_cka(p, q)) for q in b] for p in a]
    for gram in (True, False, None):
        assert cka_map(x, y, gram=gram) == pytest.approx(np.array(cka), abs=1e-12)
    correlation = [[float(hrsa.dimension_wise_correlation(p, q)) for q in b] for p in a]
    assert correlation_map(x, y) == pytest.approx(np.array(correlation), abs=1e-12)
    x[1] = Layer(np.ones((n, 12)))
    assert np.isnan(cka_map(x, y)[1]).all()
    assert np.isnan(correlation_map(x, y)[1]).all()
    assert np.isfinite(cka_map(x, y)[[0, 2]]).all()


def test_grams_are_chosen_for_few_rows_and_wide_layers():
    wide = [Layer(np.random.default_rng(0).standard_normal((20, 64))) for _ in range(6)]
    assert gram_is_cheaper(20, wide, wide)
    assert not gram_is_cheaper(2000, wide, wide)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("streaming")
    save(qwen3(0, hidden=32, layers=2), root / "a")
    save(qwen3(1, hidden=32, layers=2), root / "b")
    lines = [text for question, answer, _ in MiniatureWorld(0).pairs("train") for text in (question, answer)]
    (root / "texts.txt").write_text("\n".join(lines[:60]) + "\n\n")
    return root


def instrument(folder, cache=None, lines=None, **changes) -> Instrument:
    settings = config.Analysis.model_validate(
        {"probe": {"kind": "text", "path": str(folder / "texts.txt")}, "k": [5], "bootstrap": 0, **changes}
    )
    report = (lambda line: None) if lines is None else lines.append
    return Instrument(load_probe(settings.probe), settings, cache, report=report)


def record(folder, content=(None, None), **changes) -> dict:
    sides = (
        Checkpoint(folder / name, name, content=known) for name, known in zip("ab", content, strict=True)
    )
    return compare("pair", *sides, instrument(folder, **changes), levels=False)


def test_streaming_gives_the_whole_probe_set_though_few_rows_are_kept(folder):
    lines: list[str] = []
    everything = record(folder, max_rows=10_000, streaming="never")
    few = record(folder, max_rows=120, lines=lines)
    assert few["probe"]["streamed"]
    assert not everything["probe"]["streamed"]
    assert few["probe"]["rows"] == everything["probe"]["rows"] > few["probe"]["kept_rows"] == 120
    assert "sums of" in next(line for line in lines if line.startswith("needs about"))
    for name in ("dimension_correlation", "h_inv", "procrustes_residual", "cka", "cka_debiased"):
        assert few["diagonal"][name] == pytest.approx(everything["diagonal"][name], abs=2e-5), name
        assert few["n"][name] == everything["n"][name]
    assert few["n"]["knn_jaccard@5"] <= 120 < everything["n"]["knn_jaccard@5"]
    for name in ("cka", "dimension_correlation"):
        assert np.allclose(few["heatmaps"][name], everything["heatmaps"][name], atol=2e-5)
        # Kept rows cannot say how far a value of all rows would move, and the record says so.
        assert name not in few["intervals"]
        assert everything["intervals"][name][0] < everything["last"][name] < everything["intervals"][name][1]
    [why] = [text for text in few["warnings"] if "no interval" in text]
    assert "dimension_correlation, h_inv" in why
    assert f"of {few['probe']['rows']:,} rows, of which 120 are kept" in why
    low, high = few["intervals"]["procrustes_cosine"]  # a mean over kept rows, of the map of all
    assert low < few["last"]["procrustes_cosine"] < high
    assert few["spectrum_rows"]["a"]["n"] == few["probe"]["rows"]
    kept = record(folder, max_rows=120, streaming="never")
    assert kept["last"]["cka"] != pytest.approx(everything["last"]["cka"], abs=1e-4)
    assert kept["spectrum_rows"] == {"a": None, "b": None}


def test_rows_and_sums_give_the_same_metrics_with_the_same_definitions(folder):
    kept = record(folder, max_rows=120, streaming="never")
    streamed = record(folder, max_rows=120)
    assert list(streamed["diagonal"]) == list(kept["diagonal"])
    assert streamed["definitions"] == kept["definitions"]
    assert list(streamed["chance"]) == list(kept["chance"])
    assert all(None not in values for values in streamed["diagonal"].values())


def test_heat_maps_fall_back_on_kept_rows_where_sums_do_not_fit(folder, monkeypatch):
    monkeypatch.setattr(instrument_module, "needed_mib", lambda *_: 1e9)
    found = record(folder, max_rows=120)
    assert found["probe"]["heatmap_rows"] == 120 < found["probe"]["rows"]
    kept = record(folder, max_rows=120, streaming="never")
    assert found["heatmaps"]["cka"] == kept["heatmaps"]["cka"]
    assert found["last"]["cka"] != kept["last"]["cka"]


def test_a_cached_checkpoint_is_not_read_again_and_a_changed_one_is(folder, tmp_path):
    """What is cached needs no weights any more, and nothing else does without them."""
    models = shutil.copytree(folder, tmp_path / "models")
    cache = ActivationCache(tmp_path / "cache", 100)
    first = record(models, ("1", "2"), cache=cache)
    entries = list((tmp_path / "cache").glob("*.safetensors"))
    assert len(entries) == 2
    for name in "ab":
        (models / name / "model.safetensors").rename(models / name / "away")
    assert record(models, ("1", "2"), cache=cache) == first
    for changes in (
        {"content": ("1", "3")},
        {"content": ("1", "2"), "tokens": "mean"},
        {},  # of unknown content
    ):
        with pytest.raises((OSError, InputError)):
            record(models, cache=cache, **changes)
    entries[0].write_bytes(entries[0].read_bytes()[:100])
    with pytest.raises((OSError, InputError)):
        record(models, ("1", "2"), cache=cache)
    for name in "ab":
        (models / name / "away").rename(models / name / "model.safetensors")
    assert record(models, ("1", "2"), cache=cache) == first  # the damaged entry was read from the model again


def test_the_cache_drops_the_least_recently_used(tmp_path):
    sample = draw_sample([1] * 1000, "last", 1000, 0)
    state = np.random.default_rng(0).standard_normal((1000, 50)).astype(np.float32)  # 0.2 MiB; three: 0.6
    found = Activations(["embedding"], [state], state, state, sample, True)
    cache = ActivationCache(tmp_path, 1)
    for age, key in enumerate(("old", "used")):
        cache.put(key, found)
        os.utime(tmp_path / f"{key}.safetensors", (age, age))
    assert [key for key in ("old", "used") if cache.get(key, sample)] == ["used"]  # two do not fit into 1 MiB
    again = cache.get("used", sample)
    assert np.array_equal(again.states[0], state)
    assert again.layers == ["embedding"]
    (tmp_path / "gone.safetensors").symlink_to(
        tmp_path / "nowhere"
    )  # as if dropped by another process just now
    cache.put("new", found)
    assert cache.get("gone", sample) is None
    assert cache.get("new", sample) is not None
    ActivationCache(tmp_path / "none", 0).put("key", found)
    assert not (tmp_path / "none").exists()


def test_a_row_that_is_not_kept_may_not_be_nan_either(folder, tmp_path):
    model = qwen3(0, hidden=32, layers=2)
    with torch.no_grad():
        model.model.embed_tokens.weight[-1] = float("nan")
    save(model, tmp_path / "broken")
    measured = instrument(folder, max_rows=5)
    a = measured.open(Checkpoint(folder / "a", "a"))
    b = measured.open(Checkpoint(tmp_path / "broken", "broken"), like=a)
    b.ids[3][0] = 125
    b.tokens = a.tokens
    with pytest.raises(InputError, match="NaN or infinite"):
        measured.states(a, b)
