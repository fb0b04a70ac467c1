"""Ranks that share the texts measure what one rank measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from reasoning_embedding import config
from reasoning_embedding.distributed import World
from reasoning_embedding.distributed.harness import run_ranks
from reasoning_embedding.hrsa import capture as activations
from reasoning_embedding.hrsa import instrument as instrument_module
from reasoning_embedding.hrsa.instrument import Checkpoint, Instrument
from reasoning_embedding.hrsa.pair import Comparison
from reasoning_embedding.hrsa.probes import load_probe

LINES = [
    f"the {kind} {animal} runs by the {place}"
    for kind in ("red", "old", "big")
    for animal in ("dog", "cat", "fox", "bird")
    for place in ("sea", "road")
]


def _measure(world: World, folder: Path, probe: Path, streaming: str) -> dict[str, list]:
    settings = config.Analysis.model_validate(
        {
            "probe": {"kind": "text", "path": str(probe)},
            "max_rows": 100,
            "k": [5],
            "streaming": streaming,
        }
    )
    # Several packs, of which the ranks get uneven numbers.
    read = activations.read
    instrument_module.read = lambda *given, **named: read(*given, **{"pack_tokens": 40, **named})
    measured = Instrument(load_probe(settings.probe), settings, world=world, report=lambda line: None)
    a = measured.open(Checkpoint(folder, "a"))
    b = measured.open(Checkpoint(folder.parent / "b", "b"), like=a)
    pair = Comparison(measured.states(a, b), measured.probe, settings, every_interval=False)
    return {name: pair.values(name) for name in pair.names} | {"n": [pair.n]}


def test_two_ranks_measure_what_one_does(tmp_path: Path, tiny_backbone: Path) -> None:
    other = tmp_path / "b"
    (tmp_path / "a").symlink_to(tiny_backbone)
    torch.manual_seed(5)
    settings = Qwen3Config.from_pretrained(tiny_backbone)
    Qwen3ForCausalLM(settings).save_pretrained(other)
    for file in tiny_backbone.glob("tokenizer*"):
        (other / file.name).write_bytes(file.read_bytes())
    probe = tmp_path / "probe.txt"
    probe.write_text("\n".join(LINES))
    for streaming in ("never", "always"):
        found = run_ranks(2, _measure, tmp_path / "a", probe, streaming)
        [alone] = run_ranks(1, _measure, tmp_path / "a", probe, streaming)
        assert found[0].keys() == alone.keys()
        for name, values in alone.items():
            # A dozen words do not determine the embedding layer's Procrustes map in 32 dimensions.
            first = 1 if name.startswith(("h_inv", "procrustes")) else 0
            for rank in found:
                assert np.allclose(rank[name][first:], values[first:], atol=1e-4), (streaming, name)
        rows = alone["n"][0]
        assert rows > 100 if streaming == "always" else rows == 100
