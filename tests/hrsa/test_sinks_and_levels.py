"""Attention sinks that are measured and left out, and what a similarity is held against."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from reasoning_embedding import config, hrsa
from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.cache import ActivationCache
from reasoning_embedding.hrsa.capture import draw_sample, leading_sinks, read
from reasoning_embedding.hrsa.instrument import Checkpoint, Instrument
from reasoning_embedding.hrsa.levels import reference_levels
from reasoning_embedding.hrsa.metrics.cka import unit_cka_map
from reasoning_embedding.hrsa.metrics.layer import Layer
from reasoning_embedding.hrsa.metrics.result import effective_rows
from reasoning_embedding.hrsa.pair import compare
from reasoning_embedding.hrsa.probes import load_probe
from reasoning_embedding.reports.analysis_text import analysis_lines

from .hrsa_models import qwen3, save


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two plain models, and one whose first token's state grows a hundredfold after the first layer."""
    root = tmp_path_factory.mktemp("sinks")
    for name, seed in (("a", 0), ("b", 1)):
        save(qwen3(seed, hidden=32, layers=2), root / name)
    return root


def instrument(tmp_path: Path | None = None, **changes) -> Instrument:
    small = {"probe": {"kind": "world"}, "max_rows": 400, "k": [5], "bootstrap": 0, "streaming": "never"}
    settings = config.Analysis.model_validate(small | changes)
    cache = ActivationCache(tmp_path, 64) if tmp_path else None
    return Instrument(load_probe(settings.probe), settings, cache, report=lambda line: None)


def make_sink(model: torch.nn.Module) -> None:
    """Lengthen the first token's state after the first layer, as real decoders do."""

    def lengthen(module, inputs, output):
        state = output[0] if isinstance(output, tuple) else output
        starts = torch.zeros(state.shape[1], dtype=torch.bool)
        starts[lengthen.starts] = True
        state = torch.where(starts[None, :, None], 100 * state, state)
        return (state, *output[1:]) if isinstance(output, tuple) else state

    lengthen.starts = []
    model.register_forward_pre_hook(
        lambda module, inputs, named: setattr(lengthen, "starts", named["cu_seq_lens_q"][:-1].long()),
        with_kwargs=True,
    )
    model.layers[0].register_forward_hook(lengthen)


def test_sinks_are_measured_and_a_plain_model_has_none(folder: Path, tmp_path: Path) -> None:
    measured = instrument(tmp_path)
    plain = measured.open(Checkpoint(folder / "a", "a", content="a"))
    assert measured.sample(plain).skipped == 0
    other = measured.open(Checkpoint(folder / "a", "a with a sink", content="sink"))
    make_sink(other.model)
    assert leading_sinks(other.model, other.ids) == 1
    assert leading_sinks(other.model, [ids[:5] for ids in other.ids]) == 0  # too short to tell
    sample = measured.sample(plain, other)
    assert sample.skipped == 1
    assert sample.positions.min() == 1
    # Known by its content from now on, without its weights.
    again = measured.open(Checkpoint(folder / "b", "b", content="sink"))
    assert measured.sample(again).skipped == 1
    assert "model" not in again.__dict__
    assert instrument(skip_first=2).sample(plain).positions.min() == 2
    assert instrument(tokens="mean", skip_first=2).sample(plain).skipped == 0
    with pytest.raises(InputError, match="more than 500 tokens"):
        instrument(skip_first=500).sample(plain)


def test_rows_that_are_summed_are_without_the_first_ones_too(folder: Path) -> None:
    """Every row that is kept is summed and no other one."""
    measured = instrument(max_rows=10**6, skip_first=2)
    reader = measured.open(Checkpoint(folder / "a", "a"))
    seen: list[np.ndarray] = []
    texts: list[np.ndarray] = []

    def each(rows, of):
        seen.append(rows[0][-1].numpy())
        texts.append(of.numpy())

    sample = measured.sample(reader)
    [found] = read([reader.model], [reader.ids], sample, each=each)
    assert len(sample) == sum(max(0, len(ids) - 2) for ids in reader.ids)
    order = np.argsort(np.concatenate(texts), kind="stable")
    np.testing.assert_allclose(np.concatenate(seen)[order], found.states[-1], atol=1e-6)
    every = read([reader.model], [reader.ids], draw_sample(list(map(len, reader.ids)), "all", 10**6, 0))[0]
    np.testing.assert_allclose(every.states[-1][every.sample.positions >= 2], found.states[-1], atol=1e-6)


