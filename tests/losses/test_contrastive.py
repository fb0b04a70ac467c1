"""What a run trains with, against the formula and against sentence-transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from reasoning_embedding import config
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.losses import build_loss, infonce, tiled_infonce
from reasoning_embedding.losses.masks import known_answers, own_candidates
from tests.losses.loss_reference import check, random_slots, unit_vectors

QWEN3 = ["query_document", "query_query", "document_document"]
GTE = ["query_document", "query_query", "document_query", "document_document"]

OPTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "same text": {"mask_same_text": True},
    "margin": {"false_negatives": {"margin": 0.1}},
    "ratio": {"false_negatives": {"ratio": 0.95}},
    "exempt": {"false_negatives": {"ratio": 0.6, "exempt_hard_negatives": True}},
    "qwen3": {"directions": QWEN3, "mask_same_text": True, "false_negatives": {"margin": 0.1}},
    "gte": {"directions": GTE},
    "gte masked": {"directions": GTE, "mask_same_text": True, "false_negatives": {"ratio": 0.8}},
    "symmetric": {"directions": ["query_document", "document_query"], "softmax": "per_direction"},
    "symmetric masked": {
        "directions": ["document_query", "query_document"],
        "softmax": "per_direction",
        "mask_same_text": True,
        "false_negatives": {"margin": -0.05},
    },
    "matryoshka": {"matryoshka": [4, 2]},
    "weighted widths": {"matryoshka": [8, 3], "matryoshka_weights": [0.5, 2.0], "directions": GTE},
    "kl": {"distillation": {"weight": 0.7, "teacher_temperature": 0.5}},
    "kl, own temperature": {"distillation": {"temperature": 0.3}},
    "margin mse": {"distillation": {"method": "margin_mse", "weight": 3.0}},
    "vectors": {"teacher_vectors": {"folder": "any", "weight": 0.6}},
    "vectors, own temperatures": {
        "teacher_vectors": {"folder": "any", "temperature": 0.3, "teacher_temperature": 0.7},
        "directions": GTE,
    },
    "uniformity": {"uniformity": {"weight": 0.5, "t": 3.0}},
    "sigreg": {"sigreg": {"weight": 0.3, "directions": 70}},
    "anchor": {"anchor": {"weight": 0.8}},
    "debiased anchor": {"anchor": {"weight": 0.8, "debiased": True}},
    "everything": {
        "directions": GTE,
        "mask_same_text": True,
        "false_negatives": {"margin": 0.1, "exempt_hard_negatives": True},
        "matryoshka": [4],
        "distillation": {},
        "teacher_vectors": {"folder": "any"},
        "uniformity": {"weight": 0.1},
        "sigreg": {"weight": 0.1, "directions": 5},
        "anchor": {"weight": 0.1},
    },
}


def _settings(name: str, **more: Any) -> config.InfoNCE:
    plain = {"temperature": 0.1, "mask_same_text": False}
    return config.InfoNCE.model_validate({**plain, **OPTIONS[name], **more})


@pytest.mark.parametrize("name", OPTIONS)
def test_equals_its_formula_in_any_number_of_parts(name: str) -> None:
    values = [check(random_slots(0), _settings(name, tile_rows=2), ranks=ranks) for ranks in (1, 2, 3, 8)]
    assert values == pytest.approx([values[0]] * 4, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    queries=st.integers(1, 5),
    negatives=st.integers(0, 6),
    directions=st.sets(st.sampled_from(GTE[1:])),
    same_text=st.booleans(),
    rule=st.sampled_from([None, {"margin": 0.1}, {"margin": -0.3}, {"ratio": 0.7}]),
    exempt=st.booleans(),
    tile_rows=st.integers(1, 6),
)
def test_equals_its_formula_whatever_is_combined(
    seed: int,
    queries: int,
    negatives: int,
    directions: set[str],
    same_text: bool,
    rule: dict[str, float] | None,
    exempt: bool,
    tile_rows: int,
) -> None:
    loss = config.InfoNCE.model_validate(
        {
            "temperature": 0.07,
            "directions": ["query_document", *sorted(directions)],
            "mask_same_text": same_text,
            "false_negatives": rule and {**rule, "exempt_hard_negatives": exempt},
            "tile_rows": tile_rows,
        }
    )
    batch = random_slots(seed, queries, negatives, copies=queries > 2 and negatives > 1)
    check(batch, loss, seed=seed)


def test_without_a_mask_it_is_plain_cross_entropy() -> None:
    batch = random_slots(0)
    x = unit_vectors(len(batch.texts), 8, 0).requires_grad_()
    plain, _ = infonce(x[batch.query], x[batch.document], torch.arange(len(batch.query)), temperature=0.02)
    (plain / len(batch.query)).backward()
    settings = config.InfoNCE(mask_same_text=False)
    gradient, sums = build_loss(settings).compute(x.detach(), batch)
    assert float(sums["loss"]) == pytest.approx(plain.item() / len(batch.query), rel=1e-13)
    torch.testing.assert_close(gradient, x.grad, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("tile_rows", [1, 2, 5, 64])
@pytest.mark.parametrize("name", ["qwen3", "gte masked", "everything"])
def test_tiles_change_nothing(name: str, tile_rows: int) -> None:
    batch = random_slots(3)
    x, anchor = unit_vectors(len(batch.texts), 8, 0), unit_vectors(len(batch.texts), 5, 1)
    (gradient, sums), (tiled, tiled_sums) = [
        build_loss(_settings(name, tile_rows=rows)).compute(x, batch, anchor=anchor)
        for rows in (6, tile_rows)
    ]
    assert float(tiled_sums["loss"]) == pytest.approx(float(sums["loss"]), rel=1e-12)
    torch.testing.assert_close(tiled, gradient, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "paper"])
def test_every_option_matters(name: str) -> None:
    """The control: with the option the loss and its gradient differ from those without it."""
    batch = random_slots(0)
    x, anchor = unit_vectors(len(batch.texts), 8, 0), unit_vectors(len(batch.texts), 5, 1)
    (paper, paper_sums), (other, sums) = [
        build_loss(_settings(key)).compute(x, batch, anchor=anchor) for key in ("paper", name)
    ]
    assert abs(float(paper_sums["loss"] - sums["loss"])) > 1e-6
    assert (paper - other).norm() > 1e-3 * paper.norm()


@pytest.mark.parametrize(
    ("directions", "softmax"),
    [
        (["query_document"], "joint"),
        (QWEN3, "joint"),
        (GTE, "joint"),
        (["query_document", "document_query"], "per_direction"),
    ],
)
def test_equals_sentence_transformers(directions: list[str], softmax: str) -> None:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    names = {"query": "query", "document": "doc"}
    theirs = MultipleNegativesRankingLoss(
        None,  # type: ignore[arg-type]
        scale=10.0,
        directions=tuple("_to_".join(names[part] for part in name.split("_")) for name in directions),  # type: ignore[arg-type]
        partition_mode=softmax,  # type: ignore[arg-type]
    )
    queries = 5
    columns = [unit_vectors(queries, 8, seed).requires_grad_() for seed in range(3)]
    expected = theirs.compute_loss_from_embeddings(columns, torch.empty(0))
    expected.backward()
    order = np.arange(queries)
    batch = Batch.from_arrays([], np.zeros(0), order, np.arange(queries, 3 * queries), [*order, *order])
    settings = config.InfoNCE.model_validate(
        {"temperature": 0.1, "directions": directions, "softmax": softmax}
    )
    x = torch.cat([column.detach() for column in columns])
    gradient, sums = build_loss(settings).compute(x, batch)
    assert float(sums["loss"]) == pytest.approx(expected.item(), rel=1e-12)
    # Their cosine normalises again, which removes the radial part of the gradient.
    tangent = gradient - (gradient * x).sum(dim=1, keepdim=True) * x
    torch.testing.assert_close(tangent, torch.cat([column.grad for column in columns]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("mask", "copied", "other"), [(True, 1, 0), (False, 0, 0)])
def test_a_copy_of_the_answer_is_a_tie_unless_it_is_left_out(mask: bool, copied: float, other: float) -> None:
    """Both queries have one text as positive; a text of its own at the same place ties whatever is masked."""
    texts, prompts = [np.zeros(1, np.int32)] * 5, np.zeros(5, np.int32)
    x = torch.eye(5, dtype=torch.float64)[[0, 0, 0, 0, 1]]
    one = Batch.from_arrays(texts, prompts, np.array([0, 1]), np.array([2, 2, 4]))
    two = Batch.from_arrays(texts, prompts, np.array([0, 1]), np.array([2, 3, 4]))
    loss = build_loss(config.InfoNCE(mask_same_text=mask))
    found = loss.compute(x, one)[1]
    assert float(found["accuracy"]) == copied
    assert found.get("masked") == (2 if mask else None)
    assert float(loss.compute(x, two)[1]["accuracy"]) == other


@pytest.mark.parametrize("mask", [True, False])
def test_equal_rows_teach_nothing_and_are_no_success(mask: bool) -> None:
    """40 rows of one question and one answer, 16 a batch."""
    x = unit_vectors(2, 8, 0)
    rows = Batch.from_arrays([np.zeros(1, np.int32)] * 2, np.zeros(2, np.int32), np.zeros(16), np.ones(16))
    gradient, sums = build_loss(config.InfoNCE(mask_same_text=mask)).compute(x, rows)
    assert float(sums["loss"]) == pytest.approx(0.0 if mask else np.log(16))
    assert float(sums["accuracy"]) == 0
    assert sums.get("masked") == (16 * 15 if mask else None)
    assert float(gradient.abs().max()) == pytest.approx(0, abs=1e-12)
    plain, correct = infonce(x[[0] * 16], x[[1] * 16], torch.arange(16), temperature=0.02)
    assert float(plain) == pytest.approx(16 * np.log(16))
    assert int(correct) == 0


def test_half_precision_is_scored_in_float32() -> None:
    batch = random_slots(0)
    x = unit_vectors(len(batch.texts), 8, 0)
    gradient, sums = build_loss(config.InfoNCE()).compute(x.bfloat16(), batch)
    _, exact = build_loss(config.InfoNCE()).compute(x.bfloat16().double(), batch)
    assert gradient.dtype == torch.float32
    assert float(sums["loss"]) == pytest.approx(float(exact["loss"]), rel=1e-5)


def test_low_temperatures_do_not_overflow() -> None:
    batch = random_slots(0)
    x = unit_vectors(len(batch.texts), 8, 0)
    settings = {"temperature": 0.001, "directions": GTE}
    gradient, sums = build_loss(config.InfoNCE.model_validate(settings)).compute(x.float(), batch)
    _, exact = build_loss(config.InfoNCE.model_validate(settings)).compute(x, batch)
    assert gradient.isfinite().all()
    assert float(sums["loss"]) == pytest.approx(float(exact["loss"]), rel=1e-4)


class _Largest(TorchDispatchMode):
    """Notes the most elements of any tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("name", ["paper", "gte masked", "symmetric masked"])
