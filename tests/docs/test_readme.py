"""What the README says is so: its commands, verbs, files, code and tree."""

import ast
import doctest
import re
from pathlib import Path

import pytest

from reasoning_embedding.cli.main import VERBS, main
from reasoning_embedding.config import load_config

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    (kind, body) for kind, body in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
]
COMMANDS = [
    line.split("#")[0].split()
    for kind, body in BLOCKS
    if kind == "bash"
    for line in body.splitlines()
    if line.split("#")[0].strip()
]


def blocks(kind: str) -> list[str]:
    return [body for found, body in BLOCKS if found == kind]


def help_of(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert not caught.value.code
    return capsys.readouterr().out


def test_there_is_something_to_check():
    assert len(COMMANDS) >= 6
    assert blocks("yaml")
    assert blocks("python")
    assert blocks("")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_exist(words, capsys):
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    if words[0] in ("accelerate", "torchrun"):
        assert "-m reasoning_embedding" in " ".join(words)
        assert (ROOT / "reasoning_embedding" / "__main__.py").exists()
        words = ["rembed", *words[words.index("reasoning_embedding") + 1 :]]
    assert words[0] == "rembed"
    assert words[1] in VERBS
    text = help_of(capsys, *words[1 : 3 if words[1] in ("config", "runs", "data") else 2])
    for option in (word for word in words if word.startswith("--")):
        assert option in text


def test_the_table_lists_every_verb():
    assert sorted(re.findall(r"^\| `rembed (\w+)` \|", README, re.MULTILINE)) == sorted(VERBS)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_is_valid(text, tmp_path):
    (tmp_path / "readme.yaml").write_text(text)
    assert load_config(tmp_path / "readme.yaml").config.kind == "run"


@pytest.mark.parametrize("text", blocks("python"))
def test_python_imports_what_exists(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("reasoning_embedding"):
            path = ROOT / node.module.replace(".", "/")
            source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            defined = ast.parse(source.read_text(encoding="utf-8")).body
            names = {item.name for item in defined if isinstance(item, ast.FunctionDef | ast.ClassDef)}
            names |= {
                a.asname or a.name for item in defined if isinstance(item, ast.ImportFrom) for a in item.names
            }
            assert {alias.name for alias in node.names} <= names


@pytest.mark.parametrize("text", blocks("pycon"))
def test_examples_are_true(text):
    example = doctest.DocTestParser().get_doctest(text, {}, "README", "README.md", 0)
    assert doctest.DocTestRunner().run(example).failed == 0


def test_the_tree_is_the_tree():
    top, folders = "", {"reasoning_embedding": set(), "tests": set()}
    shown: dict[str, set[str]] = {key: set() for key in folders}
    for line in blocks("")[0].splitlines():
        name = line.split()[0].rstrip("/")
        if line.startswith("  "):
            shown[top].add(name)
        else:
            top = name
            assert (ROOT / name).is_dir(), name
    for key in folders:
        real = {path.name for path in (ROOT / key).iterdir() if path.is_dir() and any(path.rglob("*.py"))}
        assert shown[key] == real


def test_paths_that_the_text_names_exist():
    for path in re.findall(r"`((?:configs|tests|scripts|docs)/[\w./-]+)`", README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file(), path
