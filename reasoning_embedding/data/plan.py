"""The plan: which rows, positives and negatives every step sees, as a function of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.errors import InputError

from .order import EpochOrder, Order, WeightedOrder, epoch_rows, generator, source_weights
from .table import Table

_POSITIVE, _NEGATIVE, _BATCH = 11, 12, 13


@dataclass(frozen=True)
class PlannedRows:
    """The rows of one step and what was drawn for them; all ids point into the table's texts.

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
    answer : ndarray of int32, shape (A,)
        Every positive of these rows, drawn or not.
    answer_owner : ndarray of int32, shape (A,)
        The query, 0 to B - 1, each of them answers.
    score : ndarray of float32, shape (B + M,)
        A teacher's score of each positive and hard negative, NaN where there is none; empty: none at all.
    seed : int
        A function of (seed, step), for anything else that is random about this batch.
    """

    query: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    negative_owner: np.ndarray
    rows: np.ndarray
    source: str
    answer: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    answer_owner: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    score: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    seed: int = 0


class Plan:
    """Batches of a run, any of which can be had without those before it.

    Parameters
    ----------
    table : Table
        The rows.
    training : config.Training
        ``batch_size`` queries a step; ``epochs`` or ``steps``.
    data : config.Data
        ``weights``, ``temperature``, ``caps``, ``batching`` and ``negatives``.
    seed : int
        Not negative; two seeds give two orders.

    Raises
    ------
    InputError
        If the table is smaller than a batch, or the weights do not fit the sources.

    Notes
    -----
    The number of ranks, the backbone and the steps asked for before play no part. An epoch has
    floor(rows / batch_size) batches, rows being those the caps let in: rows beyond the last full batch sit
    it out, and each epoch leaves out others. A fraction of an epoch is rounded to whole steps, at least one.
    """

    def __init__(self, table: Table, training: config.Training, data: config.Data, seed: int) -> None:
        size = training.batch_size
        rows = int(epoch_rows(table, data.caps).sum())
        if rows < size:
            raise InputError(
                f"{rows} rows cannot fill a batch of {size}",
                where="training.batch_size",
                todo=f"lower it to {rows} or less, or add rows",
            )
        self.steps_per_epoch = rows // size
        self.steps = training.steps or max(1, round((training.epochs or 1) * self.steps_per_epoch))
        self._table, self._seed, self._negatives = table, seed, data.negatives
        weights = source_weights(table, data)
        self._order: Order = (
            EpochOrder(table, size, seed, one_source=data.batching == "one_source", caps=data.caps)
            if weights is None
            else WeightedOrder(table, size, seed, weights, self.steps)
        )

    def at(self, step: int) -> PlannedRows:
        """What a step, 1 to ``steps``, trains on.

        Raises
        ------
        ValueError
            If there is no such step.
        """
        if not 1 <= step <= self.steps:
            raise ValueError(f"step {step} is not in 1..{self.steps}")
        rows, source = self._order.rows(step - 1)
        table = self._table
        positive, (negative, owner) = self._draw_positives(rows, step), self._draw_negatives(rows, step)
        answer = table.positives.places(rows)
        score = np.zeros(0, np.float32)
        if table.positive_scores is not None and table.negative_scores is not None:
            score = np.concatenate([table.positive_scores[positive], table.negative_scores[negative]])
        return PlannedRows(
            query=table.query[rows],
            positive=table.positives.values[positive],
            negative=table.negatives.values[negative],
            negative_owner=owner,
            rows=rows,
            source=source,
            answer=table.positives.values[answer],
            answer_owner=table.positives.owners_within(rows),
            score=score,
            seed=int(generator(self._seed, _BATCH, step).integers(2**63)),
        )

    def _draw_positives(self, rows: np.ndarray, step: int) -> np.ndarray:
        """Place of one positive a row in the table's list of all."""
        positives = self._table.positives
        counts = positives.offsets[rows + 1] - positives.offsets[rows]
        # A stream of its own: another number of negatives leaves the positives as they are.
        drawn = generator(self._seed, _POSITIVE, step).random(len(rows))
        return positives.offsets[rows] + (drawn * counts).astype(np.int64)

    def _draw_negatives(self, rows: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Places of each row's hard negatives in the table's list of all, and the queries they belong to."""
        negatives = self._table.negatives
        place, owner = negatives.places(rows), negatives.owners_within(rows)
        # Position of each candidate among those of its own query.
        rank = place - negatives.offsets[rows][owner]
        # A random key each; the smallest keys of a query are a draw without replacement.
        order = np.lexsort((generator(self._seed, _NEGATIVE, step).random(len(owner)), owner))
        kept = order[rank < self._negatives]
        return place[kept], owner[kept]