def test_a_sink_decides_cka_of_raw_rows_alone_and_is_said() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 400, 24))
    x[::80] += 300
    y[::80] += 300
    raw, unit = hrsa.debiased_linear_cka(x, y), hrsa.unit_row_cka(x, y)
    assert raw.value > 0.9
    assert abs(unit.value) < 0.15
    assert raw.effective_rows == pytest.approx(effective_rows(Layer(x), Layer(y)))
    assert raw.effective_rows < 10
    assert "of 400 rows carry the variance" in raw.warnings[0]
    plain = hrsa.debiased_linear_cka(x[1:80], y[1:80])
    assert not plain.warnings
    assert plain.effective_rows > 60


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_maps_of_unit_rows_are_pairs_of_unit_rows(kind: type) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 9)).astype(kind)
    a = [Layer(rows, dtype=kind) for rows in (x + 1, x**3, np.ones_like(x))]
    b = [Layer(rows, dtype=kind) for rows in (x[:, :5] * 7, x @ rng.standard_normal((9, 9)).astype(kind))]
    found = unit_cka_map(a, b)
    assert np.isnan(found[2]).all()
    for i in range(2):
        for j in range(2):
            slow = float(hrsa.unit_row_cka(a[i].rows, b[j].rows))
            assert found[i, j] == pytest.approx(slow, abs=1e-5 if kind is np.float32 else 1e-10)
            assert abs(found[i, j] - float(hrsa.debiased_linear_cka(a[i].rows, b[j].rows))) > 1e-3


def test_levels_are_measured_on_what_they_say(folder: Path) -> None:
    measured = instrument()
    a, b = measured.open(Checkpoint(folder / "a", "a")), measured.open(Checkpoint(folder / "b", "b"))
    states = measured.states(a, b)
    found = reference_levels(a, b, states, measured, Checkpoint(folder / "a", "itself"))
    assert found["sibling"].last["cka_debiased"] == pytest.approx(1, abs=1e-5)
    assert "itself" in found["sibling"].meaning
    fresh, other = (found[name].last["cka_debiased"] for name in ("random_initialisation", "other_texts"))
    assert fresh is not None
    assert other is not None
    # The same texts in models without training are alike; other texts hardly are.
    assert 0.1 < fresh < 1
    assert other < fresh
    assert len(found["random_initialisation"].diagonal["cka_unit"]) == 4
    # The other texts stand at the same positions: of one model they are not itself.
    same = reference_levels(a, a, measured.states(a, a), measured)
    assert same["other_texts"].last["cka_debiased"] < 0.9
    # Measured once for all pairs of these architectures.
    assert same["random_initialisation"] is found["random_initialisation"]


def test_what_the_terminal_is_told(folder: Path) -> None:
    sides = [Checkpoint(folder / name, name) for name in "ab"]
    record = compare("pair", *sides, instrument(skip_first=1))
    json.dumps(record, allow_nan=False)
    text = "\n".join(analysis_lines(record))
    for words in (
        *(
            "every token but the first of a text",
            "carry the variance",
            "row shuffle",
            "fresh weights",
            "other texts",
        ),
        *(
            "Representation: do the two models use the same axes?",
            "Debiased CKA of unit rows",
            "layer by layer",
        ),
        *("first token of every text is left out", "not with another training run"),
    ):
        assert words in text
    assert "knn_" not in text
    # A record of an older version has neither levels nor effective rows.
    for key in ("levels", "effective_rows", "dominant_dimensions"):
        del record[key]
    del record["probe"]["skipped"]
    assert "fresh weights" not in "\n".join(analysis_lines(record))
