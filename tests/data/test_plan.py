"""A plan is a function of (seed, step): nothing else moves a batch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from reasoning_embedding import config
from reasoning_embedding.data import Plan, PlannedRows, Table
from reasoning_embedding.errors import InputError
from tests.factories import make_table

#: Rows of the paper's eleven data sets.
PAPER = [499_184, 277_217, 167_808, 105_893, 102_796, 97_912, 94_443, 90_467, 84_494, 65_465, 17_493]


def make_plan(table: Table, size: int, seed: int = 0, **settings: Any) -> Plan:
    length = {key: settings.pop(key) for key in ("steps", "epochs") if key in settings}
    data = config.Data.model_validate({"sources": [{"kind": "world"}], **settings})
    return Plan(table, config.Training(batch_size=size, **length), data, seed)


def same(one: PlannedRows, two: PlannedRows) -> bool:
    arrays = ("query", "positive", "negative", "negative_owner", "rows")
    return one.source == two.source and all(
        np.array_equal(getattr(one, key), getattr(two, key)) for key in arrays
    )


def test_the_paper_takes_782_steps() -> None:
    table = make_table(PAPER)
    assert len(table) == 1_603_172
    plan = make_plan(table, 2048)
    assert plan.steps == plan.steps_per_epoch == 782
    seen = np.concatenate([plan.at(step).rows for step in range(1, 783)])
    assert len(seen) == len(np.unique(seen)) == 782 * 2048


@pytest.mark.parametrize(
    ("length", "steps"),
    [({}, 10), ({"epochs": 1}, 10), ({"epochs": 2.5}, 25), ({"epochs": 0.001}, 1), ({"steps": 7}, 7)],
)
def test_length(length: dict, steps: int) -> None:
    plan = make_plan(make_table([70, 39]), 10, **length)
    assert (plan.steps, plan.steps_per_epoch) == (steps, 10)
    for outside in (0, steps + 1):
        with pytest.raises(ValueError, match="is not in 1"):
            plan.at(outside)


shapes = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    counts=shapes,
    size=st.integers(1, 12),
    seed=st.integers(0, 2**70),
    batching=st.sampled_from(["one_source", "mixed"]),
)
def test_every_row_once_an_epoch(counts: list[int], size: int, seed: int, batching: str) -> None:
    table = make_table(counts, positives=3, negatives=4)
    if len(table) < size:
        with pytest.raises(InputError, match="cannot fill a batch"):
            make_plan(table, size)
        return
    plan = make_plan(table, size, seed, epochs=2, batching=batching)
    full = Counter()
    for epoch in range(2):
        batches = [plan.at(epoch * plan.steps_per_epoch + place + 1) for place in range(plan.steps_per_epoch)]
        rows = np.concatenate([batch.rows for batch in batches])
        assert len(rows) == len(set(rows.tolist())) == len(table) // size * size
        for batch in batches:
            names = {table.sources[source] for source in table.source[batch.rows]}
            assert batch.source == "mixed" or names == {batch.source}
            full[epoch, batch.source] += 1
    for name, count in zip(table.sources, counts, strict=True):
        whole = count // size
        if batching == "one_source":
            assert full[0, name] == full[1, name] == whole or len(counts) == 1
        else:
            assert full[0, name] == (whole if len(counts) == 1 else 0)


@settings(max_examples=40, deadline=None)
@given(
    counts=shapes.map(lambda counts: [count + 12 for count in counts]),
    size=st.integers(1, 12),
    data=st.data(),
)
def test_a_batch_needs_no_other(counts: list[int], size: int, data: st.DataObject) -> None:
    table = make_table(counts, positives=2, negatives=5)
    extra: dict[str, Any] = {"steps": 40, "negatives": 2}
    if data.draw(st.booleans(), label="weighted"):
        extra["weights"] = {name: number + 1.0 for number, name in enumerate(table.sources)}
    plan = make_plan(table, size, **extra)
    batches = [plan.at(step) for step in range(1, 41)]
    for step in data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=6), label="steps"):
        assert same(plan.at(step), batches[step - 1])
        # A resumed run, a longer one, and one that asks for this step alone.
        assert same(make_plan(table, size, **extra).at(step), batches[step - 1])
        assert same(make_plan(table, size, **extra | {"steps": 90}).at(step), batches[step - 1])


def test_seeds_and_epochs_differ() -> None:
    table = make_table([200, 100], negatives=5)
    plan, other = make_plan(table, 20, epochs=2), make_plan(table, 20, 1, epochs=2)
    assert not any(same(plan.at(step), other.at(step)) for step in range(1, 31))
    first, second = ([plan.at(step + 15 * epoch).rows for step in range(1, 16)] for epoch in range(2))
    assert not any(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    # Both sources come early and late: the order of batches is shuffled.
    sources = [plan.at(step).source for step in range(1, 31)]
    assert {"s0", "s1"} <= set(sources[:8]) | set(sources[22:])
    assert sources[:15] != sorted(sources[:15])


def test_rows_left_over_change_with_the_epoch() -> None:
    plan = make_plan(make_table([25]), 10, epochs=40)
    seen = Counter(row for step in range(1, plan.steps + 1) for row in plan.at(step).rows.tolist())
    assert len(seen) == 25
    # Binomial(40, 0.8): 32 expected, 2.5 standard deviation.
    assert min(seen.values()) > 20


def test_positives_and_negatives_belong_to_their_query() -> None:
    table = make_table([90], positives=3, negatives=6)
    plan = make_plan(table, 30, negatives=3, epochs=60)
    positives, pairs = Counter(), Counter()
    for step in range(1, plan.steps + 1):
        batch = plan.at(step)
        assert (batch.query == table.query[batch.rows]).all()
        assert (np.diff(batch.negative_owner) >= 0).all()
        for place, row in enumerate(batch.rows):
            assert batch.positive[place] in table.positives[row]
            drawn, own = batch.negative[batch.negative_owner == place], table.negatives[row]
            assert set(drawn.tolist()) <= set(own.tolist())
            assert len(drawn) == len(set(drawn.tolist())) == min(3, len(own))
            positives[int(row), int(batch.positive[place])] += 1
            pairs.update((int(row), int(text)) for text in drawn)
        types = [batch.query.dtype, batch.positive.dtype, batch.negative.dtype, batch.negative_owner.dtype]
        assert types == [np.int32] * 4
        assert batch.rows.dtype == np.int64
    # Uniform: each of m positives in 1/m, each of m > 3 negatives in 3/m of 60 epochs; 5 standard deviations.
    for counts, lists, kept in ((positives, table.positives, 1), (pairs, table.negatives, 3)):
        for row in range(90):
            share = min(1.0, kept / max(1, len(lists[row])))
            for text in lists[row].tolist():
                assert abs(counts[row, text] - 60 * share) <= 5 * np.sqrt(60 * share * (1 - share))


def test_the_number_of_negatives_moves_nothing_else() -> None:
    table = make_table([60], positives=3, negatives=6)
    with_none, with_two = (
        make_plan(table, 20, negatives=0).at(2),
        make_plan(table, 20, negatives=2).at(2),
    )
    assert not len(with_none.negative)
    assert len(with_two.negative)
    assert np.array_equal(with_none.positive, with_two.positive)
    assert np.array_equal(with_none.rows, with_two.rows)


def test_weights_are_frequencies() -> None:
    table = make_table([100, 50, 25], negatives=1)
    plan = make_plan(table, 10, steps=6000, weights={"s0": 1, "s1": 3, "s2": 4})
    batches = [plan.at(step) for step in range(1, 6001)]
    shares = Counter(batch.source for batch in batches)
    for name, share in (("s0", 1 / 8), ("s1", 3 / 8), ("s2", 4 / 8)):
        assert abs(shares[name] / 6000 - share) < 5 * np.sqrt(share * (1 - share) / 6000)
    # The third source has two batches a pass: no row comes twice within one.
    turns = [batch.rows for batch in batches if batch.source == "s2"]
    assert all(
        len(set(a.tolist()) | set(b.tolist())) == 20 for a, b in zip(turns[::2], turns[1::2], strict=False)
    )
    assert all((table.source[rows] == 2).all() for rows in turns)
    assert len({tuple(rows) for rows in turns}) == len(turns)


def test_a_temperature_flattens_the_sizes_that_caps_allow() -> None:
    table = make_table([640, 80, 40])
    for mix, expected in (
        ({"temperature": 1.0}, [640, 80, 40]),
        ({"temperature": 3.0}, [640 ** (1 / 3), 80 ** (1 / 3), 40 ** (1 / 3)]),
        ({"temperature": 1.0, "caps": {"s0": 120}}, [120, 80, 40]),
    ):
        plan = make_plan(table, 10, steps=1500, **mix)
        shares = Counter(plan.at(step).source for step in range(1, 1501))
        for name, weight in zip(table.sources, expected, strict=True):
            share = weight / sum(expected)
            assert abs(shares[name] / 1500 - share) < 5 * np.sqrt(share * (1 - share) / 1500)
        weights = dict(zip(table.sources, expected, strict=True))
        twin = make_plan(table, 10, steps=1500, weights=weights)
        assert all(same(plan.at(step), twin.at(step)) for step in range(1, 40))


@pytest.mark.parametrize("batching", ["one_source", "mixed"])
def test_a_capped_source_gives_another_sample_each_epoch(batching: str) -> None:
    table = make_table([300, 50, 20])
    plan = make_plan(table, 10, epochs=30, caps={"s0": 60, "s1": 999}, batching=batching)
    assert plan.steps_per_epoch == (60 + 50 + 20) // 10
    seen: list[Counter[int]] = []
    for epoch in range(30):
        steps = range(epoch * plan.steps_per_epoch + 1, (epoch + 1) * plan.steps_per_epoch + 1)
        rows = np.concatenate([plan.at(step).rows for step in steps])
        assert len(rows) == len(set(rows.tolist())) == 130
        assert np.bincount(table.source[rows]).tolist() == [60, 50, 20]
        seen.append(Counter(rows[table.source[rows] == 0].tolist()))
    total = sum(seen, Counter())
    assert len(total) > 290
    assert seen[0] != seen[1]
    alone = make_plan(table, 10, epochs=30, caps={"s0": 60}, batching=batching)
    assert same(alone.at(217), plan.at(217))


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"weights": {"a": 1}, "temperature": 2}, "drop one of both"),
        ({"weights": {"a": 1}, "caps": {"a": 2}}, "caps change nothing"),
        ({"weights": {"a": 1}, "batching": "mixed"}, "weights chooses the source"),
        ({"temperature": 2, "batching": "mixed"}, "temperature chooses the source"),
        ({"temperature": 0}, "greater than 0"),
        ({"caps": {"a": 0}}, "greater than 0"),
        ({"cache_dir": "x", "sources": [{"kind": "hub", "dataset": "a/b"}]}, "say its revision"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        config.Data.model_validate({"sources": [{"kind": "world"}], **settings})


@pytest.mark.parametrize(
    ("counts", "size", "settings", "what"),
    [
        ([9], 10, {}, "9 rows cannot fill a batch of 10"),
        ([20, 20], 10, {"weights": {"s0": 1, "s2": 1}}, "no source is named 's2'"),
        ([20, 20], 10, {"weights": {"s0": 1}}, "no weight for s1"),
        ([20, 5], 10, {"weights": {"s0": 1, "s1": 1}}, "source 's1' has 5 rows"),
        ([20, 20], 10, {"caps": {"s2": 1}}, "no source is named 's2'"),
        ([20, 20], 10, {"caps": {"s0": 4, "s1": 5}}, "9 rows cannot fill a batch of 10"),
        ([20, 5], 10, {"temperature": 2.0}, "source 's1' has 5 rows"),
    ],
)
def test_what_cannot_be_planned(counts: list[int], size: int, settings: dict, what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        make_plan(make_table(counts), size, **settings)
    assert caught.value.where in {"training.batch_size", "data.weights", "data.caps"}
    assert caught.value.todo
