"""LoRA: what is trained, and the plain weights it stands for."""

from __future__ import annotations

import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.backbones import add_lora, merged_state_dict, stock_model
from reasoning_embedding.errors import InputError
from tests.factories import random_batch
from tests.models import relative, tiny_decoder, tiny_embedder


def _adapted():  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    embedder = tiny_embedder()
    add_lora(embedder, config.Lora(rank=4, dropout=0.0))
    for name, parameter in embedder.named_parameters():
        if "lora_B" in name:  # zero at the start, and a zero delta would hide a wrong merge
            torch.nn.init.normal_(parameter, std=0.05)
    return embedder.eval()


def test_only_adapters_are_trained() -> None:
    embedder = _adapted()
    trained = [name for name, parameter in embedder.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


def test_merged_weights_compute_the_same_and_leave_the_model_alone() -> None:
    from reasoning_embedding.backbones import make_pack

    embedder = _adapted()
    batch = random_batch()
    pack = make_pack(batch.texts, batch.prompt_lengths)
    before = embedder(pack)
    merged = merged_state_dict(embedder)
    torch.testing.assert_close(embedder(pack), before, rtol=0, atol=0)

    plain = tiny_decoder()
    missing = plain.load_state_dict(merged)
    assert not missing.missing_keys
    assert not missing.unexpected_keys
    other = tiny_embedder()
    unadapted = other(pack)
    other.model = plain
    assert relative(other(pack), before) < 1e-5
    assert relative(unadapted, before) > 1e-3  # the control: without the adapters it differs


def test_without_adapters_the_weights_are_the_models_own() -> None:
    embedder = tiny_embedder()
    assert stock_model(embedder) is embedder.model
    assert merged_state_dict(embedder).keys() == embedder.model.state_dict().keys()


def test_layers_that_are_not_there_are_named() -> None:
    with pytest.raises(InputError, match=r"adapters cannot be put on \['no_such_proj'\]") as error:
        add_lora(tiny_embedder(), config.Lora(target_modules=["no_such_proj"]))
    assert error.value.where == "training.lora.target_modules"
