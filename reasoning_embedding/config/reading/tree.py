"""The tree of a configuration file before it has types: every value knows where it was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from reasoning_embedding.errors import ConfigError

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written: a position in a file, or an override.

    Parameters
    ----------
    source : str
        File name as the user gave it, or ``override 'key=value'``.
    line, column : int, optional
        Counted from 1.
    """

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.source, self.line, self.column) if part is not None)


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its place, and the place of the key that leads to it (None in lists)."""

    value: Scalar | dict[str, Node] | list[Node]
    place: Place
    key_place: Place | None = None

    @property
    def start(self) -> Place:
        """Where it begins: at its key, if it has one."""
        return self.key_place or self.place


class Problems:
    """Collects what is wrong, so that one run shows all of it."""

    #: How many are shown; whoever has more repairs these first.
    most = 100

    def __init__(self) -> None:
        self._found: dict[tuple[Place, str], None] = {}
        self._more = 0

    def add(self, place: Place, text: str) -> None:
        """Note one problem at its place."""
        if len(self._found) < self.most:
            self._found[place, text] = None
        elif (place, text) not in self._found:
            self._more += 1

    def count(self, more: int) -> None:
        """Note that there are more, which will not be shown."""
        self._more += more

    def __len__(self) -> int:
        return len(self._found)

    def raise_if_any(self) -> None:
        """Stop if something was found.

        Raises
        ------
        ConfigError
            With every problem, by file and line.
        """
        if self._found:
            order = list(dict.fromkeys(place.source for place, _ in self._found))
            ordered = sorted(
                self._found,
                key=lambda item: (order.index(item[0].source), item[0].line or 0, item[0].column or 0),
            )
            lines = [f"{place}: {text}" for place, text in ordered]
            if self._more:
                lines.append(f"{ordered[-1][0].source}: and {self._more} more, of which nothing is shown")
            raise ConfigError(lines)


def plain(node: Node) -> Any:
    """Return the bare dicts, lists and scalars of a tree."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def tree_of(value: Any, place: Place, problems: Problems, path: tuple[str | int, ...] = ()) -> Node:
    """Return the tree of Python values, all at one place; what a file cannot say is a problem."""
    if isinstance(value, Mapping):
        for key in [key for key in value if not isinstance(key, str)]:
            problems.add(place, f"{dotted(path) or 'the configuration'}: the key {key!r} is no text")
        below = {str(key): tree_of(item, place, problems, (*path, str(key))) for key, item in value.items()}
        return Node(below, place, place)
    if isinstance(value, list | tuple):
        return Node(
            [tree_of(item, place, problems, (*path, index)) for index, item in enumerate(value)], place, place
        )
    if isinstance(value, PurePath):
        value = str(value)
    if value is None or type(value) in (str, int, float, bool):
        return Node(value, place, place)
    problems.add(place, f"{dotted(path)}: a {type(value).__name__} is neither text, number, list nor mapping")
    return Node(None, place, place)


def child(node: Node, step: str | int) -> Node | None:
    """Return one member of a mapping or list, or None."""
    if isinstance(node.value, dict) and isinstance(step, str):
        return node.value.get(step)
    if isinstance(node.value, list) and isinstance(step, int) and 0 <= step < len(node.value):
        return node.value[step]
    return None


def find(node: Node, path: Sequence[str | int]) -> tuple[Node, int]:
    """Follow `path` as far as it exists; return the last node met and how many steps led there."""
    for count, step in enumerate(path):
        below = child(node, step)
        if below is None:
            return node, count
        node = below
    return node, len(path)


def dotted(path: Sequence[str | int]) -> str:
    """Key path as overrides write it: ``data.sources.0.path``."""
    return ".".join(str(step) for step in path)
