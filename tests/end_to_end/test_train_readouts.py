"""Runs of every readout: exported as sentence-transformers gives it, resumed, inherited from an embedder, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reasoning_embedding.checkpoints import RunFolder, read_provenance
from reasoning_embedding.checkpoints.embedder import load_embedder
from tests.factories import write_tiny_bert
from tests.library_models import PROMPTS, TEXTS, write_library_model

Write = Callable[..., Path]
Rembed = Callable[..., Any]
#: A readout that differs from the default in every word.
CAUSAL = {
    "attention": "causal",
    "pooling": "last",
    "include_prompt": True,
    "heads": [{"out_features": 24, "activation": "tanh"}, {"out_features": 16, "bias": False}],
    "prompts": {
        "query": "find : ",
        "document": "on ",
        "sources": {"rows": {"query": "who : "}},
        "named": {"other": "what "},
    },
}
SAID = "causal, last token, end token, head 32 to 24 (tanh), head 24 to 16 (identity)"


def _library(folder: Path, **options: Any) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return np.concatenate([model.encode([text], **options) for text in TEXTS])


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of a checkpoint, heads included."""
    files = sorted(folder.glob("**/model.safetensors"))
    return {f"{file.parent.name} {name}": value for file in files for name, value in load_file(file).items()}


def test_a_run_of_another_readout_is_the_librarys_model_and_resumes(
    write_run: Write, rembed: Rembed, tmp_path: Path
) -> None:
    said = rembed("train", write_run("whole", {"readout": CAUSAL}, memory="replay")).output
    assert f"readout: {SAID}" in said
    run = RunFolder(tmp_path / "runs" / "whole")
    folder, record = run.checkpoint(6), read_provenance(run.checkpoint(6))
    assert record is not None
    assert (record["readout"], record["inherited"], record["overridden"]) == (SAID, False, {})
    assert json.loads(run.manifest.read_text())["readout"]["readout"] == SAID

    # The library appends the same end token, reads the same token and has the same heads and prompts.
    ours = load_embedder(folder)
    assert str(ours.readout) == SAID
    assert ours.prompts == {"rows": "who : ", "query": "find : ", "document": "on ", "other": "what "}
    for name in ours.prompts:
        np.testing.assert_allclose(
            _library(folder, prompt_name=name), ours.encode(TEXTS, prompt_name=name), atol=2e-6
        )
    assert ours.dimension == 16
    first, last = _tensors(run.checkpoint(0)), _tensors(folder)
    for name in ("2_Dense linear.weight", "2_Dense linear.bias", "3_Dense linear.weight"):
        assert (first[name] - last[name]).abs().max() > 1e-4, name

    # Plain transformers has the same states: the last one, after the end token that the tokenizer appends.
    from transformers import AutoModel, AutoTokenizer

    decoder = AutoModel.from_pretrained(folder)
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS[1], return_tensors="pt")
    assert batch["input_ids"][0, -1] == ours.tokenizer.eos_token_id
    with torch.no_grad():
        state = decoder(batch["input_ids"]).last_hidden_state[:, -1]
        vector = torch.nn.functional.normalize(ours.heads(state), dim=-1)
    np.testing.assert_allclose(vector.numpy(), ours.encode([TEXTS[1]]), atol=2e-6)

    # Stopped and gone on with, it is the run that was never stopped; in memory, too.
    rembed("train", write_run("again", {"readout": CAUSAL}, memory="replay"))
    again = RunFolder(tmp_path / "runs" / "again")
    shutil.rmtree(again.checkpoint(6))
    shutil.rmtree(again.state(6))
    rembed("train", tmp_path / "again.yaml", "--resume")
    resumed = _tensors(again.checkpoint(6))
    assert resumed.keys() == last.keys()
    for name, value in last.items():
        assert torch.equal(resumed[name], value), name
    other = json.loads((tmp_path / "again.yaml").read_text())
    other["readout"]["heads"].pop()
    (tmp_path / "again.yaml").write_text(json.dumps(other))
    refused = rembed("train", tmp_path / "again.yaml", "--resume", code=2).output
    assert "readout.heads" in refused


