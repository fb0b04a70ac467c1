"""The table of evaluation texts that also stand in the training data."""

from __future__ import annotations

from .grid import Cell, Column, Grid
from .records import Experiment


def contamination_table(experiment: Experiment) -> Grid:
    """Tasks and kinds of text: how many there are, how many training also saw, and from which sources."""
    found = experiment.contamination
    rows = []
    for task, kinds in (found.get("tasks") or {}).items():
        for kind, record in kinds.items():
            texts, exact, near = (int(record[key]) for key in ("texts", "exact", "near"))
            sources = [f"{source} {count:,}" for source, count in record["sources"].items()]
            example = next((entry["text"] for entry in record["examples"]), "")
            rows.append(
                (
                    Cell(task, kind),
                    Cell(f"{texts:,}"),
                    Cell(f"{exact:,}", mark="down" if exact else ""),
                    Cell(f"{near:,}", mark="down" if near else ""),
                    Cell(_percent(exact + near, texts)),
                    Cell(", ".join(sources) or "–"),
                    Cell(_short(example) or "–"),
                )
            )
    for task, reason in (found.get("unchecked") or {}).items():
        rows.append((Cell(task, "not checked"), *[Cell("–")] * 5, Cell(_short(reason))))
    return Grid(
        key="contamination",
        title="Contamination: evaluation texts in the training data",
        caption="Distinct texts of each task that the training data hold word for word (case, white space and "
        "punctuation aside) or nearly (Jaccard similarity of word 5-grams of at least "
        f"{found.get('threshold', 0.8)}). A document that training saw as well is no fault in itself; a query, or "
        "a text whose label is asked for, is.",
        columns=tuple(Column(label) for label in _COLUMNS),
        rows=tuple(rows),
    )


_COLUMNS = ("task", "texts", "exact", "near", "share", "training sources", "first example")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _short(text: str, length: int = 80) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"
