"""A batch: the distinct texts of one training step, and the part each of them plays in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .plan import PlannedRows
from .teacher_vectors import TeacherVectors
from .tokens import TokenStore


@dataclass(frozen=True)
class Batch:
    """n distinct texts that fill the slots of B queries and C candidate documents.

    A text that fills several slots is embedded once; its gradients add up.

    Attributes
    ----------
    texts : list of np.ndarray
        Token ids of each distinct text. They stay in host memory: packs take them from there.
    prompt_lengths : np.ndarray
        (n,) leading tokens that are instruction.
    query : Tensor
        (B,) int64, text of each query.
    document : Tensor
        (C,) int64, text of each candidate; candidate i < B is the positive of query i, hard negatives follow.
    owner : Tensor
        (C,) int64, the query whose positive or hard negative a candidate is: i for candidate i < B; -1: of none.
    known : Tensor
        (2, P) int64, pairs of texts: the second answers the query whose text is the first, and stands in a
        candidate slot other than the query's own. No pairs where all texts differ.
    score : Tensor
        (C,) float64, a teacher's score of each candidate for its owner; NaN where there is none.
    seed : int
        Of anything random in this batch; equal on all ranks.
    source : str
        The source that all rows come from, or ``mixed``.
    teacher : Tensor or None
        (n, D0) a teacher's unit vectors of the texts; None where there is no such teacher.
    """

    texts: list[np.ndarray]
    prompt_lengths: np.ndarray
    query: Tensor
    document: Tensor
    owner: Tensor
    known: Tensor
    score: Tensor
    seed: int = 0
    source: str = ""
    teacher: Tensor | None = None

    @classmethod
    def from_plan(cls, rows: PlannedRows, tokens: TokenStore, teacher: TeacherVectors | None = None) -> Batch:
        """Collect the distinct texts of the rows that a plan drew, with a teacher's vectors of them if there is one."""
        slots = np.concatenate([rows.query, rows.positive, rows.negative])
        distinct, inverse = np.unique(slots, return_inverse=True)
        queries = len(rows.query)
        place = np.searchsorted(distinct, rows.answer).clip(max=len(distinct) - 1)
        present = distinct[place] == rows.answer
        batch = cls.from_arrays(
            [tokens[int(text)] for text in distinct],
            tokens.prompt_lengths[distinct],
            inverse[:queries],
            inverse[queries:],
            np.concatenate([np.arange(queries), rows.negative_owner]),
            np.stack([inverse[rows.answer_owner[present]], place[present]], axis=1),
            rows.score if len(rows.score) else None,
            seed=rows.seed,
            source=rows.source,
        )
        return batch if teacher is None else replace(batch, teacher=torch.from_numpy(teacher[distinct]))

    @classmethod
    def from_arrays(
        cls,
        texts: Sequence[np.ndarray],
        prompt_lengths: np.ndarray,
        query: ArrayLike,
        document: ArrayLike,
        owner: ArrayLike | None = None,
        answers: ArrayLike | None = None,
        score: ArrayLike | None = None,
        *,
        seed: int = 0,
        source: str = "",
    ) -> Batch:
        """A batch of texts and slots.

        Parameters
        ----------
        texts, prompt_lengths, query, document, seed, source
            As the attributes; the slots come as arrays or lists.
        owner : array_like, optional
            As the attribute. Absent: a hard negative is no query's.
        answers : array_like, optional
            (P, 2) pairs of texts whose second answers the first, beside the drawn positives.
        score : array_like, optional
            As the attribute. Absent: there are none.
        """
        query, document = (np.asarray(slot, dtype=np.int64) for slot in (query, document))
        candidates = np.arange(len(document))
        if owner is None:
            owner = np.where(candidates < len(query), candidates, -1)
        if score is None:
            score = np.full(len(document), np.nan)
        pairs = np.zeros((0, 2), np.int64) if answers is None else np.asarray(answers, dtype=np.int64)
        return cls(
            list(texts),
            prompt_lengths,
            torch.from_numpy(query),
            torch.from_numpy(document),
            torch.from_numpy(np.asarray(owner, dtype=np.int64)),
            torch.from_numpy(_answers_in_other_slots(query, document, pairs)),
            torch.from_numpy(np.asarray(score, dtype=np.float64)),
            seed,
            source,
        )

    @property
    def lengths(self) -> np.ndarray:
        """(n,) tokens of each text."""
        return np.array([len(text) for text in self.texts], dtype=np.int64)

    def to(self, device: torch.device) -> Batch:
        """The same batch with what the loss reads on another device."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: value.to(device) for name, value in tensors.items()})


def _answers_in_other_slots(query: np.ndarray, document: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(2, P) pairs (query's text, text that answers it) whose answer fills a slot other than the query's own."""
    texts = int(np.concatenate([query, document, answers.ravel()]).max()) + 1
    drawn = document[: len(query)]
    # One number a pair: sorting those is much faster than sorting rows.
    pairs = np.concatenate([query * texts + drawn, answers[:, 0] * texts + answers[:, 1]])
    asked, answer = np.divmod(np.unique(pairs), texts)
    copies = np.bincount(document, minlength=texts)
    # The text of several queries has no positive of its own.
    own = np.full(texts, -1)
    own[query] = drawn
    own[np.bincount(query, minlength=texts) > 1] = -1
    elsewhere = copies[answer] > (own[asked] == answer)
    return np.stack([asked[elsewhere], answer[elsewhere]])
