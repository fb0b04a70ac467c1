"""Sequences whose items are made as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar, overload

import numpy as np

#: Items made at a time when all are gone through.
_CHUNK = 2048

Made = TypeVar("Made")


class View(Sequence[Made]):
    """What a function makes of some items of a sequence, made as it is asked for.

    Parameters
    ----------
    items : sequence
        Where they are taken from.
    places : ndarray of int, shape (n,), or None
        Which of them; None: all.
    make : callable
        Item -> what stands for it; absent: itself.
    """

    def __init__(
        self,
        items: Sequence[Any],
        places: np.ndarray | None = None,
        make: Callable[[Any], Made] = lambda item: item,
    ) -> None:
        self._items, self._places, self._make = items, places, make

    def __len__(self) -> int:
        return len(self._items) if self._places is None else len(self._places)

    @overload
    def __getitem__(self, index: int) -> Made: ...
    @overload
    def __getitem__(self, index: slice) -> list[Made]: ...
    def __getitem__(self, index: int | slice) -> Made | list[Made]:
        if not isinstance(index, slice):
            return self._make(self._items[index if self._places is None else int(self._places[index])])
        if self._places is None:
            return [self._make(item) for item in self._items[index]]
        places = self._places[index]
        if len(places) and 0 <= places[-1] - places[0] < 2 * len(places) and (np.diff(places) > 0).all():
            near = self._items[int(places[0]) : int(places[-1]) + 1]  # one read where most are wanted
            return [self._make(near[place]) for place in (places - places[0]).tolist()]
        return [self._make(self._items[place]) for place in places.tolist()]

    def __iter__(self) -> Iterator[Made]:
        for start in range(0, len(self), _CHUNK):
            yield from self[start : start + _CHUNK]


class Joined(Sequence[Made]):
    """Two sequences, one after the other."""

    def __init__(self, first: Sequence[Made], second: Sequence[Made]) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    @overload
    def __getitem__(self, index: int) -> Made: ...
    @overload
    def __getitem__(self, index: slice) -> list[Made]: ...
    def __getitem__(self, index: int | slice) -> Made | list[Made]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        count = len(self._first)
        return self._first[place] if place < count else self._second[place - count]

    def __iter__(self) -> Iterator[Made]:
        return chain(self._first, self._second)
