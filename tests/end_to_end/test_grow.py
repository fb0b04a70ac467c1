"""A whole lineage at toy size: every stage with the libraries that grow real ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from reasoning_embedding.checkpoints.provenance import content_hash, read_provenance
from reasoning_embedding.config.lineage import LineageConfig, PretrainStage
from reasoning_embedding.data import world
from reasoning_embedding.data.world import SUMS, Sum
from reasoning_embedding.errors import InputError, QualityGateError
from reasoning_embedding.lineages import gates, grow, grow_stage, is_current, rlvr
from reasoning_embedding.lineages.pretrain import pretrain
from reasoning_embedding.lineages.tokenizer import load_tokenizer

ARCHITECTURE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 64, "max_position_embeddings": 64,
}  # fmt: skip
BASE = {
    "kind": "pretrain", "name": "base", "architecture": ARCHITECTURE, "learning_rate": 3e-3, "steps": 20,
    "batch_size": 8, "sequence_length": 24, "corpus": {"kind": "world"},
}  # fmt: skip
SFT = {"kind": "sft", "name": "sft", "parent": "base", "learning_rate": 1e-3, "steps": 8, "batch_size": 16}
RLVR = {
    "kind": "rlvr", "name": "rlvr", "parent": "base", "learning_rate": 1e-3, "steps": 4, "batch_size": 4,
    "samples": 4, "kl": 0.02,
}  # fmt: skip


def lineage(folder: Path, *stages: dict[str, Any], tokenizer: dict[str, Any] | None = None) -> LineageConfig:
    return LineageConfig.model_validate(
        {
            "kind": "lineage",
            "name": "toy",
            "output_dir": str(folder),
            "tokenizer": tokenizer or {"kind": "world"},
            "stages": list(stages),
        }
    )


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[LineageConfig, dict[str, Path], list[str]]:
    """Grow base, SFT and RLVR; at this size nothing is learnt, so RLVR's own condition is lifted."""
    config = lineage(tmp_path_factory.mktemp("lineage"), BASE, SFT, RLVR)
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gates, "RLVR_NEEDS", 0.0)
        folders = grow(config, lines.append)
    return config, folders, lines


def test_each_stage_names_its_parent_by_content(grown) -> None:
    _, folders, _ = grown
    records = {name: read_provenance(folder) or {} for name, folder in folders.items()}
    assert [records[name]["kind"] for name in folders] == ["pretrain", "sft", "rlvr"]
    assert records["base"]["parent"] is None
    base = content_hash(folders["base"])
    for name in ("sft", "rlvr"):
        assert records[name]["parent"]["content_hash"] == base
        assert records[name]["content_hash"] == content_hash(folders[name]) != base
    assert records["sft"]["stage"]["steps"] == 8


def test_each_stage_logs_and_measures(grown) -> None:
    _, folders, lines = grown
    for name, steps in (("base", 20), ("sft", 8), ("rlvr", 4)):
        log = [json.loads(line) for line in (folders[name] / "metrics.jsonl").read_text().splitlines()]
        assert [entry["step"] for entry in log] == list(range(1, steps + 1))
        recorded = json.loads((folders[name] / "gates.json").read_text())
        assert 0 <= recorded["measured"]["sampled_accuracy"] <= recorded["measured"]["pass_at_8"] <= 1
        assert recorded["measured"]["format"] == ("worked" if name == "sft" else "direct")
        assert any(line.startswith(f"{name}: step {steps}/{steps} ") for line in lines)
    assert {"reward", "kl"} <= log[-1].keys()
    assert not list(folders["base"].parent.glob(".*"))


def test_sft_lowers_the_loss_on_worked_solutions(grown) -> None:
    _, folders, _ = grown
    tokenizer = load_tokenizer(folders["base"])
    ids = torch.tensor(tokenizer([s.prompt + s.worked for s in SUMS[::50]])["input_ids"])
    labels = ids.clone()
    labels[:, :5] = -100
    losses = [
        AutoModelForCausalLM.from_pretrained(folders[name])(input_ids=ids, labels=labels).loss.item()
        for name in ("base", "sft")
    ]
    assert losses[1] < losses[0] - 0.1


