"""What the pages under docs/ say is so: their commands, options, files and configurations."""

import re
from pathlib import Path

import pytest
from test_readme import ROOT, help_of

from reasoning_embedding.cli.main import VERBS
from reasoning_embedding.config import load_config

PAGES = sorted((ROOT / "docs").glob("*.md"))
#: Verbs whose first word is again a verb.
GROUPS = ("config", "data", "runs")


def blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for page in PAGES for body in blocks(page, "bash") for line in body.splitlines()]
    inline = [found for page in PAGES for found in re.findall(r"`(rembed [^`]+)`", page.read_text("utf-8"))]
    found = {tuple(line.split("#")[0].split()) for line in [*lines, *inline]}
    return [
        list(words) for words in sorted(found) if "reasoning_embedding" in words or words[:1] == ("rembed",)
    ]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_and_their_options_exist(words, capsys):
    if "reasoning_embedding" in words:
        words = ["rembed", *words[words.index("reasoning_embedding") + 1 :]]
    assert words[1] in VERBS
    depth = 3 if words[1] in GROUPS and len(words) > 2 else 2
    text = help_of(capsys, *words[1:depth])
    for option in (word for word in words if word.startswith("--")):
        assert option in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configurations_are_valid(page, tmp_path):
    for text in blocks(page, "yaml"):
        if "base: run.yaml" in text:
            (tmp_path / "run.yaml").write_bytes((ROOT / "configs" / "sweeps" / "run.yaml").read_bytes())
        (tmp_path / "page.yaml").write_text(text)
        assert load_config(tmp_path / "page.yaml").config


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    for path in re.findall(r"`((?:configs|tests|scripts|docs)/[\w./-]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


def test_every_page_is_found_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f"docs/{page.name}" not in readme] == []
