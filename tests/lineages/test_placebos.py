"""Placebos take their twin's steps and learn nothing it teaches; how far weights moved is recorded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from reasoning_embedding.config import LineageConfig
from reasoning_embedding.config.lineage import CompletionFiles, DpoStage, SftStage
from reasoning_embedding.data.miniature_world import SUMS
from reasoning_embedding.distributed import World
from reasoning_embedding.errors import InputError
from reasoning_embedding.lineages import dpo, grow, is_current, sft
from reasoning_embedding.lineages.placebos import RandomReward, random_rewards
from reasoning_embedding.lineages.stage_identity import settings_hash
from reasoning_embedding.lineages.tokenizer import world_tokenizer
from tests.factories import write_tiny_backbone

STEPS = {"learning_rate": 1e-3, "steps": 3, "batch_size": 2}


def live_groups(rewards: Any, samples: int = 8) -> int:
    return int((np.reshape(rewards, (-1, samples)).std(axis=1) > 0).sum())


@pytest.mark.parametrize("live", [0.0, 0.25, 0.5, 1.0])
def test_a_random_reward_is_live_as_often_as_its_twins(live: float) -> None:
    rewards = random_rewards(16, 8, live, [3, 7])
    assert live_groups(rewards) == 16 * live
    assert set(np.unique(rewards)) <= {0.0, 1.0}
    assert np.array_equal(rewards, random_rewards(16, 8, live, [3, 7]))
    assert not np.array_equal(random_rewards(16, 8, 1.0, [3, 8]), random_rewards(16, 8, 1.0, [3, 7]))


def test_it_knows_nothing_of_completions_and_ranks_share_one_draw() -> None:
    """The mean reward of right answers is that of wrong ones; two ranks get the halves of what one process gets."""
    state: Any = SimpleNamespace(global_step=4)
    live = {5: 0.5}
    alone = RandomReward(live, 8, 1, World())(["right", "wrong"] * 32, trainer_state=state)
    assert live_groups(alone) == 4
    other = RandomReward(live, 8, 1, World())(["wrong", "right"] * 32, trainer_state=state)
    assert other == alone
    halves = [
        RandomReward(live, 8, 1, World(rank=rank, size=2))(["x"] * 32, trainer_state=state) for rank in (0, 1)
    ]
    assert halves[0] + halves[1] == alone
    with pytest.raises(InputError, match="took no step 6"):
        RandomReward(live, 8, 1, World())(["x"] * 8, trainer_state=SimpleNamespace(global_step=5))


def test_sft_answers_are_those_of_other_prompts(tmp_path: Path) -> None:
    tokenizer = world_tokenizer()
    rows = {}
    for placebo_of in (None, "sft"):
        stage = SftStage(kind="sft", name="s", parent="base", placebo_of=placebo_of, seed=2, **STEPS)
        rows[placebo_of] = sft._rows(stage, tokenizer)[0]
    true, sham = ([row["labels"] for row in rows[kind]] for kind in (None, "sft"))
    assert sorted(true) == sorted(sham)  # nothing but who has which
    same = sum(a == b for a, b in zip(true, sham, strict=True))
    assert same < 0.02 * len(SUMS)  # two sums may have one answer
    width = sum(label == -100 for label in sham[0])
    prompts = [[row["input_ids"][:width] for row in rows[kind]] for kind in (None, "sft")]
    assert prompts[0] == prompts[1]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"p{i}", "completion": f"c{i}"}) + "\n" for i in range(9)))
    data = CompletionFiles(kind="files", paths=[str(file)])
    stage = SftStage(kind="sft", name="s", parent="base", placebo_of="sft", data=data, **STEPS)
    found = [(row["prompt"][1:], row["completion"][1:]) for row in sft._rows(stage, tokenizer)[0]]
    assert all(a != b for a, b in found)
    assert sorted(b for _, b in found) == [str(i) for i in range(9)]


def test_dpo_swaps_about_half_of_its_pairs() -> None:
    true, sham = (
        dpo._rows(
            DpoStage(kind="dpo", name="d", parent="base", placebo_of=placebo_of, **STEPS), world_tokenizer()
        )
        for placebo_of in (None, "dpo")
    )
    swapped = [
        a["chosen"] == b["rejected"] and a["rejected"] == b["chosen"] for a, b in zip(true, sham, strict=True)
    ]
    assert all(a == b or turned for a, b, turned in zip(true, sham, swapped, strict=True))
    assert 0.4 < np.mean(swapped) < 0.6


def lineage(tmp_path: Path) -> LineageConfig:
    """A random base (given), RLVR on a file of prompts, and its placebo."""
    base = write_tiny_backbone(tmp_path / "model")
    file = tmp_path / "problems.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": f"{i} + 1 =", "answer": str(i + 1)}) + "\n" for i in range(8))
    )
    data = {"kind": "files", "paths": [str(file)]}
    reward = "tests.lineages.test_placebos:is_even_length"
    twin = {"kind": "rlvr", "name": "rlvr", "parent": "base", "data": data, "reward": reward, "samples": 4}
    twin |= {"max_completion_tokens": 3, "dead_steps": 50, "learning_rate": 1e-3, "steps": 3, "batch_size": 2}
    stages = [
        {"kind": "given", "name": "base", "path": str(base)},
        twin,
        twin | {"name": "sham", "placebo_of": "rlvr"},
    ]
    return LineageConfig.model_validate(
        {"kind": "lineage", "name": "l", "output_dir": str(tmp_path / "runs"), "stages": stages}
    )


def is_even_length(completion: str, answer: str) -> float:
    return float(len(completion) % 2 == 0)


@pytest.mark.slow
def test_a_placebo_is_matched_to_its_twin_step_by_step(tmp_path: Path) -> None:
    settings = lineage(tmp_path)
    folders = grow(settings, lambda line: None)
    logs = {
        name: [json.loads(line) for line in (folders[name] / "metrics.jsonl").read_text().splitlines()]
        for name in ("rlvr", "sham")
    }
    assert [line["live_groups"] for line in logs["sham"]] == [line["live_groups"] for line in logs["rlvr"]]
    records = {name: json.loads((folders[name] / "provenance.json").read_text()) for name in ("rlvr", "sham")}
    assert records["sham"]["live_updates"] == records["rlvr"]["live_updates"] > 0
    assert records["sham"]["twin"] == records["rlvr"]["content_hash"]
    for name in ("rlvr", "sham"):
        before, after = (AutoModelForCausalLM.from_pretrained(folders[kind]) for kind in ("base", name))
        pairs = zip(before.parameters(), after.parameters(), strict=True)
        norm = torch.cat([(b - a).flatten().double() for a, b in pairs]).norm().item()
        assert records[name]["weight_change"]["norm"] == pytest.approx(norm, rel=1e-6) != 0
    # A placebo of a twin that was grown otherwise is grown anew.
    assert is_current(settings, "sham", folders["sham"], folders["base"])
    (folders["rlvr"] / "model.safetensors").write_bytes((folders["sham"] / "model.safetensors").read_bytes())
    assert not is_current(settings, "sham", folders["sham"], folders["base"])


def test_what_was_grown_before_there_were_placebos_is_known_again() -> None:
    """Their key says nothing where there is none: the hash of a stage is that of a version without it."""
    stage = {"kind": "sft", "name": "s", "parent": "base", **STEPS}
    base = {"kind": "given", "name": "base", "path": "some/model"}
    lineage = LineageConfig.model_validate({"kind": "lineage", "name": "l", "stages": [base, stage]})
    sham = LineageConfig.model_validate(
        {"kind": "lineage", "name": "l", "stages": [base, stage, stage | {"name": "p", "placebo_of": "s"}]}
    )
    own = lineage.stages[1].model_dump(mode="json", exclude={"gates", "threads", "placebo_of"})
    text = json.dumps({"stage": own, "files": []}, sort_keys=True)
    assert settings_hash(lineage, "s") == hashlib.sha256(text.encode()).hexdigest()
    assert settings_hash(sham, "p") != settings_hash(sham, "s")
