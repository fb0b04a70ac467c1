"""Reading a configuration file together with the files it extends."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from .suggestions import did_you_mean
from .tree import Node, Place, Problems, child
from .yaml_file import parse_yaml

_LARGEST = 4 * 2**20
_LONGEST_CHAIN = 20


def read_tree(path: Path, problems: Problems) -> tuple[Node | None, list[Path], str]:
    """Read a file and, below it, what its ``extends:`` names (relative to the file).

    Mappings are merged key by key, lists and scalars replaced, the extending file last; a section
    whose ``kind`` changes is replaced whole, because its keys belong to another kind.

    Parameters
    ----------
    path : Path
        The file.
    problems : Problems
        Receives what is wrong, at the file and line it stands in.

    Returns
    -------
    tree : Node or None
        The merged mapping; None when a file cannot be read or parsed.
    files : list of Path
        Every file read, the one asked for first.
    text : str
        The text of `path`.
    """
    files: list[Path] = []
    text = _text(path, Place(str(path)), problems)
    tree = None if text is None else _Files(problems, files).merged(path, text, ())
    return tree, files, text or ""


def read_base(tree: Node, problems: Problems, files: list[Path]) -> Node:
    """Put the run that ``base`` names (relative to the file that names it) in the place of its name.

    Parameters
    ----------
    tree : Node
        A sweep's mapping.
    problems : Problems
        Receives what is wrong with the base's file.
    files : list of Path
        Receives every file read.
    """
    named = child(tree, "base")
    if named is None or not isinstance(named.value, str):
        return tree
    # An override is written where the user stands, and no file.
    source = Path(named.place.source if named.place.line is not None else "base")
    found = _Files(problems, files).parent(source, named, ())
    if found is None or not isinstance(tree.value, dict):
        return tree
    return replace(tree, value={**tree.value, "base": replace(found, key_place=named.key_place)})


def _text(path: Path, place: Place, problems: Problems) -> str | None:
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
        if len(raw) > _LARGEST:
            problems.add(
                place, f"{_named(path, place)}more than {_LARGEST // 2**20} MiB; this is no configuration"
            )
            return None
    except FileNotFoundError:
        problems.add(place, f"{_named(path, place)}no such file{_neighbours(path)}")
    except IsADirectoryError:
        problems.add(place, f"{_named(path, place)}this is a folder; name a YAML file in it")
    except OSError as error:
        problems.add(place, f"{_named(path, place)}cannot be read: {error.strerror}")
    else:
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            problems.add(
                Place(str(path), line),
                f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8 text",
            )
    return None


def _named(path: Path, place: Place) -> str:
    return "" if place.source == str(path) else f"{str(path)!r}: "


def _neighbours(path: Path) -> str:
    folder = path.parent
    try:
        there = folder.is_dir()
    except OSError:  # a name that is too long, a folder that may not be read
        there = False
    if not there:
        return f" (nor a folder {str(folder)!r})"
    return did_you_mean(
        path.name, [item.name for item in folder.iterdir() if item.suffix in (".yaml", ".yml")]
    )


def _names(named: Node, problems: Problems) -> list[Node]:
    nodes = named.value if isinstance(named.value, list) else [named]
    if not nodes or not all(isinstance(node.value, str) and node.value for node in nodes):
        problems.add(named.place, "extends must be the path of a YAML file, or a list of them")
        return []
    return nodes


class _Files:
    """Files and what they extend, each read once.

    Parameters
    ----------
    problems : Problems
        Receives what is wrong.
    files : list of Path
        Receives every file read.
    """

    def __init__(self, problems: Problems, files: list[Path]) -> None:
        self.problems, self.files = problems, files
        self._trees: dict[Path, Node | None] = {}

    def merged(self, path: Path, text: str, above: tuple[Path, ...]) -> Node | None:
        """Return a file's mapping, laid on those that it extends; `above` are the files that extend it."""
        if path not in self.files:
            self.files.append(path)
        before = len(self.problems)
        tree = parse_yaml(text, str(path), self.problems)
        if tree is None:
            if len(self.problems) == before:
                self.problems.add(Place(str(path), 1), "the file is empty")
            return None
        if not isinstance(tree.value, dict):
            self.problems.add(tree.place, "a configuration is a mapping of keys to values")
            return None
        named = tree.value.get("extends")
        own = replace(tree, value={key: node for key, node in tree.value.items() if key != "extends"})
        if named is None:
            return own
        base: Node | None = None
        for node in _names(named, self.problems):
            found = self.parent(path, node, (*above, path))
            if found is None:
                return None
            base = found if base is None else merge(base, found, top=True)
        return own if base is None else merge(base, own, top=True)

    def parent(self, path: Path, node: Node, above: tuple[Path, ...]) -> Node | None:
        """Return the merged mapping of the file that `node` names, relative to `path`."""
        target = Path(os.path.normpath(path.parent / str(node.value)))
        if target.resolve() in [item.resolve() for item in above]:
            chain = " -> ".join(str(item) for item in (*above, target))
            self.problems.add(node.place, f"extends goes round in a circle: {chain}")
            return None
        if len(above) >= _LONGEST_CHAIN:
            self.problems.add(node.place, f"more than {_LONGEST_CHAIN} files extend one another")
            return None
        # Files that share a base would else read it again for every way that leads there.
        if target not in self._trees:
            text = _text(target, node.place, self.problems)
            self._trees[target] = None if text is None else self.merged(target, text, above)
        return self._trees[target]


def merge(base: Node, over: Node, *, top: bool = False) -> Node:
    """Lay `over` on `base`: mappings key by key, anything else replaced.

    Parameters
    ----------
    base, over : Node
        `over` wins.
    top : bool
        At the top of a file a differing ``kind`` does not replace the whole.
    """
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    if not top and _kind(over) is not None and _kind(over) != _kind(base):
        return over
    value = dict(base.value)
    for key, node in over.value.items():
        value[key] = merge(value[key], node) if key in value else node
    return replace(over, value=value)


def _kind(node: Node) -> object:
    kind = child(node, "kind")
    return kind.value if kind else None
