"""A plan takes a backbone's sizes from its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasoning_embedding import config
from reasoning_embedding.errors import InputError
from reasoning_embedding.planning.shapes import backbone_shape


def test_sizes_come_from_a_folder(tiny_backbone: Path) -> None:
    shape = backbone_shape(config.PretrainedBackbone(path=str(tiny_backbone)))
    assert (shape.layers, shape.hidden, shape.head_dim, shape.key_value_heads) == (2, 32, 16, 1)
    random = config.RandomBackbone(kind="random", tokenizer=str(tiny_backbone))
    assert backbone_shape(random).vocabulary == shape.vocabulary


def test_a_folder_that_is_no_decoder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(InputError, match="not the configuration of a decoder"):
        backbone_shape(config.PretrainedBackbone(path=str(tmp_path)))
