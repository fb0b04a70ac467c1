"""Every artifact names its content and its parents."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasoning_embedding.checkpoints import (
    content_hash,
    read_provenance,
    write_provenance,
)
from reasoning_embedding.checkpoints.provenance import ancestors
from reasoning_embedding.errors import InputError
from tests.publishing.published_run import write_checkpoint


def _model_folder(path: Path) -> Path:
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "config.json").write_text("{}")
    return path


def test_content_hash_follows_content_not_place(tmp_path: Path) -> None:
    first, second = _model_folder(tmp_path / "a"), _model_folder(tmp_path / "b")
    assert content_hash(first) == content_hash(second)
    write_provenance(first, kind="test", parent=None, step=3)
    assert content_hash(first) == content_hash(second)
    record = read_provenance(first)
    assert record is not None
    assert record["content_hash"] == content_hash(first)
    assert record["step"] == 3
    (second / "model.safetensors").write_bytes(b"weighty")
    assert content_hash(first) != content_hash(second)


def test_an_empty_folder_has_no_content_hash(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model files"):
        content_hash(tmp_path)


def test_lineage_is_followed_while_the_hashes_agree(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "lineage" / "base", kind="pretrain", parent=None)
    base_hash = (read_provenance(base) or {})["content_hash"]
    parent = {"path": str(base), "revision": None, "content_hash": base_hash}
    rlvr = write_checkpoint(tmp_path / "lineage" / "rlvr", kind="rlvr", parent=parent)
    # The path of the time of training no longer resolves; the experiment's own folder does.
    moved = {"path": "gone/rlvr", "content_hash": (read_provenance(rlvr) or {})["content_hash"]}
    found = list(ancestors({"parent": moved}, tmp_path / "lineage"))
    assert [(item.name, item.kind, item.depth) for item in found] == [
        ("rlvr", "rlvr", 1),
        ("base", "pretrain", 2),
    ]
    other = list(ancestors({"parent": {**moved, "content_hash": "0" * 64}}, tmp_path / "lineage"))
    assert [(item.name, item.kind) for item in other] == [("rlvr", "unknown")]
    random = list(ancestors({"parent": {"architecture": {"model_type": "llama"}, "seed": 0}}, None))
    assert [(item.name, item.kind) for item in random] == [("llama, random weights", "random")]


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text("{")
    with pytest.raises(InputError, match=r"provenance\.json:1: not JSON"):
        read_provenance(tmp_path)
