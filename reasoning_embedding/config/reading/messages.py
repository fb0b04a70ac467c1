"""A tree checked by a section's schema; pydantic's errors as plain sentences at their place in the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from .sections import Target, follow, kinds, sections, strip, union_members
from .suggestions import closest, did_you_mean
from .tree import Node, Problems, dotted, find, plain

M = TypeVar("M", bound=BaseModel)
_SHAPES = {"mapping": "section"}
_BOOLEAN_WORDS = {"yes", "no", "on", "off", "y", "n"}


def validated(model: type[M], tree: Node, problems: Problems) -> M | None:
    """Check a tree as a section.

    Parameters
    ----------
    model : type
        The section.
    tree : Node
        Its mapping.
    problems : Problems
        Receives a sentence for each error of pydantic's.

    Returns
    -------
    BaseModel or None
        The section, every default filled in; None where the tree is none.
    """
    # Through JSON because only there pydantic's strict mode takes a list for a tuple; strict, because
    # "64" is not a number, 1 not a boolean and true not a number.
    try:
        return model.model_validate_json(json.dumps(plain(tree)), strict=True)
    except ValidationError as error:
        _explain(model, tree, error.errors(include_url=False), problems)
        return None


def _explain(model: type[BaseModel], tree: Node, errors: list[Any], problems: Problems) -> None:
    shown = errors[: problems.most]
    problems.count(len(errors) - len(shown))
    targets = [(error, follow(model, tree, error["loc"])) for error in shown]
    fitting = [pair for pair in targets if pair[1].fits] or targets
    misspelt = {
        (target.path[:-1], closest(str(target.path[-1]), target.section.model_fields))
        for error, target in fitting
        if error["type"] == "extra_forbidden"
    }
    for error, target in fitting:
        if error["type"] == "extra_forbidden":
            node, _ = find(tree, target.path)
            problems.add(node.start, _unknown_key(model, tree, target))
        elif error["type"] == "missing":
            if (target.path[:-1], target.path[-1]) not in misspelt:
                node, _ = find(tree, target.path[:-1])
                problems.add(node.start, f"the required key {dotted(target.path)!r} is missing")
        elif error["type"].startswith("union_tag"):
            section, _ = find(tree, target.path)
            bad_kind(section, f"{dotted(target.path)}.kind", kinds(target.annotation), problems)
        else:
            path = (*target.path, *(error.get("ctx") or {}).get("path", ()))
            node, met = find(tree, path)
            place = node.place if met == len(path) else node.start
            problems.add(place, _bad_value(error, target, node, dotted(path)))


def _unknown_key(model: type[BaseModel], tree: Node, target: Target) -> str:
    key = str(target.path[-1])
    here = f"in {section}" if (section := dotted(target.path[:-1])) else "at the top level"
    known = [name for name in target.section.model_fields if not _present(tree, (*target.path[:-1], name))]
    text = f"unknown key {_short(key)!r} {here}"
    if len(target.path) == 1:
        known.append("extends")
    near = did_you_mean(key, known) or did_you_mean(key, target.section.model_fields)
    homes = list(dict.fromkeys(where for where, other in sections(model) if key in other.model_fields))
    if homes:
        return f"{text}{near}{' or' if near else ';'} {key!r} is a key of {' and of '.join(homes[:3])}"
    if near:
        return text + near
    elsewhere = {name: where for where, other in sections(model) for name in other.model_fields}
    found = closest(key, elsewhere)
    if found:
        return f"{text}; did you mean {found!r} of {elsewhere[found]}?"
    return f"{text}; it has {', '.join(target.section.model_fields)}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _present(tree: Node, path: tuple[str | int, ...]) -> bool:
    return find(tree, path)[1] == len(path)


def bad_kind(section: Node, subject: str, allowed: list[str], problems: Problems) -> None:
    """Say that the ``kind`` of a section is none of those `allowed`, or missing, or which key was meant to be it."""
    keys = section.value if isinstance(section.value, dict) else {}
    kind, meant = keys.get("kind"), closest("kind", keys)
    choices = ", ".join(allowed)
    if kind is not None:
        hint = did_you_mean(str(kind.value), allowed)
        problems.add(kind.place, f"{subject} is {show(kind.value)}; it must be one of {choices}{hint}")
    elif meant is not None:
        text = f"unknown key {meant!r}; did you mean 'kind'? It is one of {choices}"
        problems.add(keys[meant].start, text)
    else:
        problems.add(section.start, f"the required key {subject!r} is missing; it is one of {choices}")


def _bad_value(error: Any, target: Target, node: Node, subject: str) -> str:
    kind, context = error["type"], error.get("ctx") or {}
    if kind == "conflict":
        return f"{subject}: {error['msg']}"
    value = show(node.value)
    other = "".join(f" (or a {_SHAPES.get(shape, shape)})" for shape in target.also)
    if kind == "literal_error":
        allowed = _literals(target.annotation)
        choices = ", ".join(show(item) for item in allowed)
        hint = (
            did_you_mean(str(node.value), [str(item) for item in allowed])
            if isinstance(node.value, str)
            else ""
        ) or (_hint("bool", node.value) if False in allowed else "")
        return f"{subject} is {value}; it must be one of {choices}{other}{hint}"
    for prefix, sentence in _SENTENCES.items():
        if kind.startswith(prefix):
            return f"{subject} is {value}; it must be {sentence(context)}{other}{_hint(kind, node.value)}"
    return f"{subject} is {value}; {error['msg'][:1].lower()}{error['msg'][1:]}"


_SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    "int": lambda _: "a whole number",
    "float": lambda _: "a number",
    "bool": lambda _: "true or false",
    "string_type": lambda _: "text",
    "string_too_short": lambda _: "text that is not empty",
    "string_too_long": lambda context: f"text of at most {context['max_length']} characters",
    "string_pattern_mismatch": lambda _: (
        "a name of letters, digits, '.', '_' and '-' that starts with a letter or digit (it becomes a folder)"
    ),
    "list_type": lambda _: "a list",
    "tuple_type": lambda _: "a list",
    "model": lambda _: "a section (keys and values)",
    "dict": lambda _: "a section (keys and values)",
    "finite_number": lambda _: "a finite number",
    "greater_than_equal": lambda context: f"at least {context['ge']:g}",
    "greater_than": lambda context: f"greater than {context['gt']:g}",
    "less_than_equal": lambda context: f"at most {context['le']:g}",
    "less_than": lambda context: f"less than {context['lt']:g}",
    "too_short": lambda context: f"a list of at least {context['min_length']}",
    "too_long": lambda context: f"a list of at most {context['max_length']}",
}


def _hint(kind: str, value: object) -> str:
    if kind == "string_type" and value is not None and not isinstance(value, dict | list):
        return "; put it in quotes"
    if not isinstance(value, str):
        return ""
    if kind.startswith("bool") and value.lower() in _BOOLEAN_WORDS:
        return " (in YAML 1.2 this word is text)"
    if kind.startswith(("int", "float")) and value.replace(".", "", 1).isdecimal():
        return "; remove the quotes"
    return ""


def _literals(annotation: Any) -> list[Any]:
    found: list[Any] = []
    for member in union_members(strip(annotation)[0]):
        inner, _ = strip(member)
        if get_origin(inner) is Literal:
            found += get_args(inner)
    return found


def show(value: object) -> str:
    """Render a value as YAML would write it, shortened."""
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return _short(json.dumps(value, ensure_ascii=False))
