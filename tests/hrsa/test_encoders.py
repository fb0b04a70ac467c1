"""Models that the packed forward does not compute are measured by their own padded one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reasoning_embedding import config
from reasoning_embedding.backbones import Embedder, Head, Readout, add_end_token, load_decoder
from reasoning_embedding.checkpoints.embedder import load_embedder, save_checkpoint
from reasoning_embedding.errors import ContractError, InputError
from reasoning_embedding.hrsa.capture import draw_sample, leading_sinks, read, tokenize
from reasoning_embedding.hrsa.instrument import Checkpoint, Instrument
from reasoning_embedding.hrsa.pair import compare
from reasoning_embedding.hrsa.probes import load_probe
from reasoning_embedding.hrsa.trajectory import Against, TrackTable, read_trajectories, track
from tests.hrsa.hrsa_models import qwen3, save, words

TEXTS = ["red cat", "the king of the old city sees a blue fish in the river", "moon", "1 + 2 = 3 ."]


def instrument(lines: list[str] | None = None, **changes: Any) -> Instrument:
    settings = {"probe": {"kind": "world"}, "max_rows": 400, "streaming": "never", "bootstrap": 10, **changes}
    chosen = config.Analysis.model_validate(settings)
    say = (lambda line: None) if lines is None else lines.append
    return Instrument(load_probe(chosen.probe), chosen, report=say)


def write_encoder(folder: Path, seed: int, kind: str = "bert") -> Path:
    """A two-layer encoder whose texts are brought to lower case, with mean pooling, as sentence-transformers saves it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import CONFIG_MAPPING, AutoModel

    plain = folder / "plain"
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    tokenizer = words()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        settings = CONFIG_MAPPING[kind](
            vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes
        )
        AutoModel.from_config(settings).save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    first = Transformer(str(plain), max_seq_length=64)
    model = SentenceTransformer(modules=[first, Pooling(32, "mean"), Normalize()], device="cpu")
    model.save(str(folder / "saved"))
    return folder / "saved"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [write_encoder(tmp_path_factory.mktemp("encoder"), seed) for seed in (0, 1)]