def test_a_stage_loads_in_a_fresh_process_with_the_same_logits(grown) -> None:
    _, folders, _ = grown
    code = (
        "import sys, torch; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "torch.set_num_threads(1)\n"
        "m = AutoModelForCausalLM.from_pretrained(sys.argv[1]); t = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "assert t.chat_template is None and m.dtype == torch.float32 and 'reasoning_embedding' not in sys.modules\n"
        "print(m(**t('07+5=', return_tensors='pt')).logits.double().sum().item())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folders["rlvr"])],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    model = AutoModelForCausalLM.from_pretrained(folders["rlvr"])
    tokenizer = load_tokenizer(folders["rlvr"])
    here = model(**tokenizer("07+5=", return_tensors="pt")).logits.double().sum().item()
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(here, rel=1e-6)


def test_grown_stages_are_recognised_and_changed_ones_are_not(grown) -> None:
    config, folders, _ = grown
    lines: list[str] = []
    grow(config, lines.append)
    assert lines == ["base: already grown", "sft: already grown", "rlvr: already grown"]
    root = Path(config.output_dir)
    faster = lineage(root, BASE | {"threads": 2}, SFT, RLVR)
    assert is_current(faster, "base", folders["base"], None)
    longer = lineage(root, BASE | {"steps": 21}, SFT, RLVR)
    assert not is_current(longer, "base", folders["base"], None)
    damaged = shutil.copytree(folders["base"], root / "damaged")
    assert is_current(config, "base", damaged, None)
    with (damaged / "config.json").open("a") as file:
        file.write(" ")
    assert not is_current(config, "base", damaged, None)
    # The child's own section is unchanged; another parent makes it another model.
    assert is_current(longer, "sft", folders["sft"], folders["base"])
    assert not is_current(longer, "sft", folders["sft"], folders["rlvr"])


def test_a_missed_gate_stops_the_lineage_and_is_not_grown_twice(tmp_path: Path) -> None:
    config = lineage(tmp_path, BASE | {"steps": 2, "gates": {"greedy_accuracy": 0.9}}, SFT)
    with pytest.raises(QualityGateError, match=r"greedy_accuracy is 0\.\d+, the gate asks for 0\.900"):
        grow(config, lambda _: None)
    root = tmp_path / "toy" / "lineage"
    assert not (root / "sft").exists()
    written = (root / "base" / "model.safetensors").stat().st_mtime_ns
    lines: list[str] = []
    with pytest.raises(QualityGateError):
        grow(config, lines.append)
    assert lines == ["base: already grown"]
    assert (root / "base" / "model.safetensors").stat().st_mtime_ns == written


def test_rlvr_does_not_start_from_a_parent_that_cannot_add(tmp_path: Path) -> None:
    config = lineage(tmp_path, BASE | {"steps": 2}, RLVR)
    with pytest.raises(QualityGateError, match="pass_at_8 of its parent 'base'"):
        grow(config, lambda _: None)
    assert not (tmp_path / "toy" / "lineage" / "rlvr").exists()


def test_a_stage_needs_its_parent(tmp_path: Path) -> None:
    config = lineage(tmp_path, BASE, SFT)
    with pytest.raises(InputError, match="parent 'base' is not grown"):
        grow_stage(config, "sft", tmp_path / "sft", tmp_path / "base", lambda _: None)
    with pytest.raises(InputError, match="no stage 'stf'"):
        grow_stage(config, "stf", tmp_path / "stf", None, lambda _: None)


def test_plain_text_grows_a_bpe_tokenizer_and_a_decoder(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    texts = [f"question {i}: why is {i} {'even' if i % 2 == 0 else 'odd'}?" for i in range(200)]
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    stage = BASE | {"corpus": {"kind": "text", "paths": [str(corpus)]}}
    config = lineage(tmp_path, stage, tokenizer={"kind": "bpe", "vocab_size": 320})
    folder = grow(config, lambda _: None)["base"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.vocab_size == len(load_tokenizer(folder)) == 320
    assert json.loads((folder / "gates.json").read_text())["measured"] is None
    assert is_current(config, "base", folder, None)
    corpus.write_text(json.dumps({"text": "another corpus under the same name"}) + "\n")
    assert not is_current(config, "base", folder, None)


def test_the_finished_weights_are_those_of_the_loop(tmp_path: Path) -> None:
    config = lineage(tmp_path, BASE | {"steps": 3})
    folder = grow(config, lambda _: None)["base"]
    tokenizer = load_tokenizer(folder)
    stage = config.stages[0]
    assert isinstance(stage, PretrainStage)
    model, _ = pretrain(stage, tokenizer, tmp_path / "state", "h", lambda _: None)
    saved = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_reinforcement_raises_the_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One sum instead of a thousand: the toy knows it by heart, and as many wrong answers as told.
    few = (Sum(0, 1),) * 4
    for module in (world, rlvr):
        monkeypatch.setattr(module, "SUMS", few)
    monkeypatch.setattr(gates, "RLVR_NEEDS", 0.0)
    corpus = {"kind": "world", "arithmetic": 1.0, "documents": 0.0, "questions": 0.0, "corrupted": 0.4}
    base = BASE | {"corpus": corpus, "learning_rate": 1e-2, "steps": 60}
    config = lineage(tmp_path, base, RLVR | {"learning_rate": 3e-3, "steps": 20, "samples": 8})
    folder = grow(config, lambda _: None)["rlvr"]
    rewards = [json.loads(line)["reward"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert 0.1 < sum(rewards[:3]) / 3 < 0.75
    assert sum(rewards[-5:]) / 5 > 0.8
