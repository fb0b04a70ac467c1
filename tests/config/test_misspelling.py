"""Every shipped configuration, with one letter of one key wrong, is refused at that line."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasoning_embedding.config import load_config
from reasoning_embedding.config.reading.loading import KINDS
from reasoning_embedding.config.reading.sections import sections
from reasoning_embedding.config.reading.tree import Node, Problems
from reasoning_embedding.config.reading.yaml_file import parse_yaml
from reasoning_embedding.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
#: Files of a folder ``accelerate`` are the launcher's, which checks them itself.
FILES = sorted(
    path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml") if path.parent.name != "accelerate"
)
assert FILES, "the shipped configurations are not where this test looks"
#: Sections whose keys are the user's own names.
FREE = {"weights", "extra"}
KNOWN = {
    key for model in KINDS.values() for _, section in sections(model) for key in section.model_fields
} | {"extends"}
SAMPLE = 12


def keys_of(node: Node):
    """(key, line, column) of every key that the schema knows."""
    children = (
        node.value.items() if isinstance(node.value, dict) else ((None, item) for item in node.value or [])
    )
    for key, child in children if isinstance(node.value, dict | list) else ():
        if key is not None:
            yield key, child.key_place.line, child.key_place.column
        if key not in FREE and isinstance(child.value, dict | list):
            yield from keys_of(child)


def misspellings(key: str, rng: random.Random) -> Iterator[str]:
    """Each letter left out, each replaced, each two neighbours exchanged; what is a key itself is left out."""
    found: dict[str, None] = {}
    for at in range(len(key)):
        found[key[:at] + key[at + 1 :]] = None
        found[key[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz") + key[at + 1 :]] = None
        found[key[:at] + key[at : at + 2][::-1] + key[at + 2 :]] = None
    for wrong in found:
        if wrong and not all(part in KNOWN or part.isdecimal() for part in wrong.split(".")):
            yield wrong


def check(file: Path, folder: Path, most: int | None) -> int:
    """Refuse misspellings of a file's keys, `most` of them or all; returns how many."""
    shutil.copytree(CONFIGS, folder)
    path = folder / file
    text = path.read_text()
    load_config(path)
    tree = parse_yaml(text, str(path), Problems())
    assert tree is not None
    rng = random.Random(str(file))
    cases = [
        (key, line, column, wrong) for key, line, column in keys_of(tree) for wrong in misspellings(key, rng)
    ]
    chosen = cases if most is None else rng.sample(cases, min(most, len(cases)))
    for key, line, column, wrong in chosen:
        lines = text.splitlines()
        written = lines[line - 1]
        assert written[column - 1 :].startswith(key)
        lines[line - 1] = written[: column - 1] + wrong + written[column - 1 + len(key) :]
        path.write_text("\n".join(lines))
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        start = f"{path}:{line}:{column}: unknown key "
        # A key path of a sweep is wrong in one of its parts.
        names = tuple(f"{start}{part!r}" for part in (wrong, *wrong.split(".")))
        assert any(problem.startswith(names) for problem in caught.value.problems), (
            wrong,
            caught.value.problems,
        )
    return len(chosen)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_one_wrong_letter_is_refused_at_its_line(file: Path, tmp_path: Path) -> None:
    assert check(file, tmp_path / "configs", SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_wrong_letter_is_refused_at_its_line(file: Path, tmp_path: Path) -> None:
    assert check(file, tmp_path / "configs", None) > 30
