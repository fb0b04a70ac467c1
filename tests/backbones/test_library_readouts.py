"""Every readout gives the vectors of sentence-transformers, one text at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reasoning_embedding.backbones.embedder import Embedder
from reasoning_embedding.checkpoints.embedder import load_embedder, save_checkpoint
from reasoning_embedding.errors import SetupError
from tests.library_models import PROMPTS, TEXTS, write_library_model

#: What differs from a causal Qwen3 with mean pooling, and the readout that is read.
READOUTS: dict[str, tuple[dict[str, Any], str]] = {
    "causal mean": ({}, "causal, mean, prompt in"),
    "bidirectional mean, prompt out, limit 96": (
        {"bidirectional": True, "include_prompt": False, "max_seq_length": 96},
        "bidirectional, mean, prompt out",
    ),
    "causal last with an end token, padded left": (
        {"pooling": "last", "end_token": True, "padding_side": "left", "default_prompt_name": "query"},
        "causal, last token, end token",
    ),
    "causal weighted mean, prompt out, padded left": (
        {"pooling": "weighted_mean", "include_prompt": False, "padding_side": "left"},
        "causal, weighted mean, prompt out",
    ),
    "bidirectional first, prompt out": (
        {"pooling": "first", "include_prompt": False, "bidirectional": True},
        "bidirectional, first token, prompt out",
    ),
    "bidirectional first, prompt in, llama": (
        {"pooling": "first", "bidirectional": True, "model_type": "llama"},
        "bidirectional, first token, prompt in",
    ),
    "two heads": (
        {"bidirectional": True, "heads": [(48, "Tanh"), (20, "Identity")]},
        "bidirectional, mean, prompt in, head 32 to 48 (tanh), head 48 to 20 (identity)",
    ),
    "gemma by its own switch, windows of 8": (
        {
            "model_type": "gemma3_text",
            "use_bidirectional_attention": True,
            "sliding_window": 14,
            "layer_types": ["sliding_attention", "full_attention"],
            "pooling": "weighted_mean",
        },
        "bidirectional, weighted mean, prompt in",
    ),
    "causal gemma, windows of 8": (
        {
            "model_type": "gemma3_text",
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "pooling": "last",
        },
        "causal, last token",
    ),
}


def one_by_one(folder: Path, **options: Any) -> np.ndarray:
    """Vectors of sentence-transformers, each text alone: the reference."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return np.concatenate([model.encode([text], normalize_embeddings=True, **options) for text in TEXTS])


#: What others stand for in the default tests.
SLOW = ("causal mean", "bidirectional first, prompt in, llama", "causal gemma, windows of 8")


def keeps_its_window() -> bool:
    from transformers import Gemma3TextConfig

    text = Gemma3TextConfig(use_bidirectional_attention=True, sliding_window=14)
    return Gemma3TextConfig.from_dict(text.to_dict()).sliding_window == text.sliding_window


def test_a_library_that_narrows_windows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Gemma3TextConfig, PreTrainedConfig

    folder = write_library_model(
        tmp_path / "model", model_type="gemma3_text", use_bidirectional_attention=True, sliding_window=14
    )
    monkeypatch.setattr(Gemma3TextConfig, "to_dict", PreTrainedConfig.to_dict)  # as older versions do
    with pytest.raises(SetupError, match="halves this model's attention window") as caught:
        load_embedder(folder)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[pytest.mark.slow] if what in SLOW else []) for what in READOUTS]
)
def test_vectors_are_those_of_the_library_and_of_the_export(tmp_path: Path, what: str) -> None:
    changes, words = READOUTS[what]
    folder = write_library_model(tmp_path / "model", **changes)
    if changes.get("use_bidirectional_attention") and not keeps_its_window():
        with pytest.raises(SetupError, match="halves this model's attention window"):
            load_embedder(folder)
        pytest.skip("this version of transformers narrows the window at every save")
    embedder = load_embedder(folder)
    assert str(embedder.readout) == words
    assert embedder.prompts == PROMPTS
    assert embedder.max_tokens == changes.get("max_seq_length", 512)
    expected = {name: one_by_one(folder, prompt_name=name) for name in PROMPTS}
    expected[""] = one_by_one(folder)
    assert np.abs(expected["query"] - expected["document"]).max() > 1e-2
    for name, vectors in expected.items():
        chosen = {"prompt_name": name} if name else {}
        np.testing.assert_allclose(embedder.encode(TEXTS, **chosen), vectors, atol=2e-6)

    # Saved by us, it is the same model to the library and to us.
    save_checkpoint(tmp_path / "export", embedder, parent=None)
    again = load_embedder(tmp_path / "export")
    assert (again.readout, again.max_tokens) == (embedder.readout, embedder.max_tokens)
    np.testing.assert_array_equal(again.encode(TEXTS), embedder.encode(TEXTS))
    np.testing.assert_allclose(
        one_by_one(tmp_path / "export", prompt_name="query"), expected["query"], atol=2e-6
    )
    np.testing.assert_allclose(one_by_one(tmp_path / "export"), expected[""], atol=2e-6)

    # A control: any other pooling, direction or prompt rule is seen.
    for other in ("mean", "last", "weighted_mean", "first"):
        if other != embedder.readout.pooling:
            readout = replace(embedder.readout, pooling=other)
            wrong = Embedder(embedder.model, embedder.tokenizer, readout)
            wrong.heads = embedder.heads
            ours = wrong.encode(TEXTS[1:], prompt=PROMPTS["query"])
            assert np.abs(ours - expected["query"][1:]).max() > 1e-3
