"""Heads are merged with the rest, and models of different readouts are not merged at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from reasoning_embedding.backbones import Head, Readout
from reasoning_embedding.checkpoints.embedder import load_embedder
from reasoning_embedding.config import Linear
from reasoning_embedding.errors import InputError
from reasoning_embedding.merging.merge import merge, open_models
from tests.library_models import TEXTS, write_library_model

pytest.importorskip("mergekit")


@pytest.fixture(scope="module")
def siblings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two causal embedders of the last token with one head; all weights of the second are twice those of the first."""
    first = write_library_model(
        tmp_path_factory.mktemp("heads") / "first", pooling="last", end_token=True, heads=[(16, "Tanh")]
    )
    second = shutil.copytree(first, first.with_name("second"))
    for file in second.glob("**/model.safetensors"):
        save_file(
            {name: value * 2 for name, value in load_file(file).items()}, file, metadata={"format": "pt"}
        )
    return [first, second]


def _merged(folders: list[Path], out: Path) -> dict:
    with open_models([(path.name, path) for path in folders]) as models:
        return merge(models, Linear(kind="linear", weights=[0.5, 0.5]), out, out.with_suffix(".json"))


def test_heads_and_readout_are_carried(siblings: list[Path], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    report = _merged(siblings, tmp_path / "m")
    embedder = load_embedder(tmp_path / "m")
    assert embedder.readout == Readout(
        "causal", "last", include_prompt=True, end_token=True, heads=(Head(32, 16, activation="tanh"),)
    )
    for file in ("model.safetensors", "2_Dense/model.safetensors"):
        first, mean = load_file(siblings[0] / file), load_file(tmp_path / "m" / file)
        assert first.keys() == mean.keys()
        for name, value in first.items():
            np.testing.assert_allclose(mean[name].numpy(), 1.5 * value.numpy(), rtol=1e-6)
    assert {"2_Dense/linear.weight", "2_Dense/linear.bias"} <= {
        record["name"] for record in report["tensors"]
    }
    library = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    alone = np.concatenate([library.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(embedder.encode(TEXTS), alone, atol=2e-6)
    assert np.abs(load_embedder(siblings[0]).encode(TEXTS) - alone).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pooling": "mean"}, "differ in 1_Pooling"),
        ({"heads": [(16, "ReLU")]}, "differ in 2_Dense"),
        ({"heads": []}, "differ in modules"),
        ({"bidirectional": True}, "differ in is_causal"),
        ({"end_token": False}, "input contract"),
    ],
)
def test_models_of_other_readouts_are_refused(
    siblings: list[Path], tmp_path: Path, changes: dict, words: str
) -> None:
    from reasoning_embedding.errors import ContractError

    same = {"pooling": "last", "end_token": True, "heads": [(16, "Tanh")]}
    other = write_library_model(tmp_path / "other", **{**same, **changes})
    with pytest.raises((InputError, ContractError), match=words):
        _merged([siblings[0], other], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_head_without_weights_is_named(siblings: list[Path], tmp_path: Path) -> None:
    other = shutil.copytree(siblings[1], tmp_path / "other")
    (other / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="the weights of this head are missing"):
        _merged([siblings[0], other], tmp_path / "m")