@pytest.mark.parametrize("causal", [True, False])
def test_padded_and_packed_forward_agree_where_both_are_possible(tmp_path: Path, causal: bool) -> None:
    folder = save(qwen3(causal=causal), tmp_path)
    ids = tokenize(
        load_probe(config.Analysis.model_validate({"probe": {"kind": "world"}}).probe).texts, words(), 64
    )
    sample = draw_sample([len(text) for text in ids], "all", 500, 0)
    packed, padded = load_decoder(str(folder))[0], load_decoder(str(folder), implementation="sdpa")[0]
    one, other = (read([model], [ids], sample, pack_tokens=200)[0] for model in (packed, padded))
    assert one.layers == other.layers
    assert one.causal == other.causal == causal
    for a, b in zip([*one.states, one.last, one.mean], [*other.states, other.last, other.mean], strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    assert leading_sinks(packed, ids) == leading_sinks(padded, ids)
    # The control: with the padding attended to, states are others.
    ignoring = load_decoder(str(folder), implementation="sdpa")[0]
    ignoring.register_forward_pre_hook(
        lambda module, args, kwargs: (
            args,
            {**kwargs, "attention_mask": torch.ones_like(kwargs["attention_mask"])},
        ),
        with_kwargs=True,
    )
    wrong = read([ignoring], [ids], sample, pack_tokens=200)[0]
    if not causal:  # padding on the right is behind what a causal token sees
        assert np.abs(wrong.states[-1] - one.states[-1]).max() > 1e-2


@pytest.mark.parametrize("kind", ["bert", "mpnet", "roberta", "modernbert"])
def test_an_encoders_states_are_those_of_the_library_text_by_text(tmp_path: Path, kind: str) -> None:
    from sentence_transformers import SentenceTransformer

    folder = write_encoder(tmp_path, 0, kind)
    reader = instrument().open(Checkpoint(folder, "encoder"))
    assert reader.padded
    sample = draw_sample([len(text) for text in reader.ids], "all", 300, 0)
    [found] = read([reader.model], [reader.ids], sample, pack_tokens=200)
    last = "layer 2 (pre-norm)" if kind == "modernbert" else "layer 2"
    assert found.layers == ["embedding", "layer 1", last, "final norm"]
    assert not found.causal
    model = SentenceTransformer(str(folder), device="cpu")
    texts = instrument().probe.texts
    for text in (0, 5, 17):
        with torch.no_grad():
            features = model[0].preprocess([texts[text]])
            hidden = model[0].auto_model(**features, output_hidden_states=True).hidden_states
        rows = np.flatnonzero(sample.documents == text)
        # transformers' list ends with the final states, which only ModernBERT has a norm before.
        for layer, expected in zip([*found.states[:2], found.states[3]], hidden, strict=True):
            np.testing.assert_allclose(layer[rows], expected[0][sample.positions[rows]], atol=2e-6)
        whole = model.encode([texts[text]], output_value="token_embeddings")[0]
        np.testing.assert_allclose(found.mean[text], whole.mean(dim=0), atol=2e-6)


def test_encoders_are_compared_and_their_own_vectors_too(encoders: list[Path]) -> None:
    from sentence_transformers import SentenceTransformer

    lines: list[str] = []
    sides = [Checkpoint(path, path.parent.name) for path in encoders]
    record = compare("encoders", *sides, instrument(lines))
    assert record["a"]["attention"] == "bidirectional"
    assert any("bert is no decoder" in line and "padded forward" in line for line in lines)
    assert "random_initialisation" in record["levels"]
    assert record["last"]["cka"] is not None
    readouts = record["readouts"]
    assert readouts["a"] == "Transformer + Pooling + Normalize, pooling mean"
    x, y = (
        SentenceTransformer(str(path), device="cpu").encode(instrument().probe.texts) for path in encoders
    )
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    cka = np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert readouts["last"]["cka"] == pytest.approx(cka, abs=1e-4)
    same = compare("same", sides[0], sides[0], instrument(), levels=False)
    assert same["last"]["cka"] == pytest.approx(1)
    assert same["readouts"]["last"]["cka"] == pytest.approx(1)


def test_an_encoder_against_a_decoder_and_along_steps(encoders: list[Path], tmp_path: Path) -> None:
    decoder = save(qwen3(hidden=64), tmp_path / "decoder")
    record = compare(
        "mixed",
        Checkpoint(encoders[0], "bert"),
        Checkpoint(decoder, "qwen3"),
        instrument(tokens="mean"),
        levels=False,
    )
    assert (record["a"]["attention"], record["b"]["attention"]) == ("bidirectional", "causal")
    assert "readouts" not in record  # a language model has no readout
    table = TrackTable(tmp_path / "track.parquet")
    steps = {
        step: Checkpoint(path, f"encoder@{step}", content=str(step)) for step, path in enumerate(encoders)
    }
    track("encoder", steps, [Against("first", {None: steps[0]}, 0)], instrument(), table)
    [found] = read_trajectories(tmp_path / "track.parquet")
    assert found.steps == (0, 1)
    assert found.series["cka"][0] == pytest.approx(1, abs=1e-5)
    assert found.series["cka"][1] < 0.99


def test_layers_that_are_shared_are_refused_by_name(tmp_path: Path) -> None:
    reader = instrument().open(Checkpoint(write_encoder(tmp_path, 0, "albert"), "albert"))
    sample = draw_sample([len(text) for text in reader.ids], "mean", 10, 0)
    with pytest.raises(ContractError, match="AlbertModel does not run a list of layers once each"):
        read([reader.model], [reader.ids], sample)


def _checkpoint(folder: Path, backbone: Path, readout: Readout) -> Checkpoint:
    """A backbone's own weights under a readout, as a run saves them at step 0."""
    model, tokenizer = load_decoder(str(backbone), bidirectional=not readout.causal)
    if readout.end_token:
        add_end_token(tokenizer, "here")
    save_checkpoint(folder, Embedder(model, tokenizer, readout), max_tokens=64, parent=None, step=0)
    return Checkpoint(folder, folder.name, content=folder.name)


def test_token_states_are_defined_alike_for_every_readout(tmp_path: Path, tiny_backbone: Path) -> None:
    """At the level of tokens a causal run is its language model, whatever its pooling; another end of a text, or another
    direction, is a difference that is told."""
    model = Checkpoint(tiny_backbone, "language model", content="lm")
    causal, ended, both = (
        _checkpoint(tmp_path / name, tiny_backbone, readout)
        for name, readout in {
            "causal": Readout("causal", "last"),
            "ended": Readout("causal", "last", end_token=True),
            "both": Readout("bidirectional", "mean"),
        }.items()
    )
    same = compare("same", model, causal, instrument(), levels=False)
    assert same["last"]["cka"] == pytest.approx(1, abs=1e-6)
    assert same["last"]["procrustes_residual"] == pytest.approx(0, abs=1e-3)
    assert same["last"]["knn_jaccard@10"] == pytest.approx(1, abs=1e-3)
    assert "readouts" not in same  # one side has none
    other = compare("other", causal, both, instrument(), levels=False)
    assert other["last"]["cka"] < 0.999
    assert any("one model attends causally" in warning for warning in other["warnings"])
    assert (other["readouts"]["a"], other["readouts"]["b"]) == (
        "causal, last token", "bidirectional, mean, prompt out"
    )  # fmt: skip
    with pytest.raises(InputError, match="different tokens, so tokens cannot be compared row by row"):
        compare("ended", causal, ended, instrument(), levels=False)
    means = compare("ended", causal, ended, instrument(tokens="mean"), levels=False)
    assert any("the tokenizers differ; means over texts are compared" in said for said in means["warnings"])
    # Pooled, each side is what its own readout makes of a text: here the end token's state in the place of the word's.
    assert means["readouts"]["b"] == "causal, last token, end token"
    assert means["readouts"]["last"]["cka"] < means["last"]["cka"]


@pytest.mark.parametrize("end", [False, True])
def test_a_causal_run_read_by_its_last_token_is_tracked_by_its_own_readout(
    tmp_path: Path, tiny_backbone: Path, end: bool
) -> None:
    steps = {}
    readout = Readout(
        "causal", "last", include_prompt=True, end_token=end, heads=(Head(32, 8, activation="tanh"),)
    )
    for step in (0, 2):
        model, tokenizer = load_decoder(str(tiny_backbone), bidirectional=False)
        if end:
            add_end_token(tokenizer, "here")
        torch.manual_seed(step)
        embedder = Embedder(model, tokenizer, readout)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(step * 0.02 * torch.randn_like(parameter))
        folder = tmp_path / f"step-{step}"
        save_checkpoint(folder, embedder, max_tokens=64, parent=None, step=step)
        steps[step] = Checkpoint(folder, f"run@{step}", content=str(step))
    measuring = instrument()
    record = compare("run", steps[0], steps[2], measuring, levels=False)
    assert record["a"]["attention"] == "causal"
    assert record["readouts"]["a"].startswith("causal, last token")
    x, y = (
        load_embedder(step.path).encode(
            measuring.probe.texts, prompt="", max_tokens=measuring.settings.max_tokens
        )
        for step in steps.values()
    )
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    cka = np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert record["readouts"]["last"]["cka"] == pytest.approx(cka, abs=1e-4)
    assert abs(record["readouts"]["last"]["cka"] - record["last"]["cka"]) > 1e-3  # not the token states' own
    table = TrackTable(tmp_path / "track.parquet")
    track("run", steps, [Against("first", {None: steps[0]}, 0)], measuring, table)
    [found] = read_trajectories(tmp_path / "track.parquet")
    assert found.steps == (0, 2)


@pytest.mark.slow
def test_minilm_is_measured(real_models: Path) -> None:
    one = Checkpoint(real_models / "minilm", "minilm")
    reader = instrument().open(one)
    assert reader.padded
    from sentence_transformers import SentenceTransformer

    found = compare("same", one, one, instrument(), levels=False)
    assert found["last"]["cka"] == pytest.approx(1)
    vectors, words_ = reader.vectors(TEXTS, 64)
    library = SentenceTransformer(str(real_models / "minilm"), device="cpu")
    np.testing.assert_allclose(vectors, library.encode(TEXTS), atol=1e-6)
    assert words_.endswith("pooling mean")
