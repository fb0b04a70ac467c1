"""An output that could not be written is refused before the work, by every verb that has one."""

from __future__ import annotations

import json
import re
import shutil
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import reasoning_embedding
from reasoning_embedding.cli.main import VERBS, app
from reasoning_embedding.errors import InputError, SetupError
from reasoning_embedding.files import require_folder, require_output_file
from tests.factories import run_settings, write_lines
from tests.fresh_python import run_python

#: Verbs that write where they are told, each with its words; PLACE stands for the output. What they would read is not
#: there or takes minutes: whoever looks at it first fails otherwise than here.
FILES = {
    "embed": ["embed", "MODEL", "TEXTS", "-o", "PLACE"],
    "analyze": ["analyze", "MODEL", "MODEL", "-o", "PLACE"],
    "track": ["track", "MODEL", "-o", "PLACE"],
    "init": ["init", "ROWS", "MODEL", "-o", "PLACE"],
    "data mine": ["data", "mine", "ROWS", "-o", "PLACE", "--model", "MODEL"],
    "data filter": ["data", "filter", "ROWS", "-o", "PLACE", "--model", "MODEL"],
}
FOLDERS = {
    "train": ["train", "RUN", "output_dir=PLACE"],
    "experiment": ["experiment", "EXPERIMENT", "output_dir=PLACE"],
    "quickstart": ["quickstart", "output_dir=PLACE"],
    "sweep": ["sweep", "SWEEP", "output_dir=PLACE"],
    "merge": ["merge", "MERGE", "output_dir=PLACE"],
    "grow": ["grow", "LINEAGE", "output_dir=PLACE"],
    "evaluate": ["evaluate", "MODEL", "--task", "TASK", "-o", "PLACE"],
    "data stats": ["data", "stats", "ROWS", "-o", "PLACE"],
    "data prepare": ["data", "prepare", "RUN", "data.cache_dir=PLACE"],
    "publish": ["publish", "CHECKPOINT", "--repo", "me/it", "-o", "PLACE"],
}
#: Those that write nothing, or only into a folder that they have read.
OTHERS = {"plan", "config", "runs", "doctor", "report"}


@pytest.fixture
def words(tmp_path: Path, tiny_backbone: Path) -> dict[str, str]:
    rows = write_lines(tmp_path / "rows.jsonl", [{"query": "a", "pos": ["b"]}])
    data = {"sources": [{"kind": "files", "path": str(rows)}]}
    backbone = {"kind": "pretrained", "path": str(tiny_backbone)}
    run = run_settings(backbone=backbone, data=data)
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_backbone, checkpoint)
    (checkpoint / "modules.json").write_text("[]")
    documents: dict[str, Any] = {
        "RUN": run,
        "EXPERIMENT": {
            "kind": "experiment",
            "name": "e",
            "runs": [{"name": "a", "backbone": backbone}],
            "recipe": {"data": data},
        },
        "LINEAGE": {
            "kind": "lineage",
            "name": "l",
            "tokenizer": {"kind": "bpe", "vocab_size": 500},
            "stages": [
                {
                    "kind": "pretrain",
                    "name": "base",
                    "architecture": {},
                    "corpus": {"kind": "world"},
                    "learning_rate": 1e-3,
                    "steps": 1,
                    "batch_size": 1,
                }
            ],
        },
        "MERGE": {"kind": "merge", "name": "m", "models": ["x", "y"], "method": {"kind": "slerp", "t": 0.5}},
        "SWEEP": {"kind": "sweep", "name": "s", "base": str(tmp_path / "RUN.yaml"), "grid": {"seed": [0, 1]}},
    }
    for name, document in documents.items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps(document))
    (tmp_path / "TEXTS").write_text("a\n")
    return {
        **{name: str(tmp_path / f"{name}.yaml") for name in documents},
        "MODEL": str(tiny_backbone),
        "ROWS": str(rows),
        "TEXTS": str(tmp_path / "TEXTS"),
        "TASK": str(tmp_path),
        "CHECKPOINT": str(checkpoint),
    }