def test_no_tensor_is_larger_than_a_row_of_tiles(name: str) -> None:
    batch = random_slots(0, 120, 240)
    x = unit_vectors(len(batch.texts), 6, 0)
    settings = _settings(name, tile_rows=4)
    with _Largest() as seen:
        build_loss(settings).compute(x, batch)
    widths = [len(batch.query if part.endswith("_query") else batch.document) for part in settings.directions]
    assert seen.elements <= max(4 * sum(widths), x.numel(), len(batch.known[0]) * 2)
    assert seen.elements < 120 * 360 / 10
    with _Largest() as seen:  # the control: the plain form holds all scores
        infonce(x[batch.query], x[batch.document], torch.arange(120), temperature=0.1)
    assert seen.elements == 120 * 360


def test_copies_are_found_only_where_there_are_any() -> None:
    assert not random_slots(0, copies=False).known.numel()
    texts, prompts = [np.zeros(1, np.int32)] * 6, np.zeros(6, np.int32)
    # Queries 0 and 1 are one text with two positives; query 2's positive is also a hard negative of 0.
    batch = Batch.from_arrays(
        texts, prompts, np.array([0, 0, 1]), np.array([2, 3, 4, 4, 5]), np.array([0, 1, 2, 0, 1])
    )
    assert set(map(tuple, batch.known.T.tolist())) == {(0, 2), (0, 3), (1, 4)}
    known = known_answers(batch, torch.arange(3))
    assert known is not None
    assert known.tolist() == [
        [True, True, False, False, False],
        [True, True, False, False, False],
        [False, False, True, True, False],
    ]
    rows, candidates = own_candidates(batch, torch.tensor([2, 0]))
    assert sorted(zip(rows.tolist(), candidates.tolist(), strict=True)) == [(0, 2), (1, 0), (1, 3)]


def test_candidates_may_be_nobodys() -> None:
    batch = random_slots(0, copies=False)
    unowned = Batch.from_arrays(batch.texts, batch.prompt_lengths, batch.query, batch.document)
    assert unowned.owner.tolist() == [*range(6), *[-1] * 9]
    x = unit_vectors(len(batch.texts), 8, 0)
    found = [build_loss(config.InfoNCE()).compute(x, one)[0] for one in (batch, unowned)]
    assert torch.equal(*found)


def test_a_rank_without_queries_adds_nothing() -> None:
    batch = random_slots(0)
    x = unit_vectors(len(batch.texts), 8, 0)
    gradient = torch.zeros_like(x)
    found = tiled_infonce(x, batch, torch.arange(0), config.InfoNCE(), temperature=0.1, gradient=gradient)
    assert (float(found.loss), float(found.correct), float(gradient.norm())) == (0, 0, 0)
