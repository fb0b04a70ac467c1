"""Real models from one end to the other: their vectors and scores are sentence-transformers' own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoning_embedding.backbones import Embedder
from reasoning_embedding.checkpoints.embedder import save_checkpoint
from reasoning_embedding.checkpoints.models import open_embedder
from reasoning_embedding.checkpoints.references import resolve

Rembed = Callable[..., Any]

TEXTS = [
    "a cat",
    "!",
    "Wer hat das gesagt? \u732b\u304c\u597d\u304d\u3067\u3059\u3002 def add(a, b): return a + b",
    "The river runs past the old stone house, and 12 times 12 is 144. " * 3 + "end",
    "The river runs past the old stone house, and 12 times 12 is 144. " * 12 + "end",
    "The river runs past the old stone house, and 12 times 12 is 144. " * 40 + "end",
]
PROMPTS = {"query": "Instruct: find the passage\nQuery: ", "document": ""}


def _library(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def _alone(library: Any, limit: int | None, prompt: str) -> np.ndarray:
    """Vectors of sentence-transformers, each text by itself: the reference."""
    own = library.max_seq_length
    library.max_seq_length = limit or own
    found = [library.encode([text], prompt=prompt, normalize_embeddings=True) for text in TEXTS]
    library.max_seq_length = own
    return np.concatenate(found)


def _embedded(rembed: Rembed, model: Path, folder: Path, limit: int | None, prompt: str) -> np.ndarray:
    """The same by the command line."""
    texts = folder / "texts.txt"
    texts.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    output = folder / f"{limit}-{len(prompt)}.npy"
    options = [] if limit is None else ["--max-tokens", limit]
    rembed("embed", model, texts, "-o", output, "--prompt", prompt, *options)
    return np.load(output)


@pytest.mark.slow
def test_minilm_has_the_librarys_vectors_at_its_own_limit_and_at_96_and_512(
    real_models: Path, rembed: Rembed, tmp_path: Path
) -> None:
    model, found = real_models / "minilm", {}
    library = _library(model)
    for limit in (None, 96, 512):
        found[limit] = _embedded(rembed, model, tmp_path, limit, "")
        np.testing.assert_allclose(found[limit], _alone(library, limit, ""), atol=2e-6)
    assert open_embedder(resolve(str(model)), report=print).max_tokens == 256
    for one, other in ((None, 96), (None, 512), (96, 512)):  # the limit is felt by long texts alone
        assert np.abs(found[one] - found[other])[:3].max() < 2e-6
        assert np.abs(found[one] - found[other])[-1].max() > 1e-3


#: A language model, how it is read out, and the file of its readout.
READOUTS = {
    "smollm2, bidirectional mean": ("smollm2-135m-instruct", {}),
    "smollm2, causal last": ("smollm2-135m-instruct", {"attention": "causal", "pooling": "last"}),
    "gemma, bidirectional mean": ("gemma-3-270m", {}),
    "gemma, causal last": ("gemma-3-270m", {"attention": "causal", "pooling": "last"}),
}


def _export(real_models: Path, name: str, readout: dict[str, Any], folder: Path) -> Embedder:
    """A backbone as the embedder of step 0 of a run, saved as a checkpoint and then somebody else's folder."""
    from reasoning_embedding import config
    from reasoning_embedding.backbones import build_embedder, run_readout

    backbone = config.PretrainedBackbone(path=str(real_models / name))
    chosen = run_readout(config.ReadoutSettings.model_validate(readout), backbone)
    embedder = build_embedder(backbone, chosen, seed=0, prompts=PROMPTS, max_tokens=512)
    save_checkpoint(folder, embedder, max_tokens=512, parent=None)
    (folder / "provenance.json").unlink()
    return embedder


@pytest.mark.slow
@pytest.mark.parametrize("what", READOUTS)
def test_a_decoders_export_has_the_librarys_vectors_at_96_and_512(
    real_models: Path, tmp_path: Path, what: str
) -> None:
    """By the packed forward, within ten times the rounding noise of the library; another pooling is far away."""
    name, readout = READOUTS[what]
    folder = tmp_path / "model"
    embedder = _export(real_models, name, readout, folder)
    said: list[str] = []
    opened = open_embedder(resolve(str(folder)), report=said.append)
    assert isinstance(opened, Embedder), said
    library = _library(folder)
    for limit in (96, 512):
        for prompt in PROMPTS.values():
            expected, ours = (
                _alone(library, limit, prompt),
                opened.encode(TEXTS, prompt=prompt, max_tokens=limit),
            )
            # "!" grows together with the space that ends the prompt: the library pools nothing and gives zeros, the
            # packed forward its last token.
            pooled = np.linalg.norm(expected, axis=1) > 0.5
            assert pooled.sum() >= len(TEXTS) - 1
            np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
            library.max_seq_length = limit
            together = library.encode(TEXTS, prompt=prompt, normalize_embeddings=True)
            noise = max(1e-6, float(np.abs(together - expected).max()))
            difference = float(np.abs(ours - expected)[pooled].max())
            print(
                f"{what}, {limit} tokens, prompt {prompt!r}: difference {difference:.1e}, noise {noise:.1e}"
            )
            assert difference <= 10 * noise
    other = "mean" if embedder.readout.pooling == "last" else "last"
    wrong = Embedder(embedder.model, embedder.tokenizer, replace(embedder.readout, pooling=other))
    assert np.abs(wrong.encode(TEXTS[2:4], prompt="") - _alone(library, 512, "")[2:4]).max() > 1e-3


@pytest.mark.slow
def test_minilm_has_its_published_scores_by_the_command_line(
    real_models: Path, real_data: Path, rembed: Rembed, tmp_path: Path
) -> None:
    """82.03 on STSBenchmark as published, and cranfield at its own limit of 256 tokens and at 512."""
    for limit, cranfield in ((None, 0.50585), (512, 0.50331)):
        output = tmp_path / str(limit)
        options = [] if limit is None else ["--max-tokens", limit]
        tasks = [
            "-t",
            real_data / "stsb" / "stsb-en-test.csv",
            "-t",
            real_data / "derived" / "beir" / "cranfield",
        ]
        rembed("evaluate", real_models / "minilm", *tasks, "-o", output, *options)
        scores = json.loads((output / "scores.json").read_text())
        found = {entry["task"]: entry["main_score"] for entry in scores["tasks"]}
        assert found == pytest.approx({"cranfield": cranfield, "stsb-en-test": 0.82032}, abs=2e-5)
        assert scores["settings"]["max_tokens"] == (limit or 256)
