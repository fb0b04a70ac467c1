"""A whole lineage at toy size: every stage with the libraries that grow real ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import Result

from reasoning_embedding import api
from reasoning_embedding.checkpoints import ExperimentFolder, RunFolder
from reasoning_embedding.checkpoints.provenance import content_hash, read_provenance
from reasoning_embedding.checkpoints.references import resolve
from reasoning_embedding.config import Analysis
from reasoning_embedding.config.lineage import LineageConfig, PretrainStage
from reasoning_embedding.data import miniature_world as world
from reasoning_embedding.data.miniature_world import SUMS, Sum
from reasoning_embedding.distributed import World
from reasoning_embedding.distributed.harness import run_ranks
from reasoning_embedding.errors import InputError, QualityGateError, SetupError, TrainingError
from reasoning_embedding.experiments.comparisons import analyze_pairs, follow_runs
from reasoning_embedding.hrsa.trajectory import read_trajectories
from reasoning_embedding.lineages import gates, grow, grow_stage, is_current, rlvr
from reasoning_embedding.lineages.dpo import world_preferences
from reasoning_embedding.lineages.pretrain import pretrain
from reasoning_embedding.lineages.step_checkpoints import StepSaver
from reasoning_embedding.lineages.tokenizer import load_tokenizer
from tests.factories import read_lines, write_lines

ARCHITECTURE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 64, "max_position_embeddings": 64,
}  # fmt: skip
BASE = {
    "kind": "pretrain", "name": "base", "architecture": ARCHITECTURE, "learning_rate": 3e-3, "steps": 20,
    "batch_size": 8, "sequence_length": 24, "corpus": {"kind": "world"},
}  # fmt: skip
SFT = {"kind": "sft", "name": "sft", "parent": "base", "learning_rate": 1e-3, "steps": 8, "batch_size": 16}
DPO = {
    "kind": "dpo", "name": "dpo", "parent": "base", "learning_rate": 1e-3, "steps": 6, "batch_size": 16,
    "checkpoints": {"every": 4, "log_spaced": False},
}  # fmt: skip
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
    """Grow base and siblings; at this size nothing is learnt, so RLVR's own condition is lifted."""
    config = lineage(tmp_path_factory.mktemp("lineage"), BASE, SFT, DPO, RLVR)
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gates, "RLVR_NEEDS", 0.0)
        folders = grow(config, lines.append)
    return config, folders, lines


def test_each_stage_names_its_parent_by_content(grown) -> None:
    _, folders, _ = grown
    records = {name: read_provenance(folder) or {} for name, folder in folders.items()}
    assert [records[name]["kind"] for name in folders] == ["pretrain", "sft", "dpo", "rlvr"]
    assert records["base"]["parent"] is None
    base = content_hash(folders["base"])
    for name in ("sft", "dpo", "rlvr"):
        assert records[name]["parent"]["content_hash"] == base
        assert records[name]["content_hash"] == content_hash(folders[name]) != base
    assert records["sft"]["stage"]["steps"] == 8


def test_each_stage_logs_and_measures(grown) -> None:
    _, folders, lines = grown
    for name, steps in (("base", 20), ("sft", 8), ("dpo", 6), ("rlvr", 4)):
        log = read_lines(folders[name] / "metrics.jsonl")
        assert [entry["step"] for entry in log] == list(range(1, steps + 1))
        recorded = json.loads((folders[name] / "gates.json").read_text())
        assert 0 <= recorded["measured"]["sampled_accuracy"] <= recorded["measured"]["pass_at_8"] <= 1
        assert recorded["measured"]["format"] == ("worked" if name == "sft" else "direct")
        assert any(line.startswith(f"{name}: step {steps}/{steps} ") for line in lines)
    # RLVR is the last of them; a step sees 4 prompts of 5 tokens, 4 samples each, and 4 more tokens a sample.
    assert {"reward", "kl", "entropy", "unparsed"} <= log[-1].keys()
    assert all(0 <= entry["live_groups"] <= 1 and 0 < entry["completion_tokens"] <= 4 for entry in log)
    assert all(16 * 6 <= entry["tokens"] <= 16 * 9 for entry in log)
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


def test_preferences_of_the_world_are_right_before_wrong() -> None:
    pairs = world_preferences(0)
    assert all(
        pair["chosen"] == problem.answer != pair["rejected"]
        for pair, problem in zip(pairs, SUMS, strict=True)
    )
    assert world_preferences(0) == pairs != world_preferences(1)


