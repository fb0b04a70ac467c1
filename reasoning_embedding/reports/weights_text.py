"""What a terminal is told of two models' weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .labels import number

#: Measures of matrices: column, how a value is written, and what it says.
_MEASURES = {
    "leading_energy": (
        "on leading",
        lambda value: f"{100 * value:.1f} %",
        "share of the change along the leading tenth of A's directions",
    ),
    "principal_weights": (
        "on principal",
        lambda value: f"{100 * value:.1f} %",
        "share of the change in the tenth of the entries that make up A's leading directions",
    ),
    "rotation": (
        "rotation",
        lambda value: f"{value:.3g}°",
        "mean angle between the leading directions of A and of B",
    ),
    "spectral_drift": (
        "drift",
        lambda value: f"{value:.2g}",
        "how far the singular values moved, of their norm",
    ),
}


def weight_lines(record: dict[str, Any]) -> Iterator[str]:
    """Lines on a record of :func:`reasoning_embedding.hrsa.weights.weights_record` with its two references.

    Parameters
    ----------
    record : dict
        The record, with ``a`` and ``b``.
    """
    yield f"A: {record['a']}"
    yield f"B: {record['b']}"
    whole = record["all"]
    yield (
        f"{whole['entries']:,} weights in {whole['tensors']} tensors; {100 * whole['changed']:.2f} % changed by more than "
        f"a thousandth; the change has {whole['relative_change'] or 0:.2g} of A's norm"
    )
    for side in ("a", "b"):
        if missing := record[f"only_in_{side}"]:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            yield f"only in {side.upper()}, not compared: {', '.join(missing[:3])}{more}"
    if not whole["matrices"]:
        yield "no matrix changed"
        return
    yield ""
    heads = [title for title, *_ in _MEASURES.values()]
    yield " ".join(
        [
            f"{'mean over matrices':28s} {'changed':>8s} {'norm':>8s} {'rank':>12s}",
            *(f"{h:>18s}" for h in heads),
        ]
    )
    for kind, found in (*record["kinds"].items(), ("all", whole)):
        if found["matrices"]:
            yield _row(kind, found)
    yield ""
    yield "in brackets: the same of a random change with the same singular values"
    yield "changed: entries that moved by more than a thousandth of themselves; norm: of the change, of A's"
    yield "rank: effective rank of the change (exp of the entropy of its singular values), of the rank it could have"
    yield from (f"{title}: {meaning}" for title, _, meaning in _MEASURES.values())
    if sibling := record.get("sibling"):
        cosine = sibling["cosine"]
        yield (
            f"cosine of B's change with that of {sibling['reference']}: {number(cosine)} (two random changes: 0, give or "
            f"take {sibling['random']:.1g})"
        )
    yield from _words(record)


def _row(kind: str, found: dict[str, Any]) -> str:
    cells = [
        f"{kind[-28:]:28s} {100 * found['changed']:>6.2f} % {found['relative_change']:>8.2g} "
        f"{found['effective_rank']:>5.0f} / {found['largest_rank']:<4.0f}"
    ]
    for name, (_, write, _) in _MEASURES.items():
        value, null = found["measures"][name]
        cells.append(f"{f'{write(value)} ({write(null)})':>18s}")
    return " ".join(cells)


def _words(record: dict[str, Any]) -> Iterator[str]:
    """In how many matrices a measure lies above that of a random change: a description of these two models."""
    matrices = [tensor["measures"] for tensor in record["tensors"] if tensor["measures"]]
    for name, what in (
        ("leading_energy", "lies on A's leading directions more than a random change would"),
        ("spectral_drift", "moves A's singular values more than a random change would"),
    ):
        above = sum(value > null for value, null in (found[name] for found in matrices))
        yield f"the change {what} in {above} of {len(matrices)} matrices"
    yield "these are two models, not two kinds of training: another seed's change (--sibling) says how far one can tell"


def weight_step_lines(record: dict[str, Any]) -> Iterator[str]:
    """Lines on the steps of a series, as :func:`reasoning_embedding.experiments.comparisons.track_weights` writes them.

    Parameters
    ----------
    record : dict
        Content of the file.
    """
    yield f"weights of {record['series']} against {record['against']}, means over matrices"
    heads = " ".join(f"{title:>18s}" for title, *_ in _MEASURES.values())
    yield f"{'step':28s} {'changed':>8s} {'norm':>8s} {'rank':>12s} {heads}"
    for step in record["steps"]:
        if step["all"]["matrices"]:
            yield _row(str(step["step"]), step["all"])
    yield "in brackets: the same of a random change with the same singular values"
