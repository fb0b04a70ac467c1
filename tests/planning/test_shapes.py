"""Sizes of backbones from their folders; operations a token against published figures and torch's own counter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reasoning_embedding import config
from reasoning_embedding.errors import InputError
from reasoning_embedding.planning.shapes import DecoderShape, backbone_shape, known_shape, training_flops


def qwen3(size: str) -> DecoderShape:
    shape = known_shape(f"Qwen/Qwen3-{size}")
    assert shape is not None
    return shape


#: Length-weighted mean length of the wide mix: log-normal, mean 120, sigma 0.817: 120 exp(sigma^2).
WIDE = 234


@pytest.mark.parametrize(("size", "gflop"), [("0.6B", 2.80), ("1.7B", 8.62), ("4B", 22.2), ("8B", 42.1)])
def test_flop_a_token_of_the_published_models(size: str, gflop: float) -> None:
    found = training_flops(qwen3(size), 1, WIDE) / 1e9
    assert found == pytest.approx(gflop, abs=0.5 * 10 ** -(3 - len(str(int(gflop)))))


def test_the_mean_length_is_weighted_by_length() -> None:
    lengths = np.random.default_rng(0).lognormal(np.log(120) - 0.817**2 / 2, 0.817, 400_000)
    assert lengths.mean() == pytest.approx(120, rel=0.01)
    assert (lengths**2).sum() / lengths.sum() == pytest.approx(WIDE, rel=0.02)


@pytest.mark.parametrize(("size", "billions"), [("0.6B", 0.596), ("4B", 4.02)])
def test_parameters_are_those_of_the_model_cards(size: str, billions: float) -> None:
    assert qwen3(size).parameters / 1e9 == pytest.approx(billions, rel=0.002)


def test_torch_counts_the_same() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from reasoning_embedding.backbones import make_pack
    from tests.models import SIZES, tiny_embedder

    shape = DecoderShape(
        SIZES["num_hidden_layers"],
        SIZES["hidden_size"],
        SIZES["intermediate_size"],
        SIZES["num_attention_heads"],
        SIZES["num_key_value_heads"],
        SIZES["head_dim"],
        SIZES["vocab_size"],
    )
    embedder = tiny_embedder()
    lengths = [7, 12, 12, 20]
    pack = make_pack([np.full(n, 5) for n in lengths], [0] * 4)
    # The counter knows attention as matrix products only.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        forward = embedder(pack)
        counted = counter.get_total_flops()
        forward.sum().backward()
    expected = training_flops(shape, sum(lengths), sum(n * n for n in lengths))
    # Older versions of transformers compute rotary angles as a product of matrices, which is counted, too.
    assert counted == pytest.approx(expected / 3, rel=1e-3)
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-3)
    assert training_flops(shape, 51, 0, full=False) == training_flops(shape, 51, 0) * 4 / 6


def test_sizes_come_from_a_folder(tiny_backbone: Path) -> None:
    shape = backbone_shape(config.PretrainedBackbone(path=str(tiny_backbone)))
    assert (shape.layers, shape.hidden, shape.head_dim, shape.key_value_heads) == (2, 32, 16, 1)
    random = config.RandomBackbone(kind="random", tokenizer=str(tiny_backbone))
    assert backbone_shape(random).vocabulary == shape.vocabulary


def test_a_folder_that_is_no_decoder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(InputError, match="not the configuration of a decoder"):
        backbone_shape(config.PretrainedBackbone(path=str(tmp_path)))
