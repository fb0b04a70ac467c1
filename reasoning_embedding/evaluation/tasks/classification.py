"""Texts with a class, as a task of mteb: its protocol of ten small training sets."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, DatasetDict
from mteb.abstasks.classification import AbsTaskClassification

from reasoning_embedding.config.reading.suggestions import did_you_mean
from reasoning_embedding.errors import InputError

from .local import SPLIT, LocalTask, fingerprint_of, local_metadata, read_columns

#: Texts and their classes, in the order of the file: the draws of the protocol depend on it.
Labelled = tuple[list[str], list[str]]


class LocalClassification(LocalTask, AbsTaskClassification):
    """Classification over texts in memory: accuracy of logistic regression on a few texts of each class.

    Parameters
    ----------
    name : str
        The task's name.
    train, test : tuple of lists
        Texts and classes.
    samples_per_label : int
        Training texts of a class in each of the ten experiments, from 1.
    instruction : str, optional
        What every text is asked with.
    """

    def __init__(
        self,
        name: str,
        train: Labelled,
        test: Labelled,
        *,
        samples_per_label: int = 8,
        instruction: str | None = None,
    ) -> None:
        self.samples_per_label = samples_per_label
        self.sizes = {"train": len(train[0]), "test": len(test[0]), "classes": len(set(train[1]))}
        self.metadata = local_metadata(
            name,
            "Classification",
            fingerprint_of([train, test, samples_per_label, instruction]),
            main_score="accuracy",
            instruction=instruction,
            description=f"Classification of {len(test[0])} local texts into {len(set(train[1]))} classes.",
        )
        super().__init__()
        # Numbers, because mteb's average precision of two classes takes no names.
        numbers = {label: number for number, label in enumerate(sorted(set(train[1])))}
        self.dataset = {
            "default": DatasetDict(
                {
                    split: Dataset.from_dict({"text": texts, "label": [numbers[label] for label in labels]})
                    for split, (texts, labels) in {self.train_split: train, SPLIT: test}.items()
                }
            )
        }


def read_labelled(train: Path, test: Path, text: str, label: str) -> tuple[Labelled, Labelled]:
    """Read the two tables of a classification task.

    Parameters
    ----------
    train, test : Path
        Tables with a header, see :func:`~reasoning_embedding.evaluation.tasks.local.read_columns`.
    text, label : str
        Names of the columns.

    Raises
    ------
    InputError
        For an empty text or class, a class of the test table that has no training text, or a single class.
    """
    learnt = _read(train, text, label, None)
    if len(set(learnt[1])) < 2:
        raise InputError("all texts are of one class", where=str(train), todo=f"is {label!r} the class?")
    return learnt, _read(test, text, label, set(learnt[1]))


def _read(path: Path, text: str, label: str, known: set[str] | None) -> Labelled:
    texts, labels = [], []
    for place, (value, name) in read_columns(path, (text, label)):
        if not value.strip() or not name.strip():
            raise InputError("text or class is empty", where=place, todo="remove or fill the row")
        if known is not None and name not in known:
            raise InputError(
                f"no training text is of class {name!r}{did_you_mean(name, sorted(known))}", where=place
            )
        texts.append(value)
        labels.append(name)
    return texts, labels
