"""YAML 1.2 text to a tree with places; everything wrong in the text is collected, nothing is guessed.

PyYAML follows YAML 1.1, where ``no`` is false, ``12:30`` is 750 and ``1e-5`` is text. Only its parser is
used here; scalars follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema).
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

from .tree import Node, Place, Problems, Scalar
from .variables import expand

_TAG = "tag:yaml.org,2002:"
#: What no configuration needs, and what takes minutes, gigabytes or the stack of a parser: libyaml recurses in C.
_MOST_NODES = 20_000
_DEEPEST = 60
_LONGEST = 4 * 2**20
_MOST_DIGITS = 100
_TOO_DEEP = f"nested more than {_DEEPEST} levels deep; this is not a configuration"
_TOO_MANY = f"more than {_MOST_NODES} values; this is not a configuration"
_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")

#: (tag, pattern, first characters) of the core schema; integers come before floats.
SCALARS: list[tuple[str, re.Pattern[str], list[str]]] = [
    (_TAG + "null", re.compile(r"^(?:null|Null|NULL|~|)$"), ["n", "N", "~", ""]),
    (_TAG + "bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    (_TAG + "int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    (
        _TAG + "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """PyYAML's parser (libyaml's where it is built in) with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for _tag, _pattern, _first in SCALARS:
    _Loader.add_implicit_resolver(_tag, _pattern, _first)


def parse_yaml(text: str, source: str, problems: Problems, *, place: Place | None = None) -> Node | None:
    """Parse one YAML document.

    Parameters
    ----------
    text : str
        The document.
    source : str
        Name shown in messages.
    problems : Problems
        Receives syntax errors, duplicate keys, keys that are not text, unknown tags, unset variables.
    place : Place, optional
        One place for everything (an override has no lines).

    Returns
    -------
    Node or None
        None when the text is empty or its syntax is broken (then `problems` says so).
    """
    if len(text) > _LONGEST:
        problems.add(
            place or Place(source), f"more than {_LONGEST // 2**20} MiB of text; this is not a configuration"
        )
        return None
    odd = _NOT_YAML.search(text)
    if odd:
        line = text.count("\n", 0, odd.start()) + 1
        column = odd.start() - text.rfind("\n", 0, odd.start())
        problems.add(place or Place(source, line, column), f"the character {odd[0]!r} is not allowed in YAML")
        return None
    try:
        if _refused(text, place, source, problems):
            return None
        root = yaml.compose(text, Loader=_Loader)
        return None if root is None else _Reader(source, problems, place).node(root)
    except yaml.MarkedYAMLError as error:
        # What is never closed is noticed far below; the place to look at is where it opens.
        unclosed = "flow" in (error.context or "") or "quoted" in (error.context or "")
        marks = (error.context_mark, error.problem_mark)
        mark = next(filter(None, marks if unclosed else reversed(marks)), None)
        where = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source)
        problems.add(place or where, _syntax(error))
    return None


def _refused(text: str, place: Place | None, source: str, problems: Problems) -> bool:
    """Whether a document is too deep or too long to be composed: its events come without recursion."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        what = None
        if depth > _DEEPEST:
            what = _TOO_DEEP
        elif count > 3 * _MOST_NODES:
            what = _TOO_MANY
        if what:
            where = Place(source, event.start_mark.line + 1, event.start_mark.column + 1)
            problems.add(place or where, what)
            return True
    return False


def _syntax(error: yaml.MarkedYAMLError) -> str:
    what = " ".join(part for part in (error.context, error.problem) if part)
    if "tab" in what or "'\\t'" in what:
        return f"not valid YAML: {what} (indent with spaces, not tabs)"
    if "cannot start any token" in what:
        return f"not valid YAML: {what} (text that starts with @, ` or % needs quotes)"
    if "mapping values are not allowed" in what:
        return f"not valid YAML: {what} (a missing line break or indent, or a ': ' in text that needs quotes)"
    if "expected a single document" in what:
        return "more than one YAML document ('---') in the file; keep one"
    return f"not valid YAML: {what}"


class _Reader:
    """Turns PyYAML's nodes into ours."""

    def __init__(self, source: str, problems: Problems, place: Place | None) -> None:
        self.source, self.problems, self.fixed = source, problems, place
        self.count = 0
        self.open: set[int] = set()

    def place(self, node: yaml.Node) -> Place:
        return self.fixed or Place(self.source, node.start_mark.line + 1, node.start_mark.column + 1)

    def node(self, raw: yaml.Node, key_place: Place | None = None) -> Node:
        place = self.place(raw)
        self.count += 1
        if id(raw) in self.open:
            self.problems.add(place, "an alias that contains itself")
            return Node(None, place, key_place)
        if self.count > _MOST_NODES:
            if self.count == _MOST_NODES + 1:
                self.problems.add(place, _TOO_MANY)
            return Node(None, place, key_place)
        if len(self.open) >= _DEEPEST:  # through aliases
            self.problems.add(place, _TOO_DEEP)
            return Node(None, place, key_place)
        self.open.add(id(raw))
        try:
            return Node(self.value(raw, place), place, key_place)
        finally:
            self.open.discard(id(raw))

    def value(self, raw: yaml.Node, place: Place) -> Scalar | dict[str, Node] | list[Node]:
        expected = {yaml.MappingNode: "map", yaml.SequenceNode: "seq"}.get(type(raw))
        if expected and raw.tag != _TAG + expected:
            self.problems.add(place, f"the tag {raw.tag!r} is not supported")
        if isinstance(raw, yaml.MappingNode):
            return self.mapping(raw)
        if isinstance(raw, yaml.SequenceNode):
            return [self.node(item) for item in raw.value]
        return self.scalar(raw, place)

    def mapping(self, raw: yaml.MappingNode) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for raw_key, raw_value in raw.value:
            place = self.place(raw_key)
            key = raw_key.value
            if not isinstance(raw_key, yaml.ScalarNode) or raw_key.tag != _TAG + "str":
                self.problems.add(place, f"a key must be text; quote it: {_short(key)!r}")
                continue
            if key == "<<":
                self.problems.add(place, "merge keys ('<<') are not part of YAML 1.2; use `extends:`")
                continue
            value = self.node(raw_value, place)
            if key in found:
                first = found[key].key_place
                self.problems.add(place, f"duplicate key {_short(key)!r}; it was first given at {first}")
                continue
            found[key] = value
        return found

    def scalar(self, raw: yaml.Node, place: Place) -> Scalar:
        text: str = raw.value
        if raw.tag == _TAG + "str":
            if _SURROGATE.search(text):
                self.problems.add(place, "an escape that is not a character (half of a surrogate pair)")
                return None
            if "\0" in text:
                self.problems.add(place, "a NUL character, which no name, path or text may hold")
                return None
            return expand(text, place, self.problems)
        patterns = {tag: pattern for tag, pattern, _ in SCALARS}
        if raw.tag not in patterns:
            self.problems.add(place, f"the tag {raw.tag!r} is not supported")
            return text
        if not patterns[raw.tag].match(text):
            self.problems.add(place, f"{_short(text)!r} is not a {raw.tag.removeprefix(_TAG)}")
            return None
        if len(text) > _MOST_DIGITS:
            self.problems.add(place, f"a number of {len(text)} digits; this is not a configuration")
            return None
        return _convert(raw.tag.removeprefix(_TAG), text)


def _convert(kind: str, text: str) -> Scalar:
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text[2:] if base != 10 else text, base)
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _short(text: object) -> str:
    rendered = text if isinstance(text, str) else "a list or mapping"
    return rendered if len(rendered) <= 60 else rendered[:57] + "..."
