"""Nothing is published that the card's own code does not reproduce."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reasoning_embedding.backbones import Embedder, Head, Readout, add_end_token, load_decoder
from reasoning_embedding.checkpoints import content_hash, write_provenance
from reasoning_embedding.checkpoints.embedder import save_checkpoint
from reasoning_embedding.errors import ContractError, InputError
from reasoning_embedding.files import write_json
from reasoning_embedding.host import Memory
from reasoning_embedding.publishing import Release, export, plan_release
from reasoning_embedding.publishing.facts import About
from reasoning_embedding.publishing.release import ReleaseRecord
from reasoning_embedding.publishing.usage import SENTENCE_TRANSFORMERS, TRANSFORMERS
from reasoning_embedding.publishing.verify import NOISES, run_fresh, verify
from tests.publishing.published_run import PROMPT


def quiet(line: str) -> None:
    pass


def run_here(
    codes: Sequence[dict[str, str]], probes: Sequence[list[Any]], *, both: bool = False
) -> dict[str, np.ndarray]:
    """The card's code in this process; that for transformers in place of the slower library's, unless `both`."""
    arrays = {}
    for index, code in enumerate(codes):
        names: dict[str, dict[str, Any]] = {}
        for library in code if both else (TRANSFORMERS,):
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code[library], names.setdefault(library, {}))
        for number, (prompt, texts) in enumerate(probes[index]):
            vectors = names[TRANSFORMERS]["embed"](texts, prompt).float().numpy()
            arrays |= {
                f"{index}/{library}/{number}": vectors for library in (TRANSFORMERS, SENTENCE_TRANSFORMERS)
            }
            if both:
                key = f"{index}/{SENTENCE_TRANSFORMERS}/{number}"
                arrays[key] = names[SENTENCE_TRANSFORMERS]["model"].encode(texts, prompt=prompt)
    return arrays


@pytest.fixture
def publish(tmp_path: Path, tiny_backbone: Path) -> Callable[..., Release]:
    """Save, change and export a checkpoint; `change` sees the folder before its hash is recorded."""

    def make(change: Callable[[Path], None] | None = None, *, left: bool = False, **settings: Any) -> Release:
        readout = Readout(**settings)
        model, tokenizer = load_decoder(str(tiny_backbone), bidirectional=not readout.causal)
        if readout.end_token:
            add_end_token(tokenizer, "here")
        if left:
            tokenizer.padding_side = "left"
        folder = tmp_path / "model"
        prompts = {"query": PROMPT, "other": "what is "}
        save_checkpoint(
            folder, Embedder(model, tokenizer, readout, prompts), max_tokens=32, parent=None, step=6
        )
        if change:
            change(folder)
            write_provenance(folder, kind="contrastive", parent=None, step=6, readout=str(readout))
        release = plan_release(folder, "me/model")
        export(release, About(), quiet)
        return release

    return make


def rewrite(path: Path, **changes: Any) -> None:
    write_json(path, {**json.loads(path.read_text()), **changes})


@pytest.mark.parametrize("include_prompt", [False, True])
def test_the_cards_code_gives_the_trainers_embeddings(
    publish: Callable[..., Release], include_prompt: bool
) -> None:
    release = publish(include_prompt=include_prompt)
    record = ReleaseRecord(release.folder)
    verify(release, record, quiet, run_here)
    found = json.loads((release.folder / "ledger.json").read_text())["revisions"]["main"]["verified"]
    assert 1e-6 <= found["noise"] < 1e-5
    assert all(0 <= value <= NOISES * found["noise"] for value in found["differences"].values())

    def never(*_: object) -> dict[str, np.ndarray]:
        raise AssertionError("verified twice")

    export(release, About(), quiet)
    verify(release, ReleaseRecord(release.folder), quiet, never)
    export(release, About("mit"), quiet)  # another card
    with pytest.raises(AssertionError, match="verified twice"):
        verify(release, ReleaseRecord(release.folder), quiet, never)


READOUTS = {
    "last": {"attention": "causal", "pooling": "last", "end_token": True, "include_prompt": True},
    "last, padded left": {"attention": "causal", "pooling": "last", "left": True, "include_prompt": True},
    "weighted": {"attention": "causal", "pooling": "weighted_mean"},
    "weighted, prompt in": {"pooling": "weighted_mean", "include_prompt": True},
    "first": {"pooling": "first", "include_prompt": True},
    "heads": {"heads": (Head(32, 48, activation="tanh"), Head(48, 16, bias=False))},
}


@pytest.mark.parametrize("name", READOUTS)
def test_the_cards_code_follows_the_readout(publish: Callable[..., Release], name: str) -> None:
    release = publish(**READOUTS[name])
    verify(release, ReleaseRecord(release.folder), quiet, partial(run_here, both=True))
    said = (release.exported(release.main) / "README.md").read_text()
    assert ("Attention is causal" in said) == (READOUTS[name].get("attention") == "causal")
    assert ("a linear head to 16 dimensions" in said) == (name == "heads")


def in_bfloat16(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    halved = {name: value.to(torch.bfloat16) for name, value in weights.items()}
    save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})
    rewrite(folder / "config.json", dtype="bfloat16")


def test_half_precision_weights_compute_in_float32(publish: Callable[..., Release]) -> None:
    """Merged models are often saved so; without its dtype the card's code would be off by 1e-2."""
    release = publish(in_bfloat16)
    verify(release, ReleaseRecord(release.folder), quiet, run_here)
    readme = release.exported(release.main) / "README.md"
    readme.write_text(readme.read_text().replace(", dtype=torch.float32", ""))
    with pytest.raises(ContractError, match="differs from the trainer's"):
        verify(release, ReleaseRecord(release.folder), quiet, run_here)


