"""What docstrings refer to is there: modules, functions and classes between roles and backticks."""

from __future__ import annotations

import ast
import builtins
import re
from functools import cache
from pathlib import Path

from tests.docs.pages import ROOT, text_of

ROLE = re.compile(r":(?:mod|class|func|meth|data|attr):`~?([.\w]+)`")
OWN = ("reasoning_embedding", "benchmarks", "tests")


@cache
def source(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return found if found.is_file() or path.is_dir() else None


@cache
def names(module: str) -> set[str]:
    """What a module defines or imports, methods and fields of its classes too."""
    path = source(module)
    if path is None or not path.is_file():
        return set()
    found: set[str] = set()
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def exists(target: str, module: str, package: str) -> bool:
    """Whether a target means something: from the root, from the package (a leading dot), or in the module."""
    if target.startswith("."):
        dots = len(target) - len(target.lstrip("."))
        base = package.split(".")
        target = ".".join([*base[: len(base) - dots + 1], target.lstrip(".")])
    elif target.split(".")[0] not in OWN:
        first, _, rest = target.partition(".")
        # A dotted name of another library is not ours to check.
        return bool(rest) or first in names(module) or hasattr(builtins, first)
    if source(target):
        return True
    owner, _, name = target.rpartition(".")
    # A name of a module, or a member of a class of one.
    return name in names(owner) or name in names(owner.rpartition(".")[0])


def test_what_docstrings_refer_to_exists() -> None:
    found = 0
    absent: list[str] = []
    for folder in OWN:
        for path in sorted((ROOT / folder).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            for target in ROLE.findall(text_of(path)):
                found += 1
                if not exists(target, module, package):
                    absent.append(f"{path.relative_to(ROOT)}: {target}")
    assert found > 100
    assert not absent