def test_kept_steps_are_models_that_references_find(grown) -> None:
    config, folders, _ = grown
    stage = RunFolder(folders["dpo"])
    assert stage.steps() == [0, 4, 6]
    experiment = folders["dpo"].parents[1]
    assert resolve("lineage:dpo@4", experiment).folder == stage.checkpoint(4)
    assert resolve("lineage:dpo@last", experiment).folder == stage.checkpoint(6)
    assert resolve("lineage:dpo", experiment).folder == folders["dpo"]
    with pytest.raises(InputError, match="names no checkpoint"):
        resolve("lineage:sft@4", experiment)
    ends = [load_file(stage.checkpoint(step) / "model.safetensors") for step in (0, 6)]
    for end, folder in zip(ends, (folders["base"], folders["dpo"]), strict=True):
        for name, value in load_file(folder / "model.safetensors").items():
            assert torch.equal(value, end[name])
    # Kept steps are no part of what the stage is, but it is not whole without them.
    other = shutil.copytree(folders["dpo"], experiment / "copy")
    shutil.rmtree(other / "checkpoints")
    assert content_hash(other) == content_hash(folders["dpo"])
    assert is_current(config, "dpo", folders["dpo"], folders["base"])
    assert not is_current(config, "dpo", other, folders["base"])


def test_hrsa_follows_a_stage_through_its_steps(grown) -> None:
    _, folders, _ = grown
    experiment = folders["dpo"].parents[1]
    analysis = Analysis.model_validate(
        {
            "probe": {"kind": "world"},
            "pairs": [{"name": "steps", "a": "lineage:base", "b": "lineage:dpo@6"}],
            "realignment": [{"name": "dpo", "run": "lineage:dpo", "against": "first"}],
            "max_rows": 200,
            "threads": 1,
        }
    )
    analyze_pairs(analysis, ExperimentFolder(experiment), lambda _: None)
    follow_runs(analysis, ExperimentFolder(experiment), lambda _: None)
    [track] = read_trajectories(experiment / "hrsa" / "track.parquet")
    assert (track.name, track.run, track.steps) == ("dpo", "lineage:dpo", (0, 4, 6))
    cka = track.series["cka"]
    assert cka[0] == pytest.approx(1.0, abs=1e-6)
    assert cka[2] < cka[0]
    assert len(track.spectrum["rankme_sigma"]) == len(track.spectrum["alpha"]) == 3
    pair = json.loads((experiment / "hrsa" / "pairs" / "steps.json").read_text())
    assert pair["last"]["cka"] == pytest.approx(cka[2], abs=1e-6)


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
    assert lines == [f"{name}: already grown" for name in ("base", "sft", "dpo", "rlvr")]
    root = Path(config.output_dir)
    faster = lineage(root, BASE | {"threads": 2}, SFT, DPO, RLVR)
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


