"""Small run folders to publish: every file of a checkpoint, with weights that nothing loads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints import RunFolder, content_hash, write_provenance
from reasoning_embedding.checkpoints.scores import revision_of
from reasoning_embedding.files import write_json

PROMPT = "Instruct: find the answer\nQuery: "


def write_modules(folder: Path, **pooling: Any) -> None:
    """The small files that make a folder an embedder with mean pooling, the prompt left out."""
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"library.{kind}"}
        for place, (kind, path) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    write_json(
        folder / "1_Pooling" / "config.json", {"pooling_mode": "mean", "include_prompt": False} | pooling
    )


def write_checkpoint(
    folder: Path, *, step: int | None = None, prompts: dict[str, str] | None = None, **provenance: Any
) -> Path:
    """A checkpoint whose weights differ by step and cannot be loaded."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(hashlib.sha256(str(step).encode()).digest() * 100)
    write_json(
        folder / "config.json",
        {
            "model_type": "qwen3",
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "is_causal": False,
            "dtype": "float32",
        },
    )
    write_json(folder / "tokenizer_config.json", {"model_max_length": 64})
    write_modules(folder)
    named = {"query": PROMPT, "document": ""} if prompts is None else prompts
    write_json(folder / "config_sentence_transformers.json", {"prompts": named})
    details = {"run": "small", "step": step} if step is not None else {}
    write_provenance(
        folder,
        **{"kind": "contrastive", "parent": {"path": "Qwen/Qwen3-0.6B-Base", "revision": "abc"}}
        | details
        | provenance,
    )
    return folder


def write_run(
    folder: Path, steps: tuple[int, ...] = (0, 3, 6), settings: dict[str, Any] | None = None
) -> RunFolder:
    """A run's folder with checkpoints, settings and scores."""
    run = RunFolder(folder)
    for step in steps:
        write_checkpoint(run.checkpoint(step), step=step)
        write_json(
            run.evaluation / f"step-{step:06d}" / "scores.json",
            {
                "model": "small",
                "revision": revision_of(step, content_hash(run.checkpoint(step))),
                "step": step,
                "tasks": [{"task": "own", "type": "Retrieval", "main_score": 0.5 + step / 100}],
                "failed": [],
            },
        )
    sources = [
        {"kind": "hub", "dataset": "lab/pairs", "license": "mit"},
        {"kind": "files", "path": "/srv/me/x.jsonl"},
    ]
    write_json(
        run.config_json,
        {"kind": "run", "name": "small", "seed": 1, "data": {"sources": sources}, "training": {"steps": 6}}
        | (settings or {}),
    )
    write_json(run.manifest, {"steps": 6, "rows": 40})
    return run


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
