"""The input contract, tokenizers without padding, and checkpoints that cannot be loaded."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reasoning_embedding import config
from reasoning_embedding.backbones import (
    build_backbone,
    check_same_inputs,
    input_contract,
    load_decoder,
    load_tokenizer,
)
from reasoning_embedding.errors import ContractError, InputError
from tests.factories import build_tiny_tokenizer


def test_a_chat_template_changes_no_input() -> None:
    plain, chat = build_tiny_tokenizer(), build_tiny_tokenizer()
    chat.chat_template = "{% for m in messages %}<eos>{{ m['content'] }}{% endfor %}"
    chat.add_tokens(["<|turn|>"], special_tokens=True)  # plain text never meets it
    base, rlvr = input_contract(plain), input_contract(chat)
    assert rlvr.vocabulary == base.vocabulary + 1
    assert replace(rlvr, vocabulary=base.vocabulary) == base
    check_same_inputs({"base": base, "rlvr": rlvr})


def test_an_added_end_token_is_refused() -> None:
    from tokenizers.processors import TemplateProcessing

    plain, ending = build_tiny_tokenizer(), build_tiny_tokenizer()
    ending._tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", ending.eos_token_id)]
    )
    assert input_contract(ending).ends_with == ending.eos_token_id
    assert input_contract(plain).ends_with is None
    with pytest.raises(ContractError, match=r"'base' and 'sft' differ in token_hash, ends_with"):
        check_same_inputs({"base": input_contract(plain), "sft": input_contract(ending)})


def _without(folder: Path, *names: str) -> Path:
    build_tiny_tokenizer().save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    kept = {key: value for key, value in json.loads(path.read_text()).items() if key not in names}
    path.write_text(json.dumps(kept))
    return folder


def test_the_end_token_stands_in_for_a_missing_pad_token(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(_without(tmp_path, "pad_token")))
    assert tokenizer.pad_token == "<eos>"
    assert tokenizer.padding_side == "right"


def test_no_pad_and_no_stand_in_is_an_error(tmp_path: Path) -> None:
    folder = _without(tmp_path, "pad_token", "eos_token", "unk_token")
    with pytest.raises(InputError, match="no pad_token") as caught:
        load_tokenizer(str(folder))
    assert "tokenizer_config.json" in str(caught.value)


def test_a_real_tokenizer_without_pad_token(real_data: Path, tmp_path: Path) -> None:
    from transformers import LlamaTokenizerFast

    LlamaTokenizerFast(vocab_file=str(real_data / "tokenizer_llama2" / "tokenizer.model")).save_pretrained(
        tmp_path
    )
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.pad_token is not None
    assert input_contract(tokenizer).padding_side == "right"


@pytest.mark.parametrize(
    ("path", "words"),
    [("./absent", "no such folder"), ("/absent/model", "no such folder"), ("nobody/nothing", "cannot load")],
)
def test_a_missing_checkpoint_is_named(path: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_decoder(path)
    assert path in str(caught.value)


def test_a_folder_without_weights_is_an_error(tiny_tokenizer: Path) -> None:
    with pytest.raises(InputError, match="cannot load"):
        load_decoder(str(tiny_tokenizer))


def test_pickled_weights_are_never_loaded(tiny_backbone: Path, tmp_path: Path) -> None:
    import torch

    folder = tmp_path / "pickled"
    shutil.copytree(tiny_backbone, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot load"):
        load_decoder(str(folder))


def test_random_weights_come_from_their_own_seed(tiny_tokenizer: Path) -> None:
    def weights(seed: int):  # type: ignore[no-untyped-def]
        section = config.RandomBackbone(
            kind="random",
            tokenizer=str(tiny_tokenizer),
            seed=seed,
            architecture=config.Architecture(hidden_size=32),
        )
        return build_backbone(section)[0].get_input_embeddings().weight

    assert bool((weights(0) == weights(0)).all())
    assert not bool((weights(0) == weights(1)).all())


def test_only_the_wish_changes_the_direction(tiny_backbone: Path) -> None:
    assert getattr(load_decoder(str(tiny_backbone))[0].config, "is_causal", True) is True
    assert load_decoder(str(tiny_backbone), bidirectional=True)[0].config.is_causal is False


def test_weights_that_are_not_there_are_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "partial"
    shutil.copytree(tiny_backbone, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 weights are not in this checkpoint .*up_proj"):
        load_decoder(str(folder))
