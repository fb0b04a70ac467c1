"""The page of promises names tests that are there, and every limit it gives is the code's."""

from __future__ import annotations

import ast

from reasoning_embedding.config.reading import extends, yaml_file
from reasoning_embedding.config.reading.tree import Problems
from reasoning_embedding.data import beir, lines, rows
from tests.docs.pages import ROOT, found, text_of

PAGE = ROOT / "docs" / "reliability.md"


def test_every_test_that_the_page_names_exists() -> None:
    named = found(r"`(tests/[\w/]+\.py)::(\w+)`", text_of(PAGE), least=50)
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in tests, f"{file} has no {name}"
    assert len(set(named)) == len(named), "a test is named once"


def test_every_promise_has_a_test() -> None:
    for row in found(r"^\| ([^|]+) \| ([^|]+) \|$", text_of(PAGE), least=20):
        promise, tests = row
        assert promise == "promise" or "::test_" in tests, promise


def test_the_limits_are_those_of_the_code() -> None:
    text = " ".join(text_of(PAGE).split())
    assert f"at most {yaml_file._LONGEST // 2**20} MiB, {yaml_file._DEEPEST} levels" in text
    assert extends._LARGEST == yaml_file._LONGEST
    assert f"{yaml_file._MOST_NODES:,} values, numbers of {yaml_file._MOST_DIGITS} digits" in text
    assert f"{extends._LONGEST_CHAIN} files that extend one another" in text
    assert f"of its problems {Problems.most} are shown" in text
    assert f"at most {lines.LONGEST // 2**20} MiB; a compressed file" in text
    assert f"grow to {lines.GROWTH} times its size" in text
    assert rows._LARGEST_SCORE == 1e30
    assert "within 10^30, grades of judgements below 10,000" in text
    assert beir._LONGEST_GRADE == 4
