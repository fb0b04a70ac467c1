"""Editors complete and check shipped configurations: each names its schema, and its schema takes it.

That the files in docs/schema are those of the code is held by tests/goldens/test_interface.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding.config import load_config
from reasoning_embedding.config.reading.loading import KINDS
from reasoning_embedding.config.reading.tree import Problems, plain
from reasoning_embedding.config.reading.yaml_file import parse_yaml
from tests.docs.pages import ROOT
from tests.docs.test_repository import CONFIGS

SCHEMAS = ROOT / "docs" / "schema"


def schema(name: str) -> dict[str, Any]:
    return json.loads((SCHEMAS / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_first_line_names_the_schema_of_the_kind(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named, first
    kind = load_config(path).config.kind
    assert (path.parent / named[1]).resolve() == SCHEMAS / f"{kind}.json"


def test_the_wheel_has_the_schemas_where_its_configurations_look_for_them() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'configs = "reasoning_embedding/_configs"' in text
    assert '"docs/schema" = "reasoning_embedding/docs/schema"' in text


def test_every_reference_leads_somewhere_and_every_key_is_described() -> None:
    names = [f"{kind}.json" for kind in KINDS]
    assert {path.name for path in SCHEMAS.iterdir()} == {*names, "common.json"}
    described = 0
    for name in [*names, "common.json"]:
        text = (SCHEMAS / name).read_text(encoding="utf-8")
        for file, definition in re.findall(r'"(\w+\.json)?#/\$defs/(\w+)"', text):
            assert definition in schema(file or name)["$defs"], f"{name}: {file}#{definition}"
        whole = schema(name)
        parts = [*whole["$defs"].values(), *([whole] if "properties" in whole else [])]
        for part in parts:
            for key, value in part["properties"].items():
                assert key == "kind" or value.get("description"), f"{name}: {part.get('title')}.{key}"
                described += 1
    assert described > 400


def validator(kind: str) -> Any:
    jsonschema = pytest.importorskip("jsonschema", reason="extra docs is not installed")
    referencing = pytest.importorskip("referencing", reason="extra docs is not installed")
    common = referencing.Resource.from_contents(
        schema("common.json"), default_specification=referencing.jsonschema.DRAFT202012
    )
    registry = referencing.Registry().with_resource("common.json", common)
    return jsonschema.Draft202012Validator(schema(f"{kind}.json"), registry=registry)


def values(text: str) -> Any:
    problems = Problems()
    node = parse_yaml(text, "file", problems)
    assert node is not None
    return plain(node)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_editor_finds_nothing_wrong_with_what_is_shipped(path: Path) -> None:
    kind = load_config(path).config.kind
    found = [error.message for error in validator(kind).iter_errors(values(path.read_text(encoding="utf-8")))]
    assert not found


def test_an_editor_finds_what_is_wrong() -> None:
    text = "kind: run\nname: a\nbackbone: {path: x}\ndata: {sources: [{kind: world}]}\n"
    run = validator("run")
    assert not list(run.iter_errors(values(text)))
    for wrong in ("training: {batch_sise: 8}", "training: {batch_size: many}", "loss: {temperature: 0}"):
        assert list(run.iter_errors(values(text + wrong))), wrong
    assert list(run.iter_errors(values("kind: run\n"))), "a run needs a name"
    assert not list(run.iter_errors(values("extends: base.yaml\nkind: run\n")))
