"""Tiny embedders to merge, on disk as a run leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from reasoning_embedding.backbones import Embedder, Readout, load_decoder
from reasoning_embedding.checkpoints.embedder import save_checkpoint

PROMPTS = {"query": "Instruct: find the answer\nQuery: ", "document": ""}


def save_embedder(
    backbone: Path,
    folder: Path,
    *,
    seed: int = 0,
    change: float = 0.3,
    causal: bool = False,
    include_prompt: bool = False,
    prompts: dict[str, str] | None = None,
    edit: Any = None,
) -> Path:
    """Write a sibling of `backbone`: each tensor moved by `change` times its own deviation, drawn with `seed`."""
    model, tokenizer = load_decoder(str(backbone), bidirectional=not causal)
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            size = max(float(parameter.std()), 0.05)
            parameter.add_(change * size * torch.randn(parameter.shape, generator=chance))
    if edit is not None:
        edit(model, tokenizer)
    readout = Readout("causal" if causal else "bidirectional", include_prompt=include_prompt)
    embedder = Embedder(model, tokenizer, readout, prompts or PROMPTS)
    step = int(folder.name.partition("-")[2] or 0)
    save_checkpoint(folder, embedder, max_tokens=64, parent=None, run=folder.parent.parent.name, step=step)
    return folder
