"""Merged embedders: what they carry, what is refused, what a stopped merge leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reasoning_embedding import config
from reasoning_embedding.backbones import add_lora, merged_state_dict, stock_model
from reasoning_embedding.checkpoints import content_hash, read_provenance
from reasoning_embedding.checkpoints.embedder import load_embedder, save_checkpoint
from reasoning_embedding.checkpoints.tensors import INDEX, WHOLE, TensorFolder, TensorWriter
from reasoning_embedding.errors import InputError
from reasoning_embedding.merging import merge as merge_module
from reasoning_embedding.merging.merge import merge, open_models
from tests.merging.merge_models import PROMPTS, save_embedder

TEXTS = ["red green blue", "the cat sees a dog : 1 2 3", "find the old city"]
HALF = config.Slerp(kind="slerp", t=0.5)


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_backbone) -> Path:
    """Runs ``a``, ``b`` and ``c``, siblings."""
    root = tmp_path_factory.mktemp("merging")
    for seed, name in enumerate("abc"):
        save_embedder(tiny_backbone, root / name / "checkpoints" / "step-000010", seed=seed)
    return root


@pytest.fixture
def models(made) -> list[tuple[str, Path]]:
    return [(name, made / name / "checkpoints" / "step-000010") for name in "ab"]


def merged(models, folder, method=HALF, base=None, **settings):
    with open_models(models, base) as opened:
        return merge(opened, method, folder, folder.with_suffix(".json"), **settings)


def weights(folder):
    return {name: TensorFolder(folder).read(name) for name in TensorFolder(folder).names}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- what is carried ---------------------------------------------------------------------------------------------


def test_a_merge_reloads_with_pooling_prompts_tokenizer_and_attention(models, tmp_path):
    from sentence_transformers import SentenceTransformer

    merged(models, tmp_path / "m")
    embedder = load_embedder(tmp_path / "m")
    assert embedder.model.config.is_causal is False
    assert embedder.prompts == PROMPTS
    assert embedder.readout.include_prompt is False
    ours = embedder.encode(TEXTS, prompt=PROMPTS["query"])
    library = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    assert [type(module).__name__ for module in library] == ["Transformer", "Pooling", "Normalize"]
    assert library.prompts == PROMPTS
    np.testing.assert_allclose(library.encode(TEXTS, prompt_name="query"), ours, atol=1e-5)
    assert np.abs(load_embedder(models[0][1]).encode(TEXTS, prompt=PROMPTS["query"]) - ours).max() > 1e-2
    for file in ("tokenizer.json", "tokenizer_config.json", "config.json", "1_Pooling/config.json"):
        assert (tmp_path / "m" / file).read_bytes() == (models[0][1] / file).read_bytes()


def test_tied_embeddings_stay_one_tensor(models, tmp_path):
    merged(models, tmp_path / "m")
    names = TensorFolder(tmp_path / "m").names
    assert names == TensorFolder(models[0][1]).names
    assert not [name for name in names if "lm_head" in name]
    assert json.loads((tmp_path / "m" / "config.json").read_text())["tie_word_embeddings"] is True


@pytest.mark.parametrize(
    ("method", "name", "parameters"),
    [
        (config.Slerp(kind="slerp", t=0.3), "slerp", {"t": 0.3}),
        (config.Linear(kind="linear", weights=[1.0, 3.0]), "linear", {"weight": [1.0, 3.0]}),
        (config.Karcher(kind="karcher"), "karcher", {}),
    ],
)
def test_the_weights_are_those_of_sentence_transformers(models, tmp_path, method, name, parameters):
    from sentence_transformers import SentenceTransformer

    if not hasattr(SentenceTransformer, "merge"):
        pytest.skip("this version of sentence-transformers does not merge")
    merged(models, tmp_path / "m", method)
    theirs = SentenceTransformer.merge([str(path) for _, path in models], name, parameters=parameters)
    state = {
        key.removeprefix("0.auto_model.").removeprefix("0.model."): v
        for key, v in theirs.state_dict().items()
    }
    own = weights(tmp_path / "m")
    assert own.keys() == state.keys()
    for key, value in own.items():
        torch.testing.assert_close(value, state[key], rtol=1e-6, atol=1e-7)


def test_the_ends_of_slerp_are_the_models_bit_by_bit(models, tmp_path):
    for t, (_, path) in zip((0.0, 1.0), models, strict=True):
        merged(models, tmp_path / f"m{t:g}", config.Slerp(kind="slerp", t=t))
        assert same(weights(tmp_path / f"m{t:g}"), weights(path))


def test_shards_hold_what_one_file_holds(models, tmp_path):
    merged(models, tmp_path / "whole")
    merged(models, tmp_path / "shards", shard_bytes=20_000)
    files = sorted(path.name for path in (tmp_path / "shards").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "shards"))
    one, many = (load_embedder(tmp_path / name).encode(TEXTS) for name in ("whole", "shards"))
    np.testing.assert_array_equal(one, many)
    merged(
        [("shards", tmp_path / "shards"), models[0]], tmp_path / "again", config.Slerp(kind="slerp", t=0.0)
    )
    assert same(weights(tmp_path / "again"), weights(tmp_path / "whole"))


def test_provenance_names_every_parent_and_the_method(models, made, tmp_path):
    from reasoning_embedding.checkpoints.provenance import ancestors

    base = ("base", made / "c" / "checkpoints" / "step-000010")
    report = merged(models, tmp_path / "m", config.Ties(kind="ties", base="c"), base)
    record = read_provenance(tmp_path / "m")
    assert (record["kind"], record["parent"], record["method"]) == ("merge", None, "ties")
    assert record["parameters"] == {"weights": None, "scale": 1.0, "density": 0.2, "normalize": True}
    assert [parent["role"] for parent in record["parents"]] == ["base", "model", "model"]
    assert [parent["content_hash"] for parent in record["parents"]] == [
        content_hash(path) for _, path in (base, *models)
    ]
    assert record["content_hash"] == content_hash(tmp_path / "m") == report["content_hash"]
    assert [item.name for item in ancestors(record, None)] == [f"{name} step-000010" for name in "cab"]


def test_what_was_made_of_the_same_stays_and_of_other_things_is_made_anew(models, tmp_path):
    first = merged(models, tmp_path / "m")
    before = (tmp_path / "m" / WHOLE).stat().st_mtime_ns
    again = merged(models, tmp_path / "m")
    assert (first.pop("made"), again.pop("made")) == (True, False)
    assert first == json.loads(json.dumps(again))
    assert (tmp_path / "m" / WHOLE).stat().st_mtime_ns == before
    assert merged(models, tmp_path / "m", config.Slerp(kind="slerp", t=0.25))["made"]
    assert merged(list(reversed(models)), tmp_path / "m", config.Slerp(kind="slerp", t=0.25))["made"]
    (tmp_path / "m.json").unlink()
    assert merged(list(reversed(models)), tmp_path / "m", config.Slerp(kind="slerp", t=0.25))["made"]


def test_other_prompts_are_said_and_the_first_models_kept(models, tiny_backbone, tmp_path):
    other = save_embedder(
        tiny_backbone, tmp_path / "o" / "checkpoints" / "step-000001", prompts={"query": "Q: "}
    )
    report = merged([models[0], ("other", other)], tmp_path / "m")
    assert report["warnings"] == ["prompts of 'other' differ; those of 'a' are kept"]
    assert load_embedder(tmp_path / "m").prompts == PROMPTS


# --- adapters ----------------------------------------------------------------------------------------------------


@pytest.fixture
def adapted(models, tmp_path):
    """An adapter on model ``a`` as peft saves it, and what it stands for."""
    torch.manual_seed(0)
    embedder = load_embedder(models[0][1])
    add_lora(embedder, config.Lora(rank=2, dropout=0.0))
    for name, parameter in embedder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    embedder.model.peft_config["default"].base_model_name_or_path = str(models[0][1])
    embedder.model.save_pretrained(tmp_path / "adapter")
    save_checkpoint(tmp_path / "merged", embedder, max_tokens=64, parent=None)
    assert stock_model(embedder) is not embedder.model
    return tmp_path / "adapter", merged_state_dict(embedder)


def test_an_adapter_is_merged_into_its_base_first(models, adapted, tmp_path):
    folder, expected = adapted
    assert not (folder / "config.json").exists()
    report = merged([models[0], ("lora", folder)], tmp_path / "m", config.Slerp(kind="slerp", t=1.0))
    found = weights(tmp_path / "m")
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
    assert not same(found, weights(models[0][1]))
    assert load_embedder(tmp_path / "m").model.config.is_causal is False
    assert report["parents"][1]["adapter_of"] == {
        "path": str(models[0][1]),
        "content_hash": content_hash(models[0][1]),
    }
    assert report["parents"][1]["content_hash"] == content_hash(folder)


def test_an_adapter_of_another_model_is_refused(models, adapted, tmp_path):
    folder, _ = adapted
    tensors = load_file(folder / "adapter_model.safetensors")
    foreign = {name.replace("layers.1", "layers.7"): value for name, value in tensors.items()}
    save_file(foreign, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match="does not fit its base"):
        merged([models[0], ("lora", folder)], tmp_path / "m")


def test_a_pickled_adapter_and_one_without_a_base_are_refused(models, adapted, tmp_path):
    folder, _ = adapted
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": None}))
    with pytest.raises(InputError, match="does not say what its base is"):
        merged([models[0], ("lora", folder)], tmp_path / "m")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(InputError, match=r"without adapter_model\.safetensors"):
        merged([models[0], ("lora", folder)], tmp_path / "m")


# --- refusals ----------------------------------------------------------------------------------------------------


def _wider(model, tokenizer):
    model.resize_token_embeddings(model.config.vocab_size + 8)


def _other_words(model, tokenizer):
    tokenizer.add_tokens(["zebra"])
    model.resize_token_embeddings(len(tokenizer))


def _rope(model, tokenizer):
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": 77.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"causal": True}, r"'a' and 'other' differ in is_causal \(False and True\)"),
        ({"include_prompt": True}, "'a' and 'other' differ in 1_Pooling"),
        ({"edit": _wider}, r"'a' and 'other' differ in vocab_size \(\d+ and \d+\)"),
        ({"edit": _other_words}, "'a' and 'other' differ in vocab_size"),
        ({"edit": _rope}, "'a' and 'other' differ in rope_parameters"),
    ],
)
def test_models_that_do_not_fit_together_are_refused(models, tiny_backbone, tmp_path, settings, message):
    other = save_embedder(tiny_backbone, tmp_path / "o" / "checkpoints" / "step-000001", **settings)
    with pytest.raises(InputError, match=message):
        merged([models[0], ("other", other)], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def _copy(models, tmp_path) -> Path:
    folder = shutil.copytree(models[1][1], tmp_path / "other")
    (folder / "provenance.json").unlink()
    return folder


def test_other_token_ids_of_the_same_words_are_refused(models, tmp_path):
    folder = _copy(models, tmp_path)
    text = json.loads((folder / "tokenizer.json").read_text())
    words = text["model"]["vocab"]
    words["cat"], words["dog"] = words["dog"], words["cat"]
    (folder / "tokenizer.json").write_text(json.dumps(text))
    with pytest.raises(InputError, match="'a' and 'other' differ in the ids of tokens"):
        merged([models[0], ("other", folder)], tmp_path / "m")


def test_other_tensors_are_refused_by_name(models, tmp_path):
    folder = _copy(models, tmp_path)
    tensors = load_file(folder / WHOLE)
    save_file({**tensors, "layers.0.extra": torch.ones(2)}, folder / WHOLE)
    with pytest.raises(InputError, match=r"only 'other' has layers\.0\.extra"):
        merged([models[0], ("other", folder)], tmp_path / "m")
    save_file({**tensors, "norm.weight": torch.ones(3)}, folder / WHOLE)
    with pytest.raises(InputError, match=r"in the shape of norm\.weight \(\(32,\) and \(3,\)\)"):
        merged([models[0], ("other", folder)], tmp_path / "m")


def test_what_is_no_embedder_or_not_whole_is_refused(models, tiny_backbone, tmp_path):
    def refused(path, message):
        with pytest.raises(InputError, match=message):
            merged([models[0], ("other", path)], tmp_path / "m")

    refused(tmp_path / "nowhere", "'other' names no model")
    refused(tiny_backbone, r"'other' is no embedder: it has no modules\.json")
    folder = _copy(models, tmp_path)
    data = (folder / WHOLE).read_bytes()
    (folder / WHOLE).write_bytes(data[: len(data) // 2])
    refused(folder, "the weights cannot be read")
    (folder / WHOLE).unlink()
    refused(folder, "no weights")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"norm.weight": "../a/model.safetensors"}}))
    refused(folder, r"the shard '\.\./a/model\.safetensors' is not here")
    assert not (tmp_path / "m").exists()


def test_a_flipped_byte_is_noticed(models, tmp_path):
    folder = shutil.copytree(models[1][1], tmp_path / "other")
    data = bytearray((folder / WHOLE).read_bytes())
    data[-5] ^= 1
    (folder / WHOLE).write_bytes(bytes(data))
    with pytest.raises(InputError, match="files differ from what"):
        merged([models[0], ("other", folder)], tmp_path / "m")


def test_quantized_weights_are_refused(models, tmp_path):
    folder = _copy(models, tmp_path)
    tensors = load_file(folder / WHOLE)
    tensors["norm.weight"] = tensors["norm.weight"].to(torch.float8_e4m3fn)
    save_file(tensors, folder / WHOLE)
    with pytest.raises(InputError, match=r"norm\.weight has dtype F8_E4M3"):
        merged([("other", folder), models[0]], tmp_path / "m")


# --- all or nothing ----------------------------------------------------------------------------------------------


def test_nan_is_refused_and_what_was_there_stays(models, tmp_path):
    merged(models, tmp_path / "m")
    before = content_hash(tmp_path / "m")
    folder = _copy(models, tmp_path)
    tensors = load_file(folder / WHOLE)
    tensors["norm.weight"][3] = float("nan")
    save_file(tensors, folder / WHOLE)
    with pytest.raises(InputError, match=r"norm\.weight is not finite"):
        merged([models[0], ("other", folder)], tmp_path / "m")
    assert content_hash(tmp_path / "m") == before
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_a_stopped_merge_leaves_nothing(models, tmp_path, monkeypatch):
    class Stopped(TensorWriter):
        def add(self, name, tensor):
            if "layers.1" in name:
                raise KeyboardInterrupt
            super().add(name, tensor)

    monkeypatch.setattr(merge_module, "TensorWriter", Stopped)
    with pytest.raises(KeyboardInterrupt):
        merged(models, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
