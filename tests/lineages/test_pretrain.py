"""Pre-training: rows, schedule, loss, exact resumption."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from reasoning_embedding.config.backbone import Architecture
from reasoning_embedding.config.lineage import PretrainStage, TextCorpus, WorldCorpus
from reasoning_embedding.errors import InputError, TrainingError
from reasoning_embedding.lineages import pretrain as module
from reasoning_embedding.lineages.corpus import corpus_texts, open_stream
from reasoning_embedding.lineages.cross_entropy import linear_cross_entropy
from reasoning_embedding.lineages.pretrain import learning_rate, pretrain
from reasoning_embedding.lineages.tokenizer import train_bpe, world_tokenizer

TINY = Architecture(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, intermediate_size=64
)


def stage(**changes: object) -> PretrainStage:
    fields = {
        "kind": "pretrain",
        "name": "base",
        "architecture": TINY,
        "corpus": WorldCorpus(kind="world"),
        "learning_rate": 3e-3,
        "steps": 12,
        "batch_size": 4,
        "sequence_length": 16,
    }
    return PretrainStage.model_validate(fields | changes)


def silent(_: str) -> None:
    """Take a progress line."""


def test_loss_and_gradients_equal_the_plain_form() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(37, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, (37,), generator=generator)
    plain = torch.nn.functional.cross_entropy(hidden @ weight.T, targets)
    expected = torch.autograd.grad(3 * plain, (hidden, weight))
    loss = linear_cross_entropy(hidden, weight, targets, chunk=10)
    got = torch.autograd.grad(3 * loss, (hidden, weight))
    assert loss.item() == pytest.approx(plain.item(), abs=1e-12)
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-13, rtol=0)


def test_states_in_half_precision_give_the_gradients_of_single() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, 32, generator=generator).bfloat16().float().requires_grad_()
    weight = (torch.randn(50, 32, generator=generator) / 4).bfloat16().float().requires_grad_()
    targets = torch.randint(0, 50, (300,), generator=generator)
    single = linear_cross_entropy(hidden, weight, targets, chunk=128)
    half = linear_cross_entropy(hidden.bfloat16(), weight, targets, chunk=128)
    assert half.dtype == torch.float32
    assert 0 < abs(half - single).item() < 1e-3
    expected = torch.autograd.grad(single, (hidden, weight))
    for a, b in zip(torch.autograd.grad(half, (hidden, weight)), expected, strict=True):
        assert a.dtype == torch.float32
        assert 0 < (a - b).norm() / b.norm() < 0.01


def test_rate_warms_up_and_ends_at_a_tenth() -> None:
    section = stage(steps=100, warmup_ratio=0.1)
    assert learning_rate(section, 1) == pytest.approx(3e-4)
    assert learning_rate(section, 10) == pytest.approx(3e-3)
    assert learning_rate(section, 55) == pytest.approx(3e-3 * 0.55)
    assert learning_rate(section, 100) == pytest.approx(3e-4)


def test_world_rows_begin_with_a_text_and_depend_on_seed_and_step_alone() -> None:
    tokenizer = world_tokenizer()
    rows = open_stream(stage(), tokenizer).batch(5)
    assert rows.shape == (4, 16)
    assert np.array_equal(rows, open_stream(stage(), tokenizer).batch(5))
    assert not np.array_equal(rows, open_stream(stage(), tokenizer).batch(6))
    assert not np.array_equal(rows, open_stream(stage(seed=1), tokenizer).batch(5))
    ends = {tokenizer.convert_tokens_to_ids(token) for token in (".", "?", "=", "+")}
    assert not ends & set(rows[:, 0].tolist())


def write_corpus(path: Path, texts: list[str]) -> TextCorpus:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts))
    return TextCorpus(kind="text", paths=[str(path)])


def test_packed_rows_hold_the_corpus_end_to_end_once_an_epoch(tmp_path: Path) -> None:
    texts = [f"text number {i} says {i * i}" for i in range(60)]
    corpus = write_corpus(tmp_path / "corpus.jsonl.gz", texts)
    assert list(corpus_texts(corpus, 0)) == texts
    tokenizer = train_bpe(iter(texts), 300)
    stream = open_stream(stage(corpus=corpus, batch_size=2), tokenizer)
    whole = [i for text in texts for i in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    rows = {tuple(whole[i : i + 16]) for i in range(0, len(whole) - 15, 16)}
    per_epoch = len(rows) // 2
    first = [tuple(row) for step in range(1, per_epoch + 1) for row in stream.batch(step).tolist()]
    second = [
        tuple(row) for step in range(per_epoch + 1, 2 * per_epoch + 1) for row in stream.batch(step).tolist()
    ]
    assert len(set(first)) == 2 * per_epoch
    assert set(first) <= rows
    assert first != second
    assert [tuple(row) for row in stream.batch(1).tolist()] == first[:2]


@pytest.mark.parametrize(
    ("line", "what"),
    [("{", "not a JSON object"), ('{"t": 1}', "not a JSON object"), ('{"text": 3}', "no string")],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(InputError, match=what) as error:
        list(corpus_texts(TextCorpus(kind="text", paths=[str(path)]), 0))
    assert f"{path}:2" in str(error.value)


def test_missing_empty_and_short_corpora_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        list(corpus_texts(TextCorpus(kind="text", paths=[str(tmp_path / "none.jsonl")]), 0))
    with pytest.raises(InputError, match="empty"):
        list(corpus_texts(write_corpus(tmp_path / "empty.jsonl.gz", []), 0))
    short = write_corpus(tmp_path / "short.jsonl.gz", ["a few words only"])
    with pytest.raises(InputError, match="a batch asks for"):
        open_stream(stage(corpus=short), train_bpe(iter(["a few words only"]), 300))


def test_training_learns_and_logs(tmp_path: Path) -> None:
    lines: list[str] = []
    _, log = pretrain(stage(steps=30), world_tokenizer(), tmp_path / "s.pt", "h", lines.append)
    assert [entry["step"] for entry in log] == list(range(1, 31))
    assert log[0]["loss"] == pytest.approx(np.log(126), abs=0.3)
    assert np.mean([entry["loss"] for entry in log[-5:]]) < log[0]["loss"] - 0.5
    assert "step 30/30 loss" in lines[-1]
    assert "tokens/s" in lines[-1]


class Killed(BaseException):
    """Stands for the signal that ends a process between two steps."""


def test_a_killed_run_resumes_bitwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, state = world_tokenizer(), tmp_path / "state"
    whole, whole_log = pretrain(stage(), tokenizer, tmp_path / "other.pt", "h", silent)

    monkeypatch.setattr(module, "SECONDS_A_STATE", 0.0)
    monkeypatch.setattr(module, "SECONDS_A_LINE", 0.0)

    def kill(line: str) -> None:
        if line.startswith("step 7/"):
            raise Killed

    with pytest.raises(Killed):
        pretrain(stage(), tokenizer, state, "h", kill)
    lines: list[str] = []
    resumed, log = pretrain(stage(), tokenizer, state, "h", lines.append)
    assert lines[0] == "resumed at step 6/12"
    assert log == whole_log
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_state_of_other_settings_is_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_A_STATE", 0.0)
    pretrain(stage(), world_tokenizer(), tmp_path / "state", "h", silent)
    assert (tmp_path / "state").exists()
    lines: list[str] = []
    pretrain(stage(), world_tokenizer(), tmp_path / "state", "other", lines.append)
    assert not any(line.startswith("resumed") for line in lines)


def test_a_loss_that_is_not_finite_stops_and_names_the_step(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="step"):
        pretrain(stage(learning_rate=1e30, warmup_ratio=0.0), world_tokenizer(), tmp_path / "s", "h", silent)