@pytest.mark.parametrize(
    ("readout", "said"),
    [
        ({"pooling": "first"}, "bidirectional, first token, prompt out"),
        ({"pooling": "first", "include_prompt": True}, "bidirectional, first token, prompt in"),
        ({"pooling": "weighted_mean"}, "bidirectional, weighted mean, prompt out"),
        (
            {"pooling": "weighted_mean", "attention": "causal", "include_prompt": True},
            "causal, weighted mean, prompt in",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_first_token_and_the_weighted_mean_are_trained_and_exported(
    write_run: Write, rembed: Rembed, tmp_path: Path, readout: dict[str, Any], said: str
) -> None:
    prompts = {"query": "find : ", "document": "on "}
    output = rembed("train", write_run("run", {"readout": {**readout, "prompts": prompts}}, steps=3)).output
    assert f"readout: {said}" in output
    run = RunFolder(tmp_path / "runs" / "run")
    ours = load_embedder(run.checkpoint(3))
    assert str(ours.readout) == said
    for name in prompts:
        np.testing.assert_allclose(
            _library(run.checkpoint(3), prompt_name=name), ours.encode(TEXTS, prompt_name=name), atol=2e-6
        )
    # The control: the mean of the same weights is another model.
    mean = replace(ours.readout, pooling="mean")
    assert mean != ours.readout
    ours.readout = mean
    assert np.abs(_library(run.checkpoint(3))[1:] - ours.encode(TEXTS[1:])).max() > 1e-3


def test_an_embedder_is_adapted_by_its_own_readout(write_run: Write, rembed: Rembed, tmp_path: Path) -> None:
    embedder = write_library_model(
        tmp_path / "embedder",
        pooling="weighted_mean",
        include_prompt=False,
        heads=[(20, "Tanh")],
        default_prompt_name="document",
        padding_side="left",
    )
    backbone = {"backbone": {"kind": "pretrained", "path": str(embedder)}}
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0}
    said = rembed("train", write_run("adapted", backbone, lora=lora, steps=3)).output
    own = "causal, weighted mean, prompt out, head 32 to 20 (tanh)"
    assert f"readout of {embedder}: {own}" in said
    run = RunFolder(tmp_path / "runs" / "adapted")
    # Before its first step it is the embedder itself, and afterwards heads have learnt beside the adapters.
    start, end = load_embedder(run.checkpoint(0)), load_embedder(run.checkpoint(3))
    assert start.prompts["document"] == PROMPTS["document"]
    assert (start.default_prompt_name, str(end.readout)) == ("document", own)
    np.testing.assert_allclose(start.encode(TEXTS[:3]), _library(embedder)[:3], atol=2e-6)
    np.testing.assert_allclose(end.encode(TEXTS), _library(run.checkpoint(3)), atol=2e-6)
    before, after = _tensors(run.checkpoint(0)), _tensors(run.checkpoint(3))
    assert (before["2_Dense linear.weight"] - after["2_Dense linear.weight"]).abs().max() > 1e-4
    record = read_provenance(run.checkpoint(3))
    assert record is not None
    assert (record["inherited"], record["overridden"]) == (True, {})

    # What is said in the place of the embedder's own is told, and kept in the record.
    other = {**backbone, "readout": {"pooling": "last", "heads": [], "prompts": {"query": "who "}}}
    said = rembed("train", write_run("other", other, steps=1)).output
    assert "readout.pooling: last in the place of the backbone's weighted_mean" in said
    assert "readout.heads: 0 new ones in the place of the backbone's 1 heads" in said
    record = read_provenance(RunFolder(tmp_path / "runs" / "other").checkpoint(1))
    assert record is not None
    assert record["readout"] == "causal, last token"
    assert record["overridden"]["pooling"] == ["weighted_mean", "last"]
    assert record["overridden"]["prompts.document"] == [repr(PROMPTS["document"]), "''"]


REFUSED: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "an encoder": (
        lambda folder: {"backbone": {"kind": "pretrained", "path": str(_bert(folder))}},
        "bert is no decoder language model",
    ),
    "first of a causal embedder": (
        lambda folder: {
            "backbone": {"kind": "pretrained", "path": str(write_library_model(folder / "m"))},
            "readout": {"pooling": "first"},
        },
        "sees none of the text after it",
    ),
    "an end token that is always there": (
        lambda folder: {
            "backbone": {
                "kind": "pretrained",
                "path": str(write_library_model(folder / "m", end_token=True)),
            },
            "readout": {"end_token": False},
        },
        "ends each text with a special token by itself",
    ),
    "no end token": (
        lambda folder: {
            "backbone": {"kind": "pretrained", "path": str(_without_end(folder))},
            "readout": {"pooling": "last"},
        },
        "has no eos_token",
    ),
    "a pooling that cannot be trained": (
        lambda folder: {"backbone": {"kind": "pretrained", "path": str(_largest(folder))}},
        "its pooling is 'max'",
    ),
}


def _bert(folder: Path) -> Path:
    return write_tiny_bert(write_library_model(folder / "m"))


def _edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _largest(folder: Path) -> Path:
    model = write_library_model(folder / "m")
    _edit(model / "1_Pooling" / "config.json", pooling_mode="max")
    return model


def _without_end(folder: Path) -> Path:
    model = write_library_model(folder / "m")
    plain = folder / "m-decoder"
    _edit(plain / "tokenizer_config.json", eos_token=None)
    assert model.is_dir()
    return plain


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_trained_is_named(tmp_path: Path, write_run: Write, rembed: Rembed, what: str) -> None:
    make, words = REFUSED[what]
    output = rembed("train", write_run("run", make(tmp_path)), code=2).output
    assert words in " ".join(output.split())
    assert not RunFolder(tmp_path / "runs" / "run").steps()
