"""Every shipped configuration, with one letter of one key wrong, is refused at that line."""

import random
import shutil
from pathlib import Path

import pytest

from reasoning_embedding.config import load_config
from reasoning_embedding.config.loading import KINDS
from reasoning_embedding.config.schema import sections
from reasoning_embedding.config.tree import Node, Problems
from reasoning_embedding.config.yaml_file import parse_yaml
from reasoning_embedding.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
#: Files of a folder ``accelerate`` are the launcher's, which checks them itself.
FILES = sorted(
    path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml") if path.parent.name != "accelerate"
)
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


def misspelt(key: str, rng: random.Random) -> str:
    while True:
        at = rng.randrange(len(key))
        letter = rng.choice("abcdefghijklmnopqrstuvwxyz")
        wrong = rng.choice(
            [key[:at] + key[at + 1 :], key[:at] + letter + key[at + 1 :], key[:at] + letter + key[at:]]
        )
        if wrong and wrong not in KNOWN and wrong not in ("y", "n"):
            return wrong


@pytest.mark.parametrize("file", FILES, ids=str)
def test_one_wrong_letter_is_refused_at_its_line(file, tmp_path):
    folder = tmp_path / "configs"
    shutil.copytree(CONFIGS, folder)
    path = folder / file
    text = path.read_text()
    load_config(path)
    tree = parse_yaml(text, str(path), Problems())
    assert tree is not None
    rng = random.Random(str(file))
    found = list(keys_of(tree))
    for key, line, column in rng.sample(found, min(SAMPLE, len(found))):
        wrong = misspelt(key, rng)
        lines = text.splitlines()
        written = lines[line - 1]
        assert written[column - 1 :].startswith(key)
        lines[line - 1] = written[: column - 1] + wrong + written[column - 1 + len(key) :]
        path.write_text("\n".join(lines))
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        here = [
            problem for problem in caught.value.problems if problem.startswith(f"{path}:{line}:{column}: ")
        ]
        assert any(f"unknown key {wrong!r}" in problem for problem in here), (wrong, caught.value.problems)
