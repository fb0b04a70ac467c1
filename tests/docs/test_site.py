"""The site: its pages are there, and those made from code have every key, command and metric.

Building it needs the extra ``docs`` and is slow; what the pages hold is read here without it.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from docs.generated import example_of, keys_without_example, pages
from reasoning_embedding.cli.main import VERBS
from reasoning_embedding.config.reading.loading import KINDS
from reasoning_embedding.config.reading.sections import sections
from reasoning_embedding.hrsa.registry import METRICS
from tests.docs.pages import PAGES, ROOT


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name functions."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


@cache
def settings() -> dict[str, Any]:
    return yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=_Loader)


@cache
def made() -> dict[str, str]:
    return pages()


def leaves(nav: Any) -> Iterator[str]:
    for item in nav:
        if isinstance(item, str):
            yield item
            continue
        for value in item.values():
            yield from leaves(value) if isinstance(value, list) else [value]


def test_every_page_stands_in_the_navigation_and_is_there() -> None:
    named = list(leaves(settings()["nav"]))
    assert len(named) == len(set(named)) > 20
    there = {page.name for page in PAGES} | set(made())
    assert set(named) == there


def test_links_between_pages_lead_somewhere() -> None:
    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES} | made()
    checked = 0
    for name, text in texts.items():
        prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            if target.startswith("http"):
                continue
            path, _, anchor = target.partition("#")
            found = (Path(name).parent / path).as_posix() if path else name
            found = re.sub(r"[\w-]+/\.\./", "", found)
            checked += 1
            if not found.endswith(".md"):
                assert (ROOT / "docs" / found).is_file(), f"{name}: {target}"
                continue
            assert found in texts, f"{name}: {target}"
            assert not anchor or f"{{ #{anchor} }}" in texts[found], f"{name}: {target}"
    assert checked > 100


def every_section() -> set[type[BaseModel]]:
    return {section for model in KINDS.values() for _, section in sections(model)}


def test_the_page_of_keys_has_every_key_with_its_reason_and_an_example() -> None:
    text = made()["reference/keys.md"]
    assert keys_without_example() == []
    rows = [re.split(r"(?<!\\)\|", row)[1:-1] for row in re.findall(r"^\| `.*\|$", text, re.MULTILINE)]
    assert len(rows) == sum(len(section.model_fields) for section in every_section()) > 500
    for row in rows:
        assert len(row) == 5, row
        assert all(cell.strip() for cell in row), f"something is not said: {row}"


def test_every_example_is_one_that_the_key_takes() -> None:
    checked = 0
    for section in every_section():
        for name, field in section.model_fields.items():
            value = example_of(section, name)
            if value is None:
                continue
            adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
            try:
                adapter.validate_python(value)
            except ValidationError as error:
                pytest.fail(f"{section.__name__}.{name}: {value!r}: {error}")
            checked += 1
    assert checked > 400


def test_the_page_of_commands_has_every_verb_and_the_page_of_metrics_every_metric() -> None:
    assert re.findall(r"^## rembed (\S+)", made()["reference/commands.md"], re.MULTILINE) == list(VERBS)
    assert "### rembed config check" in made()["reference/commands.md"]
    assert "| `--resume` |" in made()["reference/commands.md"]
    metrics = made()["reference/metrics.md"]
    assert re.findall(r"^### (\S+)", metrics, re.MULTILINE) == list(METRICS)
    assert metrics.count("**Definition.**") == metrics.count("**Reading it.**") == len(METRICS)
    assert metrics.count("**Formula and source.**") >= len(METRICS) - 1


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("the extra docs is not installed")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "--site-dir",
            str(tmp_path / "site"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=450,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in leaves(settings()["nav"]):
        assert (tmp_path / "site" / page).with_suffix(".html").is_file(), page
    assert (tmp_path / "site" / "schema" / "run.json").is_file()
    start = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert 'href="train.html"' in start, "names of pages are links"