def test_a_card_that_lies_is_found_out(publish: Callable[..., Release]) -> None:
    release = publish()
    readme = release.exported(release.main) / "README.md"
    lines = readme.read_text().splitlines()
    readme.write_text("\n".join(line for line in lines if "kept[:, :" not in line) + "\n")
    with pytest.raises(
        ContractError, match=r"for sentence-transformers the embedding of .* differs .* by 0\."
    ) as caught:
        verify(release, ReleaseRecord(release.folder), quiet, run_here)
    assert caught.value.exit_code == 2
    assert not (release.folder / "ledger.json").exists()
    readme.write_text("# no code")
    with pytest.raises(InputError, match="lacks its code"):
        verify(release, ReleaseRecord(release.folder), quiet, run_here)


def one_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["layers.1.mlp.down_proj.weight"][3, 5] += 0.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_pooling(folder: Path) -> None:
    rewrite(folder / "1_Pooling" / "config.json", pooling_mode="lasttoken")


def prompt_counted(folder: Path) -> None:
    rewrite(folder / "1_Pooling" / "config.json", include_prompt=True)


def loaded_with(change: Callable[[Path], None], folder: Path) -> Callable[..., dict[str, np.ndarray]]:
    """What a reader gets whose files differ: sentence-transformers itself, of a changed copy of the model."""

    def fresh(codes: Sequence[dict[str, str]], probes: Sequence[list[Any]]) -> dict[str, np.ndarray]:
        from sentence_transformers import SentenceTransformer

        [code] = codes
        path = Path(json.loads(code[SENTENCE_TRANSFORMERS].split("SentenceTransformer(")[1].split(")")[0]))
        shutil.copytree(path, folder)
        change(folder)
        model = SentenceTransformer(str(folder), device="cpu")
        return {
            f"0/{library}/{number}": model.encode(texts, prompt=prompt or None)
            for number, (prompt, texts) in enumerate(probes[0])
            for library in (TRANSFORMERS, SENTENCE_TRANSFORMERS)
        }

    return fresh


def test_any_real_difference_is_refused_and_an_equal_copy_is_not(
    publish: Callable[..., Release], tmp_path: Path
) -> None:
    release = publish()
    for place, change in enumerate((one_weight, other_pooling, prompt_counted)):
        with pytest.raises(ContractError, match="differs from the trainer's by"):
            verify(
                release, ReleaseRecord(release.folder), quiet, loaded_with(change, tmp_path / f"copy-{place}")
            )
    verify(release, ReleaseRecord(release.folder), quiet, loaded_with(lambda _: None, tmp_path / "copy"))


@pytest.mark.parametrize(("multiple", "accepted"), [(0.5 * NOISES, True), (1.5 * NOISES, False)])
def test_differences_are_held_against_the_models_own_noise(
    publish: Callable[..., Release], monkeypatch: pytest.MonkeyPatch, multiple: float, accepted: bool
) -> None:
    noise = 4e-6  # of thirty layers
    monkeypatch.setattr("reasoning_embedding.publishing.verify._LEAST_NOISE", noise)
    release = publish()

    def rounded(codes: Sequence[dict[str, str]], probes: Sequence[list[Any]]) -> dict[str, np.ndarray]:
        found = run_here(codes, probes)
        changed = found[f"0/{TRANSFORMERS}/1"].copy()
        changed[2, 0] += multiple * noise
        return {**found, f"0/{TRANSFORMERS}/1": changed}

    if accepted:
        verify(release, ReleaseRecord(release.folder), quiet, rounded)
        return
    words = (
        r"for transformers the embedding of '3\.14159 \+ .* after the prompt 'Instruct: .* differs from the trainer's "
        r"by 6e-05, and float rounding of this model is 4e-06, of which 10 times are allowed"
    )
    with pytest.raises(ContractError, match=words):
        verify(release, ReleaseRecord(release.folder), quiet, rounded)


