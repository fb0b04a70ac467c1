"""Functions of a user's own in a configuration: each address gets the file it means, and a digest of that file."""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from .suggestions import did_you_mean
from .tree import Node, Problems, child

_MODULE = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<function>[A-Za-z_]\w*)")
_FILE = re.compile(r"(?P<file>.+\.py):(?P<function>[A-Za-z_]\w*)")
#: List that a section with a ``function`` stands in -> arguments that the function is given in order.
_ARGUMENTS = {"terms": 2, "metrics": 2, "sources": 0}
_REWARD_ARGUMENTS = 2


def pin_functions(tree: Node, problems: Problems) -> Node:
    """Put files in the place of modules, and their SHA-256 beside; nothing is imported.

    A module is looked for beside the file that names it, then in the current folder, then among what is installed.

    Parameters
    ----------
    tree : Node
        The whole mapping.
    problems : Problems
        Receives modules and functions that are not there, functions that do not take what they are given, and files
        that have changed since their digest was written.
    """
    return _pinned(tree, "", problems)


def _pinned(node: Node, within: str, problems: Problems) -> Node:
    """Pin what is below a node; `within`: the key of the list or mapping it stands in."""
    if isinstance(node.value, list):
        return replace(node, value=[_pinned(item, within, problems) for item in node.value])
    if not isinstance(node.value, dict):
        return node
    value = {key: _pinned(item, key, problems) for key, item in node.value.items()}
    if within in _ARGUMENTS and (named := value.get("function")) is not None:
        value |= _section(replace(node, value=value), named, _ARGUMENTS[within], problems)
    if (named := value.get("reward")) is not None and isinstance(named.value, str):
        found = _find(named, _REWARD_ARGUMENTS, (), problems)
        value["reward"] = named if found is None else replace(named, value=found[0])
    return replace(node, value=value)


def _section(section: Node, named: Node, arguments: int, problems: Problems) -> dict[str, Node]:
    options = child(section, "options")
    names = tuple(options.value) if options is not None and isinstance(options.value, dict) else ()
    found = _find(named, arguments, names, problems)
    if found is None:
        return {}
    address, file = found
    pinned = {"function": replace(named, value=address)}
    if file is not None:
        digest, said = hashlib.sha256(file.read_bytes()).hexdigest(), child(section, "sha256")
        if said is None or said.value is None:
            pinned["sha256"] = Node(digest, named.place)
        elif said.value != digest:
            problems.add(
                said.place, f"{file} has another text than this digest is of; correct or drop sha256"
            )
    return pinned


def _find(
    named: Node, arguments: int, options: tuple[str, ...], problems: Problems
) -> tuple[str, Path | None] | None:
    """Return the address with its file, and the file where there is one; None where the schema says what is wrong."""
    text = named.value
    if not isinstance(text, str) or text.startswith("python:"):
        return None
    match = _FILE.fullmatch(text) or _MODULE.fullmatch(text)
    if match is None:
        return None
    folders = _folders(named)
    parts = match.groupdict()
    if "file" in parts:
        candidates = [folder / parts["file"] for folder in folders]
        file = next((path for path in candidates if path.is_file()), None)
        if file is None:
            problems.add(named.place, f"no such file: {candidates[-1].absolute()}")
            return None
        address = f"{file.resolve()}:{parts['function']}"
    else:
        file = next((path for folder in folders for path in _files(folder, parts["module"])), None)
        address = text if file is None else f"{file.resolve()}:{parts['function']}"
        if file is None:
            file, known = _installed(parts["module"])
            if not known:
                where = " nor in ".join(str(folder.resolve()) for folder in folders)
                top = parts["module"]
                problems.add(named.place, f"no module {top!r} in {where}, and none of this name is installed")
                return None
    if file is not None and not _has_function(file, parts["function"], arguments, options, named, problems):
        return None
    return address, file


def _folders(named: Node) -> list[Path]:
    """The folder of the file that names it, then the current one."""
    beside = [Path(named.place.source).parent] if named.place.line is not None else []
    return list(dict.fromkeys([*beside, Path()]))


def _files(folder: Path, module: str) -> Iterator[Path]:
    base = folder.joinpath(*module.split("."))
    yield from (path for path in (base.with_name(f"{base.name}.py"), base / "__init__.py") if path.is_file())


def _installed(module: str) -> tuple[Path | None, bool]:
    """Return the source file of an installed module, and whether there is such a module; its package is not imported."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return None, False
    if not rest:
        return (Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None), True
    for place in spec.submodule_search_locations or ():
        for file in _files(Path(place), ".".join(rest)):
            return file, True
    return None, False


def _has_function(
    file: Path, name: str, arguments: int, options: tuple[str, ...], named: Node, problems: Problems
) -> bool:
    try:
        content = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        problems.add(named.place, f"{file}{f':{line}' if line else ''} is no Python: {error.args[0]}")
        return False
    except OSError as error:
        problems.add(named.place, f"{file} cannot be read: {error.strerror}")
        return False
    known = dict(_names(content.body))
    if name not in known and not any(
        isinstance(step, ast.ImportFrom) and step.names[0].name == "*" for step in content.body
    ):
        problems.add(named.place, f"{file} has no function {name!r}{did_you_mean(name, known)}")
        return False
    definition = known.get(name)
    if isinstance(definition, ast.FunctionDef):
        problem = _call_problem(definition.args, arguments, options)
        if problem is not None:
            problems.add(named.place, f"{file}:{definition.lineno}: {name} {problem}")
            return False
    return True


def _names(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """What a module's own statements give a name to."""
    for step in body:
        if isinstance(step, ast.FunctionDef | ast.ClassDef):
            yield step.name, step
        elif isinstance(step, ast.Import | ast.ImportFrom):
            yield from ((item.asname or item.name.partition(".")[0], step) for item in step.names)
        elif isinstance(step, ast.Assign | ast.AnnAssign):
            targets = step.targets if isinstance(step, ast.Assign) else [step.target]
            yield from ((target.id, step) for target in targets if isinstance(target, ast.Name))
        elif isinstance(step, ast.If | ast.Try | ast.With):
            for field in ("body", "orelse", "finalbody"):
                yield from _names(getattr(step, field, []))


def _call_problem(taken: ast.arguments, arguments: int, options: tuple[str, ...]) -> str | None:
    """Say why a call with so many arguments in order and these by name fails; None where it does not."""
    in_order = [argument.arg for argument in (*taken.posonlyargs, *taken.args)]
    by_name = [argument.arg for argument in taken.kwonlyargs]
    if len(in_order) < arguments and taken.vararg is None:
        return f"takes {len(in_order)} arguments in order, and is given {arguments}"
    left = in_order[arguments:]
    if taken.kwarg is None and (unknown := [option for option in options if option not in (*left, *by_name)]):
        return f"has no argument {unknown[0]!r}, which options names{did_you_mean(unknown[0], [*left, *by_name])}"
    required = in_order[: len(in_order) - len(taken.defaults)][arguments:]
    required += [name for name, default in zip(by_name, taken.kw_defaults, strict=True) if default is None]
    if missing := [name for name in required if name not in options]:
        return f"needs {missing[0]!r}, which options does not give"
    return None
