"""What a terminal is told of two models that were compared: levels, layers, rows and what it means, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .labels import REFERENCE_LEVELS, brackets, metric_label, number

#: Metrics of the level of representation; the other ones of a pair are of geometry.
_REPRESENTATION = (
    *("dimension_correlation", "permutation_match", "h_inv", "h_inv_rescaled"),
    *("procrustes_residual", "procrustes_cosine"),
)
#: CKA of unit rows and of raw rows that differ by more than this are worth a sentence.
_APART = 0.1


def analysis_lines(record: dict[str, Any]) -> Iterator[str]:
    """Lines on the record of a pair, as :func:`reasoning_embedding.hrsa.pair.compare` makes it.

    Parameters
    ----------
    record : dict
        The record.
    """
    a, b = record["a"], record["b"]
    yield f"A: {a['reference']} ({a['layers']} layers, {a['dimension']} dimensions, attention {a['attention']})"
    yield f"B: {b['reference']} ({b['layers']} layers, {b['dimension']} dimensions, attention {b['attention']})"
    yield f"measured on {_rows(record)}"
    levels = {"row_shuffle": record["chance"]} | {
        name: level["last"] for name, level in record.get("levels", {}).items()
    }
    names = list(record["last"])
    yield ""
    head = " ".join(f"{REFERENCE_LEVELS[level][0]:>13s}" for level in levels)
    yield f"{'after the final norm':38s} {'value':>7s} {'95 % interval':>17s} {head}"
    representation = [name for name in names if name in _REPRESENTATION]
    own = [name for name in names if name.startswith("own.")]
    geometry = [name for name in names if name not in (*_REPRESENTATION, *own)]
    for title, metrics in (
        ("Representation: do the two models use the same axes?", representation),
        ("Geometry: are the same rows near each other in both models?", geometry),
        *([("Metrics of your own", own)] if own else []),
    ):
        yield title
        yield from (_metric(record, levels, name) for name in metrics)
    yield from _function(record)
    yield from _own_vectors(record)
    yield ""
    yield from _layers(record)
    yield ""
    for level in levels:
        yield f"{REFERENCE_LEVELS[level][0]}: {REFERENCE_LEVELS[level][1]}"
    yield "interval: how far the value would move with other texts of the same kind, not with another training run"
    yield from _meaning(record)
    for warning in record["warnings"]:
        yield f"warning: {warning}"


def _rows(record: dict[str, Any]) -> str:
    probe = record["probe"]
    skipped = probe.get("skipped", 0)
    rule = {"last": "the last token of each text", "mean": "the mean of each text"}.get(
        probe["tokens"], "every token"
    )
    if skipped:
        rule += f" but the first {skipped} of a text" if skipped > 1 else " but the first of a text"
    carried = record.get("effective_rows") or [None]
    effective = "" if carried[-1] is None else f", of which {carried[-1]:,.0f} carry the variance"
    return f"{probe['texts']:,} texts, {probe['rows']:,} rows ({rule}){effective}"


def _metric(record: dict[str, Any], levels: dict[str, dict[str, float | None]], name: str) -> str:
    bounds = record["intervals"].get(name)
    interval = brackets((bounds[0], bounds[1])) if bounds else ""
    beside = " ".join(f"{number(values.get(name)):>13s}" for values in levels.values())
    return f"  {metric_label(name).title:36s} {number(record['last'][name]):>7s} {interval:>17s} {beside}"


def _own_vectors(record: dict[str, Any]) -> Iterator[str]:
    """The texts' vectors by each model's own readout, where both have one."""
    found = record.get("readouts")
    if not found:
        return
    yield f"Own vectors: what the two readouts make of {found['n']} texts (A: {found['a']}; B: {found['b']})"
    yield from (
        f"  {metric_label(name).title:36s} {number(value):>7s}"
        for name, value in found["last"].items()
        if value is not None
    )


def _function(record: dict[str, Any]) -> Iterator[str]:
    found = record["probe_transfer"]
    if not found:
        return
    yield "Function: does a readout learnt on one model work on the other?"
    yield (
        f"  linear probe of {found['classes']} classes, {found['n']} test texts: on A {number(found['own_a'])}, "
        f"moved to B {number(found['a_to_b'])}; on B {number(found['own_b'])}, moved to A {number(found['b_to_a'])}; "
        f"largest class {number(found['chance'])}"
    )


def _layers(record: dict[str, Any]) -> Iterator[str]:
    """Layer by layer, the form that a few long rows do not decide first."""
    columns = [name for name in ("cka_unit", "cka_debiased", "knn_jaccard@10") if name in record["diagonal"]]
    carried = record.get("effective_rows") or []
    yield " ".join(
        [
            f"{'layer by layer':22s}",
            *(f"{metric_label(name).title:>28s}" for name in columns),
            "effective rows",
        ]
    )
    for index, (layer, other) in enumerate(record["diagonal_layers"]):
        label = layer if layer == other else f"{layer} / {other}"
        values = (f"{number(record['diagonal'][name][index]):>28s}" for name in columns)
        rows = f"{carried[index]:>14,.0f}" if index < len(carried) else ""
        yield " ".join([f"  {label:20s}", *values, rows])


def _meaning(record: dict[str, Any]) -> Iterator[str]:
    """Whether attention sinks decide the numbers."""
    skipped = record["probe"].get("skipped", 0)
    if skipped:
        many = f"first {skipped} tokens of every text are" if skipped > 1 else "first token of every text is"
        yield (
            f"the {many} left out: attention sinks, whose states are so long that they alone would decide CKA, "
            "correlation and Procrustes (skip_first: 0 keeps them)"
        )
    curves = [record["diagonal"].get(name) or [] for name in ("cka_unit", "cka_debiased")]
    apart = [
        layer
        for (layer, _), one, other in zip(record["diagonal_layers"], *curves, strict=False)
        if one is not None and other is not None and abs(one - other) > _APART
    ]
    if apart:
        yield (
            f"a few long rows decide CKA of raw rows at {', '.join(apart)}: CKA of unit rows, which weighs all rows the "
            "same, differs by more than .1 there and is the one to read"
        )
    shares = record.get("dominant_dimensions") or {}
    for side, layers in shares.items():
        named = layers.get(record["layers_a" if side == "a" else "layers_b"][-1]) or []
        if named:
            text = ", ".join(f"{dimension} ({100 * share:.0f} %)" for dimension, share in named)
            yield f"dimensions of {side.upper()} that carry most variance after the final norm: {text}"
