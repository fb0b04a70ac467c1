"""The plan: which rows, positives and negatives every step sees, as a function of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.errors import InputError

from .order import EpochOrder, Order, WeightedOrder, generator
from .table import Ragged, Table

_POSITIVE, _NEGATIVE = 11, 12


@dataclass(frozen=True)
class Batch:
    """What one optimiser step sees; all ids point into the table's texts.

    Parameters
    ----------
    query, positive : ndarray of int32, shape (B,)
        Text of each query and of the positive drawn for it.
    negative : ndarray of int32, shape (M,)
        Hard negatives of all queries, grouped by query.
    negative_owner : ndarray of int32, shape (M,)
        The query, 0 to B - 1, each negative belongs to.
    rows : ndarray of int64, shape (B,)
        Row of the table behind each query.
    source : str
        The source all rows come from, or ``mixed``.
    """

    query: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    negative_owner: np.ndarray
    rows: np.ndarray
    source: str


class Plan:
    """Batches of a run, any of which can be had without those before it.

    Parameters
    ----------
    table : Table
        The rows.
    training : config.Training
        ``batch_size`` queries a step; ``epochs`` or ``steps``.
    data : config.Data
        ``weights``, ``batching`` and ``negatives``.
    seed : int
        Not negative; two seeds give two orders.

    Raises
    ------
    InputError
        If the table is smaller than a batch, or the weights do not fit the sources.

    Notes
    -----
    The number of ranks, the backbone and the steps asked for before play no part. An epoch has
    floor(rows / batch_size) batches: rows beyond the last full batch sit it out, and each epoch leaves
    out others. A fraction of an epoch is rounded to whole steps, at least one.
    """

    def __init__(self, table: Table, training: config.Training, data: config.Data, seed: int) -> None:
        size = training.batch_size
        if len(table) < size:
            raise InputError(
                f"{len(table)} rows cannot fill a batch of {size}",
                where="training.batch_size",
                todo=f"lower it to {len(table)} or less, or add rows",
            )
        self.steps_per_epoch = len(table) // size
        self.steps = training.steps or max(1, round((training.epochs or 1) * self.steps_per_epoch))
        self._table, self._seed, self._negatives = table, seed, data.negatives
        self._order: Order = (
            EpochOrder(table, size, seed, one_source=data.batching == "one_source")
            if data.weights is None
            else WeightedOrder(table, size, seed, data, self.steps)
        )

    def batch(self, step: int) -> Batch:
        """The batch of a step, 1 to ``steps``.

        Raises
        ------
        ValueError
            If there is no such step.
        """
        if not 1 <= step <= self.steps:
            raise ValueError(f"step {step} is not in 1..{self.steps}")
        rows, source = self._order.rows(step - 1)
        negative, owner = self._draw_negatives(rows, step)
        return Batch(self._table.query[rows], self._draw_positives(rows, step), negative, owner, rows, source)

    def _draw_positives(self, rows: np.ndarray, step: int) -> np.ndarray:
        starts, counts = _spans(self._table.positives, rows)
        # A stream of its own: another number of negatives leaves the positives as they are.
        drawn = generator(self._seed, _POSITIVE, step).random(len(rows))
        return self._table.positives.values[starts + (drawn * counts).astype(np.int64)]

    def _draw_negatives(self, rows: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        starts, counts = _spans(self._table.negatives, rows)
        owner = np.repeat(np.arange(len(rows), dtype=np.int32), counts)
        # Position of each candidate among those of its own query.
        place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        # A random key each; the smallest keys of a query are a draw without replacement.
        order = np.lexsort((generator(self._seed, _NEGATIVE, step).random(len(owner)), owner))
        kept = order[place < self._negatives]
        return self._table.negatives.values[starts[owner[kept]] + place[kept]], owner[kept]


def _spans(lists: Ragged, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    starts = lists.offsets[rows]
    return starts, lists.offsets[rows + 1] - starts