def refused(command: list[str], words: dict[str, str], place: Path, code: int) -> str:
    """What a verb says of an output that cannot be; nothing may be left, and no work be done."""
    before = sorted(place.parents[1].rglob("*")) if place.parents[1].exists() else []
    called = [words.get(word, word.replace("PLACE", str(place))) for word in command]
    started = time.monotonic()
    result = CliRunner().invoke(app, called)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == code, result.output
    assert (sorted(place.parents[1].rglob("*")) if place.parents[1].exists() else []) == before
    assert time.monotonic() - started < 20
    return result.output


def test_every_verb_is_tried() -> None:
    assert {name.split()[0] for name in (*FILES, *FOLDERS)} | OTHERS == set(VERBS)


@pytest.mark.parametrize("verb", FILES)
def test_a_file_in_a_folder_that_is_not_there(verb: str, words: dict[str, str], tmp_path: Path) -> None:
    said = refused(FILES[verb], words, tmp_path / "outputs" / "x.jsonl", 2)
    assert f"error: {tmp_path / 'outputs'}: no such folder\n  -> make it" in said


@pytest.mark.parametrize("verb", [*FILES, *FOLDERS])
def test_a_file_stands_where_a_folder_should_be(verb: str, words: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    command = FILES.get(verb) or FOLDERS[verb]
    said = refused(command, words, tmp_path / "taken" / "x.jsonl", 3)
    assert "a file stands where a folder should be" in said
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("verb", FOLDERS)
def test_a_folder_that_no_system_makes(verb: str, words: dict[str, str], tmp_path: Path) -> None:
    assert "too long" in refused(FOLDERS[verb], words, tmp_path / ("x" * 300) / "y", 2)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux only")
def test_a_folder_that_takes_no_other() -> None:
    """Where even the administrator may not write, so that the case is one for whoever runs the tests."""
    with pytest.raises(SetupError, match="cannot write"):
        require_folder(Path("/proc/x/y"))
    with pytest.raises(SetupError, match="cannot write"):
        require_output_file(Path("/proc/self/x.npy"))


def test_what_can_be_written_is_not_refused_and_nothing_is_left(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "a" / "b" / "c", Path("a"), Path(), tmp_path):
        require_folder(place)
    (tmp_path / "old").write_text("old")
    for place in (tmp_path / "new", Path("new"), tmp_path / "old"):
        require_output_file(place)
    assert [file.name for file in tmp_path.iterdir()] == ["old"]
    with pytest.raises(InputError, match="this is a folder"):
        require_output_file(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(SetupError, match="a file stands"):
        require_folder(tmp_path / "link" / "x")


def test_mteb_needs_no_folder_that_others_can_make(tmp_path: Path, monkeypatch: Any) -> None:
    """A fixed name in the shared temporary folder let anyone break everyone's evaluation."""
    temporary = tmp_path / "shared"
    temporary.mkdir()
    (temporary / "reasoning-embedding-mteb").write_text("planted")
    (tmp_path / "home").write_text("no folder")
    code = (
        "import os, reasoning_embedding.evaluation; cache = os.environ['MTEB_CACHE']; "
        "print(cache, os.stat(cache).st_mode)"
    )
    environment = {"HOME": str(tmp_path / "home"), "TMPDIR": str(temporary)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MTEB_CACHE", raising=False)
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    folder, mode = done.stdout.split()
    assert Path(folder).parent == temporary
    assert stat.S_IMODE(int(mode)) == 0o700
    assert not Path(folder).exists(), "it goes with the process"
    again = run_python(code)
    assert again.stdout.split()[0] != folder


def test_no_module_names_a_place_in_the_shared_temporary_folder() -> None:
    """``tempfile`` makes folders of its own names and of mode 0700; nothing else goes there."""
    package = Path(reasoning_embedding.__file__).parent
    for file in package.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"gettempdir|[\"']/tmp|mktemp\(", text), file
