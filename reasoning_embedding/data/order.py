"""Orders of rows: which rows each step takes, without replaying the steps before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.config.reading.suggestions import closest
from reasoning_embedding.errors import InputError

from .table import Table

MIXED = "mixed"
# Purposes keep the random streams of one seed apart.
_ROWS, _LEFTOVERS, _BATCHES, _SOURCE, _PASS, _CAP = 1, 2, 3, 4, 5, 6


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


def epoch_rows(table: Table, caps: Mapping[str, int] | None = None) -> np.ndarray:
    """Return the rows of each source that an epoch takes, (sources,) int64.

    Parameters
    ----------
    table : Table
        The rows.
    caps : mapping of str to int, optional
        Most rows of a source an epoch; a source without one gives all.

    Raises
    ------
    InputError
        If a cap is for no source.
    """
    caps = caps or {}
    _check_names(caps, table.sources, "data.caps")
    counts = np.bincount(table.source, minlength=len(table.sources))
    return np.minimum(counts, [caps.get(name, len(table)) for name in table.sources])


class EpochOrder:
    """Every row once an epoch, but for sources with a cap: those give a new sample each epoch.

    Parameters
    ----------
    table : Table
        The rows.
    size : int
        Rows a batch, at most those of an epoch.
    seed : int
        Not negative.
    one_source : bool
        Whether a batch is filled from one source; what is left of the sources is pooled, shuffled and
        cut into mixed batches. Otherwise all rows are shuffled together.
    caps : mapping of str to int, optional
        As in :func:`epoch_rows`.
    """

    def __init__(
        self, table: Table, size: int, seed: int, *, one_source: bool, caps: Mapping[str, int] | None = None
    ) -> None:
        self._size, self._seed = size, seed
        self._kept = epoch_rows(table, caps)
        self._steps = int(self._kept.sum()) // size
        self._sources = _rows_by_source(table)
        self._single = not one_source or len(table.sources) == 1
        self._names = (
            [table.sources[0] if len(table.sources) == 1 else MIXED] if self._single else table.sources
        )
        self._cached: tuple[int, list[np.ndarray], np.ndarray] | None = None

    def rows(self, index: int) -> tuple[np.ndarray, str]:
        """Rows and source of batch ``index``, counted from 0 over all epochs."""
        epoch, place = divmod(index, self._steps)
        if self._cached is None or self._cached[0] != epoch:
            self._cached = None  # before the next one is made: each takes four bytes a row
            self._cached = (epoch, *self._epoch(epoch))
        _, groups, order = self._cached
        batch = int(order[place])
        for name, rows in zip([*self._names, MIXED], groups, strict=True):
            if batch < (count := len(rows) // self._size):
                return rows[batch * self._size : (batch + 1) * self._size].astype(np.int64), name
            batch -= count
        raise AssertionError("an epoch has as many batches as steps")

    def _epoch(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Rows of each group and of what is left of all, shuffled, and the order of their batches."""
        groups = [
            generator(self._seed, _ROWS, epoch, number).permutation(rows)
            for number, rows in enumerate(self._groups(epoch))
        ]
        left = [rows[len(rows) - len(rows) % self._size :] for rows in groups]
        groups.append(generator(self._seed, _LEFTOVERS, epoch).permutation(np.concatenate(left)))
        count = sum(len(rows) // self._size for rows in groups)
        return groups, generator(self._seed, _BATCHES, epoch).permutation(count)

    def _groups(self, epoch: int) -> list[np.ndarray]:
        """Rows of the epoch that are shuffled together, ascending."""
        rows = [
            np.sort(generator(self._seed, _CAP, epoch, number).permutation(own)[:kept])
            if kept < len(own)
            else own
            for number, (own, kept) in enumerate(zip(self._sources, self._kept.tolist(), strict=True))
        ]
        return [np.sort(np.concatenate(rows))] if self._single and len(rows) > 1 else rows


def source_weights(table: Table, data: config.Data) -> dict[str, float] | None:
    """Return how often each source is drawn, or None where every row comes once an epoch.

    Parameters
    ----------
    table : Table
        The rows.
    data : config.Data
        ``weights`` as they are, or ``temperature`` T with ``caps`` K.

    Raises
    ------
    InputError
        If a cap is for no source.

    Notes
    -----
    p_s is proportional to min(n_s, K_s)^(1/T): temperature-scaled mixing with an artificial limit of size
    (Raffel et al. 2020, arXiv 1910.10683, 3.5.2).
    """
    if data.weights is not None or data.temperature is None:
        return data.weights
    sizes = epoch_rows(table, data.caps) ** (1 / data.temperature)
    return dict(zip(table.sources, sizes.tolist(), strict=True))


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
    weights : mapping of str to float
        Of every source, in proportion to their probabilities.
    steps : int
        Batches to be asked for; does not change any of them.

    Raises
    ------
    InputError
        If the weights and the sources do not match, or a source cannot fill a batch.
    """

    def __init__(self, table: Table, size: int, seed: int, weights: Mapping[str, float], steps: int) -> None:
        _check_weights(table, size, weights)
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
    # int32, and a source at a time: with int64 an order of a million rows took 30 MiB.
    return [np.flatnonzero(table.source == number).astype(np.int32) for number in range(len(table.sources))]


def _check_names(names: Iterable[str], sources: list[str], where: str) -> None:
    for name in names:
        if name not in sources:
            close = closest(name, sources)
            todo = f"did you mean {close!r}?" if close else f"the sources are {', '.join(sources)}"
            raise InputError(f"no source is named {name!r}", where=where, todo=todo)


def _check_weights(table: Table, size: int, weights: Mapping[str, float]) -> None:
    where = "data.weights"
    _check_names(weights, table.sources, where)
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
