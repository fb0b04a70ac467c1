"""Speed of packed encoding against ``SentenceTransformer.encode`` at its best batch size."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import (
    REPEATS,
    cpu_ratio,
    cpu_seconds,
    in_new_process,
    peak_mib,
    take_turns,
    timed,
    wall_seconds,
)
from benchmarks.random_model import byte_pair_tokenizer, save_random_model
from reasoning_embedding import config
from reasoning_embedding.backbones import compute_dtype
from reasoning_embedding.checkpoints.embedder import load_embedder
from reasoning_embedding.data.beir import read_beir
from reasoning_embedding.errors import InputError
from reasoning_embedding.progress import Report

Encode = Callable[[Sequence[str]], np.ndarray]

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
PACK_TOKENS = (512, 1024, 2048, 4096, 16384)
CORPORA = ("cranfield", "cisi", "cosqa_dev")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MAX_TOKENS = 512
_ARCHITECTURE = config.Architecture(intermediate_size=1024, max_position_embeddings=MAX_TOKENS)


def bench_encode(*, quick: bool = False, report: Report = lambda line: None) -> Iterator[dict[str, Any]]:
    """Compare both encoders on the same checkpoint, texts, dtype, device and threads.

    Parameters
    ----------
    quick : bool
        One corpus of 60 texts in the place of three of up to 1000, and every other setting.
    report : callable
        Takes a line of progress.

    Yields
    ------
    dict
        One for each corpus and dtype: ``name``, ``ours`` and ``other`` in ``unit``, their ``ratio``,
        ``memory_ratio`` (other over ours), ``cpu_ratio`` (of processor time, for busy machines), both sides' best settings,
        and all timings.

    Raises
    ------
    InputError
        If ``REASONING_EMBEDDING_DATA`` names a folder without the corpora.

    Notes
    -----
    The model is a bidirectional Qwen3 of 4 layers and width 256 with random weights: speed does not depend
    on what they are. Each side's own knob is swept in the same process first (batch size for
    sentence-transformers, which sorts by length too; tokens of a pack for ours), and its fastest value is
    timed; then the sides take turns, and the median of three counts. Tokenization is inside the time. A CPU
    without bf16 products is compared in fp32 alone: in software the other side takes a minute for a page.
    """
    for corpus, texts in _corpora(60 if quick else 1000, quick=quick):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "checkpoint"
            tokens = _make_checkpoint(checkpoint, texts)
            report(f"{corpus}: {len(texts)} texts, {tokens} tokens")
            for dtype in DTYPES:
                if dtype == "bf16" and compute_dtype(dtype, _device()) is None:
                    report(f"{corpus} {dtype}: left out, this processor has no such products")
                    continue
                yield _compare(corpus, checkpoint, texts, tokens, dtype, report, every=2 if quick else 1)


def _compare(
    corpus: str, checkpoint: Path, texts: list[str], tokens: int, dtype: str, report: Report, *, every: int
) -> dict[str, Any]:
    sides: dict[str, dict[int, Encode]] = {
        "ours": _ours(checkpoint, dtype, PACK_TOKENS[::every]),
        "other": _sentence_transformers(checkpoint, dtype, BATCH_SIZES[::every]),
    }
    sweeps: dict[str, dict[int, float]] = {}
    best: dict[str, int] = {}
    embeddings: dict[str, np.ndarray] = {}
    for side, encoders in sides.items():
        next(iter(encoders.values()))(texts[:16])  # first calls allocate and compile
        sweeps[side] = {}
        for value, encode in encoders.items():
            seconds, embeddings[side] = timed(partial(encode, texts))
            sweeps[side][value] = round(float(seconds[0]), 4)
        best[side] = min(sweeps[side], key=lambda value: sweeps[side][value])
        report(f"{corpus} {dtype} {side}: fastest at {best[side]}, {sweeps[side][best[side]]:.2f} s")
    turns = take_turns(
        {side: partial(timed, partial(encoders[best[side]], texts)) for side, encoders in sides.items()},
        repeats=REPEATS,
    )
    times = {side: [seconds for seconds, _ in found] for side, found in turns.items()}
    seconds = {side: wall_seconds(found) for side, found in times.items()}
    speed = {side: tokens / statistics.median(values) for side, values in seconds.items()}
    sides.clear()
    memory = {side: _peak_memory(side, checkpoint, texts, dtype, value) for side, value in best.items()}
    result = {
        "name": f"encode/{corpus}/st-best/{dtype}",
        "ours": round(speed["ours"], 1),
        "other": round(speed["other"], 1),
        "ratio": round(speed["ours"] / speed["other"], 4),
        "unit": "tokens/s",
        "memory_ratio": round(memory["other"] / memory["ours"], 4),
        "peak_mib": memory,
        "seconds": seconds,
        "cpu_ratio": cpu_ratio(times["ours"], times["other"]),
        "cpu_seconds": {side: cpu_seconds(found) for side, found in times.items()},
        "settings": {"pack_tokens": best["ours"], "batch_size": best["other"], "max_tokens": MAX_TOKENS},
        "sweeps": sweeps,
        "texts": len(texts),
        "tokens": tokens,
        "largest_difference": float(np.abs(embeddings["ours"] - embeddings["other"]).max()),
    }
    report(f"{result['name']}: ratio {result['ratio']:.2f}")
    return result


def _ours(checkpoint: Path, dtype: str, values: Sequence[int]) -> dict[int, Encode]:
    embedder = load_embedder(checkpoint).to(_device(), DTYPES[dtype]).eval()

    def encoder(pack_tokens: int) -> Encode:
        return lambda texts: embedder.encode(texts, max_tokens=MAX_TOKENS, pack_tokens=pack_tokens)

    return {value: encoder(value) for value in values}


def _sentence_transformers(checkpoint: Path, dtype: str, values: Sequence[int]) -> dict[int, Encode]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(checkpoint), device=str(_device()), model_kwargs={"dtype": DTYPES[dtype]})
    model.max_seq_length = MAX_TOKENS

    def encoder(batch_size: int) -> Encode:
        # numpy has no bfloat16: sentence-transformers converts to float32 itself.
        return lambda texts: np.asarray(
            model.encode(list(texts), batch_size=batch_size, show_progress_bar=False)
        )

    return {value: encoder(value) for value in values}


def _peak_memory(side: str, checkpoint: Path, texts: list[str], dtype: str, value: int) -> float:
    """Return the peak memory, MiB, of a fresh process that loads the model and encodes once."""
    return in_new_process(_encode_alone, side, checkpoint, texts, dtype, value)


def _encode_alone(side: str, checkpoint: Path, texts: list[str], dtype: str, value: int) -> float:
    make = _ours if side == "ours" else _sentence_transformers
    make(checkpoint, dtype, [value])[value](texts)
    return peak_mib()


def _corpora(limit: int, *, quick: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield (name, texts) of local corpora, or of one made of random words where there are none."""
    data = os.environ.get("REASONING_EMBEDDING_DATA")
    if not data:
        yield "generated", _generated(limit)
        return
    for name in CORPORA[:1] if quick else CORPORA:
        folder = Path(data) / "derived" / "beir" / name
        if not folder.is_dir():
            raise InputError("no such corpus", where=str(folder), todo="unset REASONING_EMBEDDING_DATA")
        yield name, list(read_beir(folder).corpus.values())[:limit]


def _generated(count: int) -> list[str]:
    """Texts of random words whose lengths are spread as those of abstracts are."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("etaoinshrdlu"), rng.integers(2, 9))) for _ in range(3000)]
    lengths = np.clip(rng.lognormal(4.9, 0.6, count), 5, 400).astype(int)
    ranks = rng.zipf(1.3, int(lengths.sum())) % len(words)
    picked = iter(ranks)
    return [" ".join(words[next(picked)] for _ in range(length)) for length in lengths]


def _make_checkpoint(folder: Path, texts: list[str]) -> int:
    """Write an embedder of random weights with a tokenizer of the texts; return the tokens of all of them."""
    tokenizer = byte_pair_tokenizer(texts)
    save_random_model(folder, _ARCHITECTURE, tokenizer, max_tokens=MAX_TOKENS)
    cut = tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    return sum(len(ids) for ids in cut)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
