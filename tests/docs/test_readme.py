"""What the README says is so: its verbs, code and tree. What all pages say is held by test_pages."""

from __future__ import annotations

import ast
import doctest

import pytest

import reasoning_embedding
from reasoning_embedding.cli.main import VERBS
from reasoning_embedding.config import load_config
from tests.docs.pages import README, ROOT, blocks, found, text_of

TEXT = text_of(README)


def test_there_is_something_to_check():
    assert all(blocks(README, kind) for kind in ("bash", "yaml", "python", "pycon", ""))


def test_the_table_lists_every_verb():
    assert sorted(found(r"^\| `rembed (\w+)` \|", TEXT)) == sorted(VERBS)


def test_the_configuration_is_a_run(tmp_path):
    [text] = blocks(README, "yaml")
    (tmp_path / "readme.yaml").write_text(text)
    assert load_config(tmp_path / "readme.yaml").config.kind == "run"


def test_python_uses_what_exists():
    nodes = [node for text in blocks(README, "python") for node in ast.walk(ast.parse(text))]
    used = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rembed"
    }
    assert used
    assert used <= set(dir(reasoning_embedding))


@pytest.mark.parametrize("text", blocks(README, "pycon"))
def test_examples_are_true(text):
    example = doctest.DocTestParser().get_doctest(text, {}, "README", "README.md", 0)
    assert doctest.DocTestRunner().run(example).failed == 0


def modules_of(folder: str) -> set[str]:
    """Folders with modules below a folder, as paths from it."""
    return {str(path.parent.relative_to(ROOT / folder)) for path in (ROOT / folder).rglob("*.py")} - {"."}


def test_the_tree_is_the_tree():
    shown: set[str] = set()
    above: list[str] = []
    for line in blocks(README, "")[0].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[:depth], line.split()[0].rstrip("/")]
        assert ROOT.joinpath(*above).exists(), line
        shown.add("/".join(above))
    rooms = modules_of("reasoning_embedding")
    assert {path.partition("/")[2] for path in shown if path.startswith("reasoning_embedding/")} >= rooms
    named = {path.partition("/")[2] for path in shown if path.startswith("tests/")}
    assert {path for path in modules_of("tests") if path.partition("/")[0] not in rooms} == named


def test_pictures_exist():
    for path in found(r"!\[[^\]]*\]\(([^)]+)\)", TEXT):
        assert (ROOT / path).is_file(), path
