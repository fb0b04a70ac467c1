"""Overrides of the command line: ``key.path=value``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from .tree import Node, Place, Problems, dotted
from .yaml_file import parse_yaml

_DEEPEST = 30
_FORM = re.compile(r"(?P<path>[A-Za-z_][\w-]*(?:\.[\w-]+)*)=(?P<value>.*)", re.DOTALL)


def is_override(argument: str) -> bool:
    """Whether a command-line argument has the form ``key.path=value``."""
    return _FORM.fullmatch(argument) is not None


def apply_overrides(tree: Node, overrides: Sequence[str], problems: Problems) -> Node:
    """Set values in a tree, in order; the schema checks them as if they stood in the file.

    Parameters
    ----------
    tree : Node
        The configuration's mapping.
    overrides : sequence of str
        ``key.path=value``: list items by index (``runs.0.seed=3``), the value a YAML scalar or flow
        (``evaluation.steps=[0, 200]``); nothing after ``=`` is null. Absent sections are made.
    problems : Problems
        Receives what has the wrong form, at ``override 'key=value'``.
    """
    for override in overrides:
        place = Place(f"override {override!r}")
        match = _FORM.fullmatch(override)
        if match is None:
            problems.add(place, "write key.path=value, such as training.steps=100")
            continue
        before = len(problems)
        parsed = parse_yaml(match["value"], place.source, problems, place=place)
        if len(problems) > before:
            continue
        value = replace(parsed or Node(None, place), key_place=place)
        tree = set_value(tree, match["path"], value, problems)
    return tree


def set_value(tree: Node, path: str, value: Node, problems: Problems) -> Node:
    """Return the tree with `value` at a key path such as ``runs.0.seed``; absent sections are made.

    Parameters
    ----------
    tree : Node
        A mapping.
    path : str
        Keys and indices, between dots.
    value : Node
        What to put there; `problems` about the path stand at its key.
    problems : Problems
        Receives an index out of range, and a key of something that is no section.
    """
    steps = path.split(".")
    if len(steps) > _DEEPEST:
        problems.add(value.start, f"a key path of {len(steps)} parts; no section lies that deep")
        return tree
    return _set(tree, steps, 0, value, problems)


def _set(node: Node, path: list[str], depth: int, value: Node, problems: Problems) -> Node:
    if depth == len(path):
        return value
    place, here = value.start, dotted(path[:depth])
    step = path[depth]
    if isinstance(node.value, list):
        if not step.isdecimal() or int(step) >= len(node.value):
            count = len(node.value)
            problems.add(
                place, f"{here} is a list of {count}; write an index from 0 to {count - 1}, not {step!r}"
            )
            return node
        items = list(node.value)
        items[int(step)] = _set(items[int(step)], path, depth + 1, value, problems)
        return replace(node, value=items)
    if node.value is None:
        node = Node({}, place, node.key_place)
    if not isinstance(node.value, dict):
        problems.add(place, f"{here} is {node.value!r}, not a section; it has no {step!r}")
        return node
    if step.isdecimal() and step not in node.value and depth:
        problems.add(place, f"{here} is not a list here; it has no item {step}")
        return node
    below = node.value.get(step) or Node({}, place, place)
    return replace(node, value={**node.value, step: _set(below, path, depth + 1, value, problems)})
