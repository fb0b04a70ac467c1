"""What the README and the pages under docs/ say is so: commands, options, files, names and configurations."""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path

import pytest

from reasoning_embedding.config import load_config, sweep_runs
from tests.docs.pages import PAGES, README, ROOT, blocks, check_command, commands, found, text_of

ALL = [README, *PAGES]
#: A page about other people's files.
FOREIGN = ROOT / "docs" / "from-the-paper.md"


def test_there_is_something_to_check() -> None:
    assert len(commands(*ALL)) > 40
    assert sum(len(blocks(page, "yaml")) for page in ALL) >= 4


@pytest.mark.parametrize("words", commands(*ALL), ids=" ".join)
def test_commands_and_their_options_exist(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    check_command(words, capsys)


@pytest.mark.parametrize(
    ("page", "text"),
    [(page, text) for page in ALL for text in blocks(page, "yaml")],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_configurations_are_valid(page: Path, text: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "configs" / "sweeps" / "run.yaml", tmp_path)
    (tmp_path / "page.yaml").write_text(text)
    assert load_config(tmp_path / "page.yaml").config


def test_the_sweeps_have_the_runs_that_their_page_counts(tmp_path: Path) -> None:
    shutil.copy(ROOT / "configs" / "sweeps" / "run.yaml", tmp_path)
    for text, count in zip(blocks(ROOT / "docs" / "sweeps.md", "yaml"), (24, 6), strict=True):
        (tmp_path / "sweep.yaml").write_text(text)
        assert len(sweep_runs(load_config(tmp_path / "sweep.yaml"))) == count


def test_files_that_the_pages_name_exist() -> None:
    """From the repository's root, or from the package's: ``losses/terms.py``."""
    named = {
        (page.name, path)
        for page in ALL
        if page != FOREIGN
        for path in found(
            r"`((?:[\w-]+/)+[\w-]+\.(?:py|md|cpp)|(?:configs|tests|docs)/[\w./-]+)`", text_of(page), least=0
        )
    }
    assert len(named) > 20
    absent = [
        (page, path)
        for page, path in sorted(named)
        if not (ROOT / path).exists() and not (ROOT / "reasoning_embedding" / path).exists()
    ]
    assert not absent


def test_names_that_the_pages_give_in_full_exist() -> None:
    """``reasoning_embedding.a.b``, a module or what one holds, and ``hrsa.NAME`` of the public package."""
    text = "\n".join(text_of(page) for page in ALL)
    names = found(r"\breasoning_embedding((?:\.\w+)+)", text)
    for name in names:
        *path, last = name.split(".")[1:]
        module = importlib.import_module(".".join(["reasoning_embedding", *path]))
        if not hasattr(module, last):
            importlib.import_module(f"{module.__name__}.{last}")
    hrsa = importlib.import_module("reasoning_embedding.hrsa")
    for name in found(r"`hrsa\.(\w+)[`(]", text, least=5):
        assert hasattr(hrsa, name), name


def test_every_page_is_found_from_the_readme() -> None:
    readme = text_of(README)
    assert [page.name for page in PAGES if f"`docs/{page.name}`" not in readme] == []


def test_words_are_explained_once_and_in_order() -> None:
    words = [
        word.lower()
        for word in found(r"^\| (\w[\w ]*) \| ", text_of(ROOT / "docs" / "glossary.md"), least=20)
    ]
    assert words[0] == "word"
    assert words[1:] == sorted(set(words[1:]))


def test_no_page_speaks_of_what_is_gone() -> None:
    gone = re.compile(
        r"rembed bench\b|sweeps/work|data/bag|training/(?:job|share|exhausted|cost)\b|tests/unit"
    )
    for page in ALL:
        assert not gone.search(text_of(page)), page.name