def test_a_model_too_large_for_float64_is_said(
    publish: Callable[..., Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "reasoning_embedding.publishing.verify.host_memory", lambda: Memory(1000, 1000, limited=True)
    )
    release, lines = publish(), []
    verify(release, ReleaseRecord(release.folder), lines.append, run_here)
    assert any("do not fit in memory" in line for line in lines)


def test_a_model_left_causal_is_refused(publish: Callable[..., Release]) -> None:
    release = publish(lambda folder: rewrite(folder / "config.json", is_causal=True))
    with pytest.raises(ContractError, match=r"saved model is causal, .* trained with bidirectional"):
        verify(release, ReleaseRecord(release.folder), quiet, run_here)


def test_remote_code_is_refused(publish: Callable[..., Release]) -> None:
    release = publish(lambda folder: rewrite(folder / "config.json", auto_map={"AutoModel": "modeling.Mine"}))
    with pytest.raises(ContractError, match="auto_map"):
        verify(release, ReleaseRecord(release.folder), quiet, run_here)


def test_a_flipped_byte_is_refused(publish: Callable[..., Release]) -> None:
    release = publish()
    weights = release.main.checkpoint / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(InputError, match="differ from what"):
        verify(release, ReleaseRecord(release.folder), quiet, run_here)


def test_another_tokenizer_than_the_runs_is_refused(publish: Callable[..., Release], tmp_path: Path) -> None:
    lone = publish()
    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "step-000006"
    checkpoint.parent.mkdir(parents=True)
    lone.main.checkpoint.rename(checkpoint)
    write_json(run / "manifest.json", {"input_contract": {"token_hash": "0" * 64}})
    release = plan_release(run, "me/model")
    export(release, About(), quiet)
    with pytest.raises(ContractError, match="input contract"):
        verify(release, ReleaseRecord(release.folder), quiet, run_here)


def test_the_fresh_process_knows_neither_this_package_nor_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "s" * 34)
    code = """
import os, sys
import numpy
assert "reasoning_embedding" not in sys.modules
assert not any(path.endswith("publishing") for path in sys.path)
assert not any("TOKEN" in name for name in os.environ if name != "TOKENIZERS_PARALLELISM"), "a token"
assert os.environ["HF_HUB_OFFLINE"] == "1"
class Vectors(list):
    def float(self):
        return self
    def numpy(self):
        return numpy.full((len(self), 2), 7.0)
def embed(texts, prompt):
    return Vectors(prompt + text for text in texts)
"""
    found = run_fresh([{TRANSFORMERS: code}], [[("p", ["a", "b"])]])
    assert {key: value.tolist() for key, value in found.items()} == {"0/transformers/0": [[7.0, 7.0]] * 2}
    with pytest.raises(ContractError, match=r"fails in a fresh process: ValueError: boom \*\*\*"):
        run_fresh([{TRANSFORMERS: f"raise ValueError('boom hf_{'s' * 34}')"}], [[]])


def test_the_export_has_the_checkpoints_hash(publish: Callable[..., Release]) -> None:
    release = publish()
    assert content_hash(release.exported(release.main)) == content_hash(release.main.checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "gemma-3-270m"])
def test_real_models_are_fit_to_be_published(real_models: Path, tmp_path: Path, name: str) -> None:
    """Of thirty layers, with a chat template; of a tokenizer with more entries than the model embeds."""
    model, tokenizer = load_decoder(str(real_models / name), bidirectional=True)
    folder, embedder = tmp_path / "model", Embedder(model, tokenizer, Readout(), {"query": PROMPT})
    save_checkpoint(folder, embedder, max_tokens=64, parent=None, step=1, readout=str(embedder.readout))
    release = plan_release(folder, "me/model")
    export(release, About(), quiet)
    verify(release, ReleaseRecord(release.folder), quiet)
    measured = json.loads((release.folder / "ledger.json").read_text())["revisions"]["main"]["verified"]
    assert max(measured["differences"].values()) > 0
    with pytest.raises(ContractError, match="differs from the trainer's"):
        verify(release, ReleaseRecord(tmp_path), quiet, loaded_with(prompt_counted, tmp_path / "copy"))
