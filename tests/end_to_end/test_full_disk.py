"""A disk that takes no more: every verb that writes ends with exit 3 and advice, and leaves nothing half-written.

In the suite a limit on the size of files refuses the writes (EFBIG); with ``SOAK_KILLS`` set, small file systems in
memory are filled as well where they can be mounted (ENOSPC).
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from reasoning_embedding import config
from reasoning_embedding.checkpoints import RunFolder
from reasoning_embedding.checkpoints.embedder import verify_content
from reasoning_embedding.cli._app import handled
from reasoning_embedding.data.mining import vectors
from reasoning_embedding.files import PARTIAL
from reasoning_embedding.training import train
from tests.processes import Forked, verb

#: Sizes of the file systems in kB: none of the verbs' outputs fits in the smallest, most of one fits in the largest.
SIZES = (40, 200, 600, 1200) if "SOAK_KILLS" in os.environ else ()


@pytest.fixture(scope="module")
def trained(small_run: Callable[..., dict], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("trained")
    settings = config.RunConfig.model_validate(small_run(folder))
    return train(settings, report=lambda line: None)


@pytest.fixture
def words(
    trained: RunFolder, rows: Path, write_run: Callable[..., Path], tmp_path: Path
) -> dict[str, Callable[[Path], list[object]]]:
    """The verbs that write, each with where to."""
    first, last = (trained.checkpoint(step) for step in (0, 6))
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"text {index}" for index in range(2000)))

    def merged(target: Path) -> list[object]:
        settings = {
            "kind": "merge",
            "name": "merged",
            "output_dir": str(target),
            "method": {"kind": "linear"},
        }
        path = tmp_path / "merge.yaml"
        path.write_text(json.dumps({**settings, "models": [str(first), str(last)]}))
        return ["merge", path]

    def published(target: Path) -> list[object]:
        return ["publish", trained.path, "--repo", "me/m", "-o", target / "out"]

    def reported(target: Path) -> list[object]:
        shutil.copytree(trained.path, target / "run", dirs_exist_ok=True)
        return ["report", target / "run"]

    def grown(target: Path) -> list[object]:
        sizes = (
            "hidden_size num_hidden_layers num_attention_heads num_key_value_heads intermediate_size".split()
        )
        stage = {
            "kind": "pretrain",
            "name": "base",
            "architecture": {
                **dict(zip(sizes, (32, 2, 2, 1, 64), strict=True)),
                "max_position_embeddings": 64,
            },
            "learning_rate": 3e-3,
            "steps": 4,
            "batch_size": 4,
            "sequence_length": 24,
            "corpus": {"kind": "world"},
        }
        settings = {
            "kind": "lineage",
            "name": "toy",
            "output_dir": str(target),
            "tokenizer": {"kind": "world"},
        }
        path = tmp_path / "lineage.yaml"
        path.write_text(json.dumps({**settings, "stages": [stage]}))
        return ["grow", path]

    return {
        "train": lambda target: ["train", write_run(), f"output_dir={target}"],
        "merge": merged,
        "embed": lambda target: ["embed", last, texts, "-o", target / "vectors.npy"],
        "mine": lambda target: ["data", "mine", rows, "-o", target / "rows.jsonl", "--model", last],
        "publish": published,
        "report": reported,
        "grow": grown,
    }


VERBS = ["train", "merge", "embed", "mine", "publish", "report", "grow"]


def check_whole(target: Path) -> None:
    """Whatever stands under its final name is whole."""
    for weights in target.rglob("model.safetensors"):
        if not any(PARTIAL in part for part in weights.parts):
            verify_content(weights.parent)


@pytest.mark.parametrize("name", VERBS)
def test_files_that_cannot_grow_end_in_advice(
    words: dict[str, Callable[[Path], list[object]]], tmp_path: Path, name: str
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    asked = words[name](target)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))
        verb(*asked)

    child = Forked(limited, tmp_path / "said.txt")
    code = child.wait()
    assert code == 3, f"{code}: {child.said}"
    assert "Traceback" not in child.said
    assert "error: " in child.said
    assert "cannot write: " in child.said
    assert "-> " in child.said.partition("error: ")[2]
    check_whole(target)
    assert not list(target.glob("merged/*.safetensors"))
    assert not list(target.glob("toy/lineage/*/*.safetensors"))
    assert not (target / "vectors.npy").exists()
    assert not (target / "rows.jsonl").exists()


@pytest.mark.parametrize("name", ["train", "merge", "embed", "mine", "publish", "report", "grow"])
def test_too_little_space_is_said_before_the_work(
    words: dict[str, Callable[[Path], list[object]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    asked = words[name](target)
    before = set(target.rglob("*"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    child = Forked(lambda: verb(*asked), tmp_path / "said.txt")
    assert child.wait() == 3, child.said
    assert "the disk has 1 kB free, and " in child.said
    assert (
        not {path for path in target.rglob("*") if path.suffix in (".safetensors", ".npy", ".html")} - before
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        target = tmp_path / f"disk-{size}"
        target.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(target)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("no file system can be mounted here")
        mounted.append(target)
        return target

    yield mount
    for target in mounted:
        subprocess.run(["umount", str(target)], check=False)


@pytest.mark.slow
@pytest.mark.skipif(not SIZES, reason="part of `make soak`")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("checked", [True, False], ids=["space looked at", "space not looked at"])
@pytest.mark.parametrize("name", VERBS)
def test_a_disk_that_runs_full(
    words: dict[str, Callable[[Path], list[object]]],
    small_disk: Callable[[int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    size: int,
    checked: bool,
) -> None:
    """The check of the space is turned off too: then the disk runs full amid the work, at another place each size."""
    target = small_disk(size)
    try:
        asked = words[name](target)
    except shutil.Error:
        pytest.skip("the run itself does not fit")
    if not checked:
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**15))
    child = Forked(lambda: verb(*asked), tmp_path / "said.txt")
    code = child.wait()
    assert code in (0, 3), f"{code}: {child.said}"
    assert "Traceback" not in child.said
    if code:
        assert "-> " in child.said.partition("error: ")[2]
    check_whole(target)


@pytest.mark.slow
@pytest.mark.skipif(not SIZES, reason="part of `make soak`")
def test_mapped_vectors_have_their_blocks_before_they_are_written(
    small_disk: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without blocks, a full disk ends a process that writes to a mapped file with SIGBUS, and no word."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**15))
    texts = [("", str(index)) for index in range(5000)]
    disk = small_disk(200)

    def embed() -> None:
        with handled():
            vectors.embed_texts(
                disk / "vectors",
                "texts",
                texts,
                lambda part, prompt: np.ones((len(part), 32), np.float32),
                lambda line: None,
            )

    child = Forked(embed, tmp_path / "said.txt")
    assert child.wait() == 3, child.said
    assert "the disk is full" in child.said
    shutil.rmtree(disk / "vectors")
    monkeypatch.setattr(vectors, "_allocate", lambda file: None)

    def unguarded() -> None:
        faulthandler.disable()
        embed()

    assert Forked(unguarded, tmp_path / "said.txt").wait() == -signal.SIGBUS, "the control"