def test_python_grows_and_tracks_what_the_command_does(tmp_path: Path, rembed: Callable[..., Result]) -> None:
    base = BASE | {"steps": 4, "checkpoints": {"every": 2, "log_spaced": False}}
    hrsa = {"probe": {"kind": "world"}, "against": "first", "max_rows": 64}
    told = {"kind": "lineage", "output_dir": str(tmp_path), "tokenizer": {"kind": "world"}, "hrsa": hrsa}
    tracks, weights = [], []
    for name in ("python", "command"):
        settings = {**told, "name": name, "stages": [base]}
        if name == "python":
            lines: list[str] = []
            [folder] = api.grow(settings, report=lines.append).values()
            said = "\n".join(lines)
        else:
            (tmp_path / "lineage.yaml").write_text(json.dumps(settings))
            said = rembed("grow", tmp_path / "lineage.yaml").output
            folder = tmp_path / name / "lineage" / "base"
        assert f"base: {folder}" in said
        [written] = [line.partition("track: ")[2] for line in said.splitlines() if "track: " in line]
        assert Path(written) == folder / "hrsa" / "track.parquet"
        [track] = read_trajectories(Path(written))
        tracks.append((track.steps, track.series["cka"]))
        weights.append((folder / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert tracks[0] == tracks[1]
    assert tracks[0][0] == (0, 2, 4)
    assert tracks[0][1][2] < tracks[0][1][0]
    again = api.track(folder, settings=hrsa)
    assert sorted(again["step"].unique()) == [0, 2, 4]
    assert "base: already grown" in rembed("grow", tmp_path / "lineage.yaml").output


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
    write_lines(corpus, [{"text": text} for text in texts])
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
    config = lineage(tmp_path, base, RLVR | {"learning_rate": 1e-3, "steps": 40, "samples": 8})
    folder = grow(config, lambda _: None)["rlvr"]
    rewards = [json.loads(line)["reward"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert 0.1 < sum(rewards[:3]) / 3 < 0.75
    assert sum(rewards[-5:]) / 5 > 0.8


@pytest.fixture
def given(tiny_backbone: Path) -> dict[str, Any]:
    return {"kind": "given", "name": "base", "path": str(tiny_backbone)}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    write_lines(path, rows)
    return {"kind": "files", "paths": [str(path)]}


def own_lineage(folder: Path, *stages: dict[str, Any]) -> LineageConfig:
    place = {"kind": "lineage", "name": "own", "output_dir": str(folder)}
    return LineageConfig.model_validate(place | {"stages": list(stages)})


def test_a_given_checkpoint_grows_siblings_from_files(
    tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_reward_of_e.py").write_text(
        "def share(completion, answer):\n    return sum('e' in word for word in completion.split()) / 4\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rows = [{"question": f"what is {i} + 1", "answer": f"{i + 1} .", "wrong": "0 ."} for i in range(20)]
    files = write_rows(tmp_path / "rows.jsonl", rows) | {"prompt": "Query: {question} ?"}
    more = {"parent": "base", "learning_rate": 3e-3, "steps": 3, "batch_size": 4}
    sft = {"kind": "sft", "name": "sft", "data": files | {"completion": " {answer}"}, "micro_batch": 2}
    dpo = {"kind": "dpo", "name": "dpo", "data": files | {"chosen": "{answer}", "rejected": "{wrong}"}}
    rlvr_ = {"kind": "rlvr", "name": "rlvr", "data": files, "reward": "own_reward_of_e:share"}
    rlvr_ |= {"max_completion_tokens": 4, "samples": 4, "kl": 0.0, "steps": 12, "learning_rate": 1e-2}
    config = own_lineage(tmp_path, given, more | sft, more | dpo, more | rlvr_)
    lines: list[str] = []
    folders = grow(config, lines.append)
    record = read_provenance(folders["base"]) or {}
    assert record["parent"]["path"] == given["path"]
    assert (
        load_file(folders["base"] / "model.safetensors").keys()
        == load_file(Path(given["path"]) / "model.safetensors").keys()
    )
    log = read_lines(folders["rlvr"] / "metrics.jsonl")
    rewards = [entry["reward"] for entry in log]
    margins = [
        json.loads(line)["rewards/margins"]
        for line in (folders["dpo"] / "metrics.jsonl").read_text().splitlines()
    ]
    assert margins[0] == pytest.approx(0, abs=1e-5)  # the policy is its own reference
    assert margins[-1] > 0.02
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 0.3, rewards
    lines.clear()
    grow(config, lines.append)
    assert lines == [f"{name}: already grown" for name in ("base", "sft", "dpo", "rlvr")]
    write_rows(tmp_path / "rows.jsonl", rows[:10])
    assert is_current(config, "base", folders["base"], None)
    assert not is_current(config, "sft", folders["sft"], folders["base"])


def test_conversations_go_through_the_chat_template(tmp_path: Path, tiny_backbone: Path) -> None:
    chat = shutil.copytree(tiny_backbone, tmp_path / "chat")
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} <eos>{% endfor %}"
    (chat / "chat_template.jinja").write_text(template)
    turns = [{"role": "user", "content": "what is 1 + 1"}, {"role": "assistant", "content": "2"}]
    data = write_rows(tmp_path / "rows.jsonl", [{"messages": turns}] * 8)
    base = {"kind": "given", "name": "base", "path": str(chat)}
    sft = SFT | {"steps": 2, "batch_size": 4, "data": data | {"messages": "messages", "chat": True}}
    folders = grow(own_lineage(tmp_path, base, sft), lambda _: None)
    assert load_tokenizer(folders["sft"]).chat_template == template
    plain = {"kind": "given", "name": "plain", "path": str(tiny_backbone)}
    borrowed = base | {"name": "borrowed", "tokenizer_of": "plain"}
    folders = grow(own_lineage(tmp_path / "two", plain, borrowed), lambda _: None)
    assert load_tokenizer(folders["borrowed"]).chat_template is None


def test_rewards_that_are_all_equal_stop_the_stage(tmp_path: Path, given: dict[str, Any]) -> None:
    files = write_rows(tmp_path / "rows.jsonl", [{"prompt": "what is 1 + 1", "answer": "200"}] * 4)
    stage = RLVR | {
        "data": files,
        "reward": "numeric",
        "max_completion_tokens": 2,
        "dead_steps": 2,
        "steps": 9,
    }
    with pytest.raises(
        TrainingError, match=r"equal for 2 steps in a row \(mean reward 0\.000, \d+%"
    ) as error:
        grow(own_lineage(tmp_path, given, stage), lambda _: None)
    assert "step 2 of rlvr" in str(error.value)
    assert not (tmp_path / "own" / "lineage" / "rlvr").exists()


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, what in (("empty", "no checkpoint"), ("n o/t", "neither a folder nor a Hub id")):
        stage = {"kind": "given", "name": "base", "path": str(tmp_path / path) if path == "empty" else path}
        with pytest.raises(InputError, match=what):
            grow(own_lineage(tmp_path, stage), lambda _: None)
    assert not (tmp_path / "own" / "lineage" / "base").exists()
    away = {"kind": "given", "name": "base", "path": "owner/never-downloaded", "revision": "main"}
    with pytest.raises(SetupError, match="cannot be reached"):
        grow(own_lineage(tmp_path, away), lambda _: None)


def test_a_launcher_that_shards_weights_is_refused(
    tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    files = write_rows(tmp_path / "rows.jsonl", [{"prompt": "what is 1 + 1", "completion": "2"}])
    with pytest.raises(SetupError, match="whole model on every rank"):
        grow(own_lineage(tmp_path, given, SFT | {"data": files}), lambda _: None)


def _two_ranks(world: World, folder: Path) -> dict[str, torch.Tensor]:
    config = lineage(folder, BASE | {"steps": 4})
    return load_file(grow(config, lambda _: None, world)["base"] / "model.safetensors")


def test_two_ranks_pre_train_what_one_does(tmp_path: Path) -> None:
    one = _two_ranks(World(), tmp_path / "one")
    first, second = run_ranks(2, _two_ranks, tmp_path / "two")
    for name, value in one.items():
        assert torch.equal(first[name], second[name])
        assert torch.allclose(value, first[name], atol=1e-5), name
    with pytest.raises(TrainingError, match="3 ranks cannot share 8 rows"):
        run_ranks(3, _two_ranks, tmp_path / "three")


@pytest.mark.slow
def test_two_ranks_fine_tune_through_trl(tmp_path: Path, given: dict[str, Any]) -> None:
    rows = [
        {"prompt": f"what is {i} + 1", "completion": f" {i + 1}", "answer": f"{i + 1}"} for i in range(16)
    ]
    files = write_rows(tmp_path / "rows.jsonl", rows)
    pairs = files | {"chosen": "{completion}", "rejected": " 0"}
    stages = [
        given,
        SFT | {"steps": 2, "batch_size": 4, "data": files},
        DPO | {"steps": 2, "batch_size": 4, "data": pairs, "checkpoints": None},
        RLVR | {"steps": 2, "data": files, "reward": "exact_match", "max_completion_tokens": 2},
    ]
    path = tmp_path / "lineage.yaml"
    path.write_text(own_lineage(tmp_path, *stages).model_dump_json())
    words = (
        f"-m torch.distributed.run --nproc_per_node 2 --master_port 29613 -m reasoning_embedding grow {path}"
    )
    done = subprocess.run(
        [sys.executable, *words.split()],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rlvr: step 2/2") == 1
    root = tmp_path / "own" / "lineage"
    for name in ("sft", "dpo", "rlvr"):
        assert is_current(own_lineage(tmp_path, *stages), name, root / name, root / "base")


@pytest.mark.parametrize("stage", [SFT, DPO, RLVR], ids=lambda stage: stage["kind"])
def test_an_interrupted_stage_goes_on_from_its_last_state(
    grown, stage: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "RLVR_NEEDS", 0.0)
    asked = {**stage, "steps": 6, "checkpoints": {"every": 2, "log_spaced": False}}
    config, parent = lineage(tmp_path, BASE, asked), grown[1]["base"]

    def grow_into(
        folder: str, report=lambda line: None
    ) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
        grow_stage(config, stage["name"], tmp_path / folder, parent, report)
        log = read_lines(tmp_path / folder / "metrics.jsonl")
        # Times, and rates and sums made of them.
        kept = [
            {key: value for key, value in entry.items() if "time" not in key and key != "crc32"}
            for entry in log
        ]
        return load_file(tmp_path / folder / "model.safetensors"), kept

    weights, log = grow_into("whole")
    save, seen = StepSaver.save, []

    def killed(self: StepSaver, step: int, model: Any) -> None:
        save(self, step, model)
        seen.append(step)
        if step == 5 and seen.count(5) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(StepSaver, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        grow_into("again")
    # A state that was being written when the process died is not taken up.
    [state] = tmp_path.glob(f".{stage['name']}.*.trainer")
    (state / "checkpoint-5").mkdir()
    lines: list[str] = []
    resumed, log_again = grow_into("again", lines.append)
    assert seen == [0, 1, 2, 3, 4, 5, 4, 5, 6]
    assert "resumed at step 4/6" in lines
    assert log_again == log
    assert all(torch.equal(resumed[name], weights[name]) for name in weights)
    assert RunFolder(tmp_path / "again").steps() == [0, 2, 4, 6]
    assert not list(tmp_path.glob(".*"))
