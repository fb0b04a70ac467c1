"""A plan counts the heads of a readout."""

from __future__ import annotations

from pathlib import Path

from reasoning_embedding import config
from reasoning_embedding.files import write_json
from reasoning_embedding.planning.memory import trained_parameters
from reasoning_embedding.planning.shapes import DecoderShape, with_readout

SHAPE = DecoderShape(2, 32, 64, 2, 1, 16, 100)


def test_heads_are_parameters_and_trained_beside_adapters(tmp_path: Path) -> None:
    backbone = config.PretrainedBackbone(path=str(tmp_path))
    new = config.ReadoutSettings(
        heads=[config.NewHead(out_features=8), config.NewHead(out_features=4, bias=False)]
    )
    shape = with_readout(SHAPE, backbone, new)
    assert shape.readout_heads == 32 * 8 + 8 + 8 * 4
    assert shape.parameters == SHAPE.parameters + shape.readout_heads
    lora = config.Lora(rank=2)
    assert trained_parameters(shape, lora) == trained_parameters(SHAPE, lora) + shape.readout_heads
    assert with_readout(SHAPE, backbone, config.ReadoutSettings()) == SHAPE
    write_json(tmp_path / "2_Dense" / "config.json", {"in_features": 32, "out_features": 8, "bias": True})
    assert with_readout(SHAPE, backbone, config.ReadoutSettings()).readout_heads == 33 * 8
    assert with_readout(SHAPE, backbone, config.ReadoutSettings(heads=[])).readout_heads == 0
