"""A model whose vectors the packed forward would not give is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from reasoning_embedding.backbones import Embedder, load_config, load_decoder
from reasoning_embedding.backbones.readout import pooling_mode, read_readout, require_decoder
from reasoning_embedding.checkpoints.embedder import load_embedder, save_checkpoint
from reasoning_embedding.errors import ContractError, InputError
from reasoning_embedding.files import write_json
from tests.factories import write_lines, write_tiny_bert
from tests.library_models import write_library_model

_DENSE = {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Path:
    """A checkpoint of ours, whose files tests may change: nothing records what they were."""
    folder = tmp_path_factory.mktemp("readout") / "checkpoint"
    save_checkpoint(folder, Embedder(*load_decoder(str(tiny_backbone))), max_tokens=64, parent=None)
    (folder / "provenance.json").unlink()
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A BERT under the modules of a checkpoint of ours: all that a folder says is "mean pooling"."""
    folder = tmp_path_factory.mktemp("readout") / "bert"
    shutil.copytree(checkpoint, folder)
    return write_tiny_bert(folder)


def _edited(source: Path, target: Path, file: str, edit: Callable[[Any], Any]) -> Path:
    shutil.copytree(source, target)
    write_json(target / file, edit(json.loads((target / file).read_text())))
    return target


EDITS: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "a dense head after the normalisation": (
        "modules.json",
        lambda modules: [*modules, _DENSE],
        r"Normalize \+ Dense",
    ),
    "largest values": ("1_Pooling/config.json", lambda old: {**old, "pooling_mode": "max"}, "'max'"),
    "two poolings": (
        "1_Pooling/config.json",
        lambda _: {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True},
        r"'max\+mean'",
    ),
    "lower case": (
        "sentence_bert_config.json",
        lambda old: {**old, "do_lower_case": True},
        "lowers the case",
    ),
}


@pytest.mark.parametrize("what", EDITS)
def test_another_readout_is_refused(tmp_path: Path, checkpoint: Path, what: str) -> None:
    file, edit, words = EDITS[what]
    assert read_readout(str(checkpoint))
    other = _edited(checkpoint, tmp_path / "other", file, edit)
    with pytest.raises(ContractError, match=words) as caught:
        load_embedder(other)
    assert caught.value.where == str(other)


def test_a_chat_template_that_would_wrap_texts_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    other = tmp_path / "chat"
    shutil.copytree(checkpoint, other)
    (other / "chat_template.jinja").write_text("{{ messages }}")
    load_embedder(other)  # pinned to plain text
    settings = json.loads((other / "sentence_bert_config.json").read_text())
    del settings["modality_config"]
    write_json(other / "sentence_bert_config.json", settings)
    with pytest.raises(ContractError, match="chat template"):
        load_embedder(other)


def test_a_chat_template_of_the_hub_is_refused_too(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--owner--name", "0" * 40
    shutil.copytree(checkpoint, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit / "chat_template.jinja").write_text("{{ messages }}")
    assert not read_readout("owner/name").wraps_texts  # type: ignore[union-attr]
    write_json(repository / "snapshots" / commit / "sentence_bert_config.json", {})
    with pytest.raises(ContractError, match="chat template"):
        read_readout("owner/name").refuse_wrapped_texts("owner/name")  # type: ignore[union-attr]


def test_an_old_form_of_mean_pooling_is_known(tmp_path: Path, checkpoint: Path) -> None:
    old = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False, "word_embedding_dimension": 32}
    assert pooling_mode(old) == "mean"
    assert pooling_mode({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}) == "cls"
    assert pooling_mode({"pooling_mode_mean_sqrt_len_tokens": True}) == "mean_sqrt_len_tokens"
    same = _edited(checkpoint, tmp_path / "old", "1_Pooling/config.json", lambda _: old)
    assert torch.equal(
        torch.from_numpy(load_embedder(same).encode(["red cat"])),
        torch.from_numpy(load_embedder(checkpoint).encode(["red cat"])),
    )


def test_a_damaged_list_of_modules_is_an_input_error(tmp_path: Path, checkpoint: Path) -> None:
    other = tmp_path / "damaged"
    shutil.copytree(checkpoint, other)
    for text in ("[", json.dumps([{"idx": 0}]), json.dumps(3)):
        (other / "modules.json").write_text(text)
        with pytest.raises(InputError, match=r"modules\.json: not a file of a sentence-transformers model"):
            load_embedder(other)


def test_encoders_are_refused_and_decoders_are_not(encoder: Path, tiny_backbone: Path) -> None:
    require_decoder(load_config(str(tiny_backbone)), "decoder")
    with pytest.raises(ContractError, match="bert is no decoder language model"):
        load_decoder(str(encoder))
    assert read_readout(str(tiny_backbone)) is None  # a language model has no modules


