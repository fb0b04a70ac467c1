"""Sentence pairs with a similarity, as a task of mteb."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset, DatasetDict
from mteb.abstasks.sts import AbsTaskSTS

from reasoning_embedding.errors import InputError

from .local import SPLIT, LocalTask, fingerprint_of, local_metadata, read_columns

#: First texts, second texts, scores.
Pairs = tuple[list[str], list[str], list[float]]


class LocalSts(LocalTask, AbsTaskSTS):
    """Semantic textual similarity over pairs in memory; the main score is Spearman's rho of the cosine.

    Parameters
    ----------
    name : str
        The task's name.
    pairs : tuple of lists
        First texts, second texts and scores, as long as each other.
    instruction : str, optional
        What both texts are asked with.
    """

    def __init__(self, name: str, pairs: Pairs, *, instruction: str | None = None) -> None:
        self.sizes = {"pairs": len(pairs[2])}
        self.metadata = local_metadata(
            name,
            "STS",
            fingerprint_of([*pairs, instruction]),
            main_score="cosine_spearman",
            instruction=instruction,
            description=f"Similarity of {len(pairs[2])} local sentence pairs.",
        )
        super().__init__()
        columns = dict(zip(("sentence1", "sentence2", "score"), pairs, strict=True))
        self.dataset = {"default": DatasetDict({SPLIT: Dataset.from_dict(columns)})}


def read_pairs(paths: Sequence[Path], columns: tuple[str | int, str | int, str | int]) -> Pairs:
    """Read pairs from tables, one after another.

    Parameters
    ----------
    paths : sequence of Path
        See :func:`~reasoning_embedding.evaluation.tasks.local.read_columns`.
    columns : tuple
        First text, second text, score.

    Raises
    ------
    InputError
        For a text that is empty, a score that is no finite number, or fewer than two distinct scores, with
        which no rank correlation exists.
    """
    first, second, scores = [], [], []
    rows = itertools.chain.from_iterable(read_columns(path, columns) for path in paths)
    for place, (one, other, score) in rows:
        if not one.strip() or not other.strip():
            raise InputError("a text of the pair is empty", where=place, todo="remove the row")
        try:
            value = float(score)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(
                f"score {score!r} is no number", where=place, todo="name the columns in 'columns'"
            )
        first.append(one)
        second.append(other)
        scores.append(value)
    if len(set(scores)) < 2:
        raise InputError(
            "all pairs have one score", where=", ".join(map(str, paths)), todo="give graded pairs"
        )
    return first, second, scores
