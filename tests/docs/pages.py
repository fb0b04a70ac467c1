"""Reading the README and the pages under docs/: their blocks, commands and names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reasoning_embedding.cli.main import VERBS, main

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
assert PAGES
#: Verbs whose first word is again a verb.
GROUPS = ("config", "data", "runs")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def found(pattern: str, text: str, *, least: int = 1) -> list:
    """All matches of a pattern; fewer than `least` mean that it no longer finds what it is for."""
    matches = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    assert len(matches) >= least, f"{pattern} is found {len(matches)} times"
    return matches


def blocks(page: Path, kind: str) -> list[str]:
    """Bodies of the fenced blocks of a language."""
    return [body for name, body in found(r"^```(\w*)\n(.*?)^```$", text_of(page), least=0) if name == kind]


def commands(*pages: Path) -> list[list[str]]:
    """Words of every command in a bash block or between backticks, without comments."""
    lines = [line for page in pages for body in blocks(page, "bash") for line in body.splitlines()]
    lines += [line for page in pages for line in found(r"`(rembed [^`]+)`", text_of(page), least=0)]
    unique = {tuple(line.split("#")[0].split()) for line in lines}
    return [list(words) for words in sorted(unique) if words]


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert not caught.value.code
    return capsys.readouterr().out


def check_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Hold that a command's verb, options and configuration files are there."""
    for word in words:
        if word.startswith("configs/"):
            assert (ROOT / word).exists(), word
    if words[0] == "make":
        found(rf"^{words[1]}:", text_of(ROOT / "Makefile"))
        return
    if "benchmarks" in words:
        assert words[:3] == ["python", "-m", "benchmarks"]
        text = benchmark_help(capsys, *words[3:4])
    else:
        if "-m" in words:
            assert words[0] in ("accelerate", "torchrun"), words
            words = ["rembed", *words[words.index("reasoning_embedding") + 1 :]]
        assert words[0] == "rembed", words
        assert words[1] in VERBS, words
        text = help_of(capsys, *words[1 : 3 if words[1] in GROUPS and len(words) > 2 else 2])
    for option in (word for word in words if word.startswith("--")):
        assert option in text, option


def benchmark_help(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    from typer.testing import CliRunner

    from benchmarks.__main__ import app

    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0, result.output
    return result.output
