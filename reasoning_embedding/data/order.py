"""Orders of rows: which rows each step takes, without replaying the steps before it."""

from __future__ import annotations

import difflib
from typing import Protocol

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.errors import InputError

from .table import Table

MIXED = "mixed"
# Purposes keep the random streams of one seed apart.
_ROWS, _LEFTOVERS, _BATCHES, _SOURCE, _PASS = 1, 2, 3, 4, 5


def generator(seed: int, purpose: int, *keys: int) -> np.random.Generator:
    """A counter-based generator for one purpose, at one step or epoch, of one seed.

    Parameters
    ----------
    seed : int
        Not negative, of any size.
    purpose, *keys : int
        Not negative; different ones give independent streams.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(purpose, *keys))))


class Order(Protocol):
    """Rows of each step."""

    def rows(self, index: int) -> tuple[np.ndarray, str]:
        """Rows (int64, one a query) and source of batch ``index``, counted from 0."""
        ...


class EpochOrder:
    """Every row once an epoch.

    Parameters
    ----------
    table : Table
        The rows.
    size : int
        Rows a batch, at most those of the table.
    seed : int
        Not negative.
    one_source : bool
        Whether a batch is filled from one source; what is left of the sources is pooled, shuffled and
        cut into mixed batches. Otherwise all rows are shuffled together.
    """

    def __init__(self, table: Table, size: int, seed: int, *, one_source: bool) -> None:
        self._size, self._seed = size, seed
        self._steps = len(table) // size
        single = not one_source or len(table.sources) == 1
        self._groups = [np.arange(len(table))] if single else _rows_by_source(table)
        self._names = [table.sources[0] if len(table.sources) == 1 else MIXED] if single else table.sources
        self._cached: tuple[int, np.ndarray, np.ndarray] | None = None

    def rows(self, index: int) -> tuple[np.ndarray, str]:
        """Rows and source of batch ``index``, counted from 0 over all epochs."""
        epoch, place = divmod(index, self._steps)
        if self._cached is None or self._cached[0] != epoch:
            self._cached = (epoch, *self._epoch(epoch))
        _, batches, group = self._cached
        name = self._names[group[place]] if group[place] >= 0 else MIXED
        return batches[place].astype(np.int64), name

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        full, left, groups = [], [], []
        for number, rows in enumerate(self._groups):
            rows = generator(self._seed, _ROWS, epoch, number).permutation(rows)
            count = len(rows) // self._size
            full.append(rows[: count * self._size])
            left.append(rows[count * self._size :])
            groups.append(np.full(count, number))
        pool = generator(self._seed, _LEFTOVERS, epoch).permutation(np.concatenate(left))
        count = len(pool) // self._size
        batches = np.concatenate([*full, pool[: count * self._size]]).reshape(-1, self._size)
        order = generator(self._seed, _BATCHES, epoch).permutation(len(batches))
        return batches[order], np.concatenate([*groups, np.full(count, -1)])[order]


class WeightedOrder:
    """A source drawn for each batch; its rows in a new order at each pass over it.

    Parameters
    ----------
    table : Table
        The rows.
    size : int
        Rows a batch; a pass over a source has floor(rows / size) batches.
    seed : int
        Not negative.
    data : config.Data
        ``weights`` of every source, in proportion to their probabilities.
    steps : int
        Batches to be asked for; does not change any of them.

    Raises
    ------
    InputError
        If the weights and the sources do not match, a source cannot fill a batch, or batching is mixed.
    """

    def __init__(self, table: Table, size: int, seed: int, data: config.Data, steps: int) -> None:
        weights = data.weights or {}
        _check_weights(table, size, data, weights)
        self._table, self._size, self._seed = table, size, seed
        self._groups = _rows_by_source(table)
        bounds = np.cumsum([weights[name] for name in table.sources])
        # One draw a step from one stream: a longer run begins with the draws of a shorter one.
        drawn = generator(seed, _SOURCE).random(steps) * bounds[-1]
        self._sources = np.minimum(np.searchsorted(bounds, drawn, side="right"), len(bounds) - 1)
        #: How often the batch's source was drawn before it.
        self._turns = np.zeros(steps, np.int64)
        for source in range(len(bounds)):
            at = np.flatnonzero(self._sources == source)
            self._turns[at] = np.arange(len(at))
        self._cached: dict[int, tuple[int, np.ndarray]] = {}

    def rows(self, index: int) -> tuple[np.ndarray, str]:
        """Rows and source of batch ``index``, counted from 0."""
        source = int(self._sources[index])
        rows = self._groups[source]
        number, place = divmod(int(self._turns[index]), len(rows) // self._size)
        cached = self._cached.get(source)
        if cached is None or cached[0] != number:
            cached = (number, generator(self._seed, _PASS, source, number).permutation(rows))
            self._cached[source] = cached
        chosen = cached[1][place * self._size : (place + 1) * self._size]
        return chosen.astype(np.int64), self._table.sources[source]


def _rows_by_source(table: Table) -> list[np.ndarray]:
    order = np.argsort(table.source, kind="stable")
    counts = np.bincount(table.source, minlength=len(table.sources))
    return np.split(order, np.cumsum(counts)[:-1])


def _check_weights(table: Table, size: int, data: config.Data, weights: dict[str, float]) -> None:
    where = "data.weights"
    if data.batching == "mixed":
        raise InputError(
            "weights choose the source of a batch, but batching is mixed",
            where=where,
            todo="set data.batching: one_source, or drop the weights",
        )
    for name in weights:
        if name not in table.sources:
            close = difflib.get_close_matches(name, table.sources, 1)
            todo = f"did you mean {close[0]!r}?" if close else f"the sources are {', '.join(table.sources)}"
            raise InputError(f"no source is named {name!r}", where=where, todo=todo)
    if missing := [name for name in table.sources if name not in weights]:
        raise InputError(
            f"no weight for {', '.join(missing)}",
            where=where,
            todo="give every source a weight, or leave it out",
        )
    counts = np.bincount(table.source, minlength=len(table.sources))
    for name, count in zip(table.sources, counts, strict=True):
        if count < size:
            raise InputError(
                f"source {name!r} has {count} rows, fewer than a batch of {size}",
                where="training.batch_size",
                todo=f"lower it to {count} or less, or leave the source out",
            )
