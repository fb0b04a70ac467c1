"""Probe sets: the texts two models are compared on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reasoning_embedding.config.analysis import MixProbe, TextProbe, WorldProbe
from reasoning_embedding.data.readers import data_files, read_records
from reasoning_embedding.data.rows import RowProblem
from reasoning_embedding.data.world import World
from reasoning_embedding.errors import InputError

#: Fewer texts than this give neither intervals nor a split.
FEWEST = 10


@dataclass(frozen=True)
class ProbeSet:
    """Distinct texts, and their classes where they have any.

    Parameters
    ----------
    kind : str
        ``world``, ``text`` or ``mix``.
    texts : list of str
        Without duplicates.
    labels : list of str or None
        One a text.
    hash : str
        SHA-256 of texts and labels, hexadecimal.
    """

    kind: str
    texts: list[str]
    labels: list[str] | None
    hash: str

    @property
    def classes(self) -> int:
        """Number of different labels; 0 without labels."""
        return len(set(self.labels or ()))


def load_probe(probe: WorldProbe | TextProbe | MixProbe) -> ProbeSet:
    """Read the probe set a configuration names.

    Raises
    ------
    InputError
        If a file is missing or a record lacks its text or label (naming file and line), or if fewer
        than ten distinct texts remain.
    """
    if isinstance(probe, WorldProbe):
        found = _world(probe.seed)
    elif isinstance(probe, TextProbe):
        found = _fields(probe.path, probe.text, probe.label)
    else:
        found = _fields(probe.rows, "query", "source")
    distinct: dict[str, str | None] = {}
    for text, label in found:
        distinct.setdefault(text, label)
    if len(distinct) < FEWEST:
        raise InputError(
            f"the probe set has {len(distinct)} distinct texts, it needs {FEWEST}",
            where="analysis.probe",
            todo="name a larger set of texts",
        )
    texts, labels = list(distinct), list(distinct.values())
    limit = None if isinstance(probe, WorldProbe) else probe.texts
    if limit is not None and len(texts) > limit:
        chosen = np.sort(np.random.default_rng(probe.seed).choice(len(texts), size=limit, replace=False))
        texts, labels = [texts[i] for i in chosen], [labels[i] for i in chosen]
    content = json.dumps([texts, labels], ensure_ascii=False).encode()
    known = [label for label in labels if label is not None]
    return ProbeSet(probe.kind, texts, known or None, hashlib.sha256(content).hexdigest())


def _world(seed: int) -> Iterator[tuple[str, str | None]]:
    world = World(seed)
    for split in ("train", "heldout"):
        for question, document, relation in world.pairs(split):
            yield question, relation
            yield document, relation


def _fields(path: str, text: str, label: str | None) -> Iterator[tuple[str, str | None]]:
    """Text and label of each record of a file, or of each file of a folder."""
    for file in data_files(Path(path)):
        for where, record in read_records(file):
            if isinstance(record, RowProblem):
                raise InputError(str(record), where=where, todo=record.todo)
            if not isinstance(record, dict):
                raise InputError(
                    "the record is no object with fields", where=where, todo="write one JSON object a line"
                )
            yield _text(record, text, where), None if label is None else str(_value(record, label, where))


def _value(record: dict, field: str, where: str) -> object:
    if record.get(field) is None:
        raise InputError(
            f"the record has no field {field!r}",
            where=where,
            todo=f"name one of: {', '.join(map(str, record))}",
        )
    return record[field]


def _text(record: dict, field: str, where: str) -> str:
    value = _value(record, field, where)
    if isinstance(value, list) and field == "query" and value:
        value = value[-1]  # [instruction, text]
    if not isinstance(value, str) or not value.strip():
        raise InputError(
            f"field {field!r} is no text", where=where, todo="remove the record or fill the field"
        )
    return value