@pytest.mark.parametrize("verb", ["analyze", "track"])
def test_an_encoder_beside_a_decoder_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, encoder: Path, checkpoint: Path
) -> None:
    from reasoning_embedding.cli.main import app

    monkeypatch.chdir(tmp_path)
    probe = tmp_path / "probe.jsonl"
    write_lines(probe, [{"text": f"red cat {number}"} for number in range(12)])
    words = [checkpoint, encoder, "--probe", probe, "-o", "output"]
    result = CliRunner().invoke(app, [verb, *map(str, words)])
    assert result.exit_code == 0, result.output
    assert "bert is no decoder language model" in result.output
    assert "its states are those of its own padded forward" in result.output


def test_a_published_encoder_is_refused(real_models: Path) -> None:
    """It scored .179 on cranfield where it has .503."""
    with pytest.raises(ContractError, match="bert is no decoder language model"):
        load_embedder(real_models / "minilm")


#: File of a model with one head, what is done to it, and the words of the error.
DAMAGED: dict[str, tuple[type[Exception], Callable[[Path], Any], str]] = {
    "no weights": (
        InputError,
        lambda head: (head / "model.safetensors").unlink(),
        r"2_Dense: the weights of this head are missing",
    ),
    "weights of a pickle": (
        ContractError,
        lambda head: (head / "model.safetensors").rename(head / "pytorch_model.bin"),
        "no safetensors",
    ),
    "half of the weights": (
        InputError,
        lambda head: (head / "model.safetensors").write_bytes(
            (head / "model.safetensors").read_bytes()[:-40]
        ),
        "cannot be read",
    ),
    "another width": (
        InputError,
        lambda head: _set(head / "config.json", in_features=16),
        "takes vectors of 16",
    ),
    "another shape": (InputError, lambda head: _set(head / "config.json", out_features=9), "cannot be read"),
    "no config": (
        InputError,
        lambda head: (head / "config.json").unlink(),
        "not a file of a sentence-transformers",
    ),
    "code of its own": (
        ContractError,
        lambda head: _set(head / "config.json", activation_function="mine.Act"),
        "not torch's",
    ),
    "no such activation": (
        ContractError,
        lambda head: _set(head / "config.json", activation_function="torch.nn.Nothing"),
        "no activation",
    ),
    "a residual": (
        ContractError,
        lambda head: _set(head / "config.json", use_residual=True),
        "more than a linear map",
    ),
    "no such pooling": (
        InputError,
        lambda head: _set(head.parent / "1_Pooling" / "config.json", pooling_mode="medium"),
        "there is no pooling 'medium'",
    ),
}


def _set(file: Path, **changes: Any) -> None:
    write_json(file, {**json.loads(file.read_text()), **changes})


@pytest.fixture(scope="module")
def with_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library_model(
        tmp_path_factory.mktemp("head") / "model", bidirectional=True, heads=[(8, "Tanh")]
    )


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_head_is_named(tmp_path: Path, with_head: Path, what: str) -> None:
    kind, damage, words = DAMAGED[what]
    shutil.copytree(with_head, tmp_path / "model")
    damage(tmp_path / "model" / "2_Dense")
    with pytest.raises(kind, match=words):
        load_embedder(tmp_path / "model")


def test_a_token_the_model_does_not_embed_is_refused_when_it_is_used(
    tmp_path: Path, checkpoint: Path
) -> None:
    """Gemma's tokenizer has one entry more than the model has rows, and no text uses it."""
    from transformers import AutoTokenizer

    folder = tmp_path / "spare"
    shutil.copytree(checkpoint, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["spare"])
    tokenizer.save_pretrained(folder)
    embedder = load_embedder(folder)
    np.testing.assert_array_equal(embedder.encode(["red cat"]), load_embedder(checkpoint).encode(["red cat"]))
    with pytest.raises(ContractError, match=r"token \d+ \('spare'\)"):
        embedder.encode(["red spare"])


def test_a_prompt_is_chosen_as_the_library_chooses_it(checkpoint: Path) -> None:
    embedder = load_embedder(checkpoint)
    embedder.prompts, embedder.default_prompt_name = {"query": "q ", "document": ""}, "query"
    assert [embedder.prompt(), embedder.prompt(""), embedder.prompt("x"), embedder.prompt(None, "document")] == [
        "q ", "", "x", "",
    ]  # fmt: skip
    with pytest.raises(InputError, match="no prompt named 'passage'"):
        embedder.encode(["red cat"], prompt_name="passage")
