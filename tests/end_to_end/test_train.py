"""Training through the command line: whole, resumed, killed, loaded elsewhere, and refused."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reasoning_embedding import config
from reasoning_embedding.backbones import precision
from reasoning_embedding.checkpoints import RunFolder, read_provenance
from reasoning_embedding.checkpoints.embedder import load_embedder
from reasoning_embedding.checkpoints.locks import hold
from reasoning_embedding.checkpoints.run_records import read_settings
from reasoning_embedding.config.resolved import differences
from reasoning_embedding.losses import ContrastiveLoss
from reasoning_embedding.secrets import unsealed
from tests.factories import read_lines, write_lines
from tests.processes import Forked, accelerate_launch, torchrun, verb

Write = Callable[..., Path]
Rembed = Callable[..., Any]
TEXTS = ["red cat dog", "the moon sees a small river", "king"]


def _weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(RunFolder(run).checkpoint(step) / "model.safetensors")


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_what_the_contract_promises(write_run: Write, rembed: Rembed, tmp_path: Path) -> None:
    rembed("train", write_run())
    run = RunFolder(tmp_path / "runs" / "run")
    assert run.steps() == [0, 3, 6]
    assert run.state_steps() == [3, 6]
    assert json.loads(run.config_json.read_text())["seed"] == 0
    assert run.config_yaml.read_text() == (tmp_path / "run.yaml").read_text()
    manifest = json.loads(run.manifest.read_text())
    assert manifest["rows"] == 40
    assert len(manifest["data_fingerprint"]) == 64
    metrics = read_lines(run.metrics)
    assert [record["step"] for record in metrics] == [1, 2, 3, 4, 5, 6]
    assert all(record["padding_efficiency"] == 1 and record["tokens_per_second"] > 0 for record in metrics)
    phases = {"data", "forward", "loss", "backward", "communication", "optimizer", "evaluation", "other"}
    for line in metrics:
        assert phases <= set(line["time"]) <= phases | {"save"}
        spent = sum(line["time"].values()) - line["time"].get("save", 0) - line["time"]["evaluation"]
        assert line["seconds"] == pytest.approx(spent)
        assert (line["token_imbalance"], line["mfu"]) == (0, None)
    assert "save" in metrics[3]["time"], "a checkpoint is written after its step's record"
    assert manifest["memory"]["mode"] == "store"
    assert manifest["memory"]["bytes_per_token"] > 100
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    record = read_provenance(run.checkpoint(6))
    assert record is not None
    assert (record["kind"], record["step"], record["run"]) == ("contrastive", 6, "run")
    assert not _same(_weights(run.path, 0), _weights(run.path, 6))


def test_a_checkpoint_loads_with_stock_libraries_in_a_fresh_process(
    write_run: Write, rembed: Rembed, tmp_path: Path
) -> None:
    rembed("train", write_run(), "training.steps=3")
    folder = RunFolder(tmp_path / "runs" / "run").checkpoint(3)
    ours = load_embedder(folder)
    np.save(tmp_path / "plain.npy", ours.encode(TEXTS))
    np.save(tmp_path / "query.npy", ours.encode(TEXTS, prompt=ours.prompts["query"]))
    code = f"""
import numpy as np, torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer
texts = {TEXTS!r}
model = SentenceTransformer({str(folder)!r}, device="cpu")
assert model.prompts["query"] == "Instruct: find the answer\\nQuery: ", model.prompts
plain, query = np.load({str(tmp_path / "plain.npy")!r}), np.load({str(tmp_path / "query.npy")!r})
assert np.abs(model.encode(texts) - plain).max() < 1e-5
assert np.abs(model.encode(texts, prompt_name="query") - query).max() < 1e-5
assert np.abs(plain - query).max() > 1e-3
tokenizer = AutoTokenizer.from_pretrained({str(folder)!r})
decoder = AutoModel.from_pretrained({str(folder)!r})
assert decoder.config.is_causal is False
batch = tokenizer(texts, padding=True, return_tensors="pt")
states = decoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
mask = batch["attention_mask"][..., None]
pooled = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).detach().numpy()
assert np.abs(pooled - plain).max() < 1e-5
print("equal")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stdout.strip().endswith("equal"), found.stderr[-2000:]


def test_a_tracker_that_is_missing_leaves_no_run_behind(
    write_run: Write, rembed: Rembed, tmp_path: Path
) -> None:
    result = rembed("train", write_run(), 'logging.trackers=["trackio"]', code=3)
    assert "names trackio, which is not installed" in result.output
    assert not RunFolder(tmp_path / "runs" / "run").steps()
    rembed("train", write_run())  # the folder is free


def test_any_seed_trains(write_run: Write, rembed: Rembed, tmp_path: Path) -> None:
    rembed("train", write_run(), f"seed={2**62}", "training.steps=1")
    assert RunFolder(tmp_path / "runs" / "run").steps() == [0, 1]


def test_bf16_computes_in_fp32_where_a_processor_has_no_products_for_it(
    write_run: Write, rembed: Rembed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: dict[str, dict[str, torch.Tensor]] = {}
    said: dict[str, str] = {}
    for name, asked, has in (("fp32", "fp32", True), ("software", "bf16", False), ("bf16", "bf16", True)):
        monkeypatch.setattr(precision, "multiplies_bfloat16", lambda has=has: has)
        result = rembed("train", write_run(), f"name={name}", f"training.precision={asked}")
        said[name] = " ".join(result.output.split())
        weights[name] = _weights(tmp_path / "runs" / name, 6)
        manifest = json.loads(RunFolder(tmp_path / "runs" / name).manifest.read_text())
        assert manifest["compute_dtype"] == ("bfloat16" if name == "bf16" else "float32")
        assert ("no bfloat16 products" in said[name]) == (name == "software")
    assert _same(weights["fp32"], weights["software"])
    assert not _same(weights["fp32"], weights["bf16"])


def test_a_chat_template_does_not_reach_the_texts(
    write_run: Write, rembed: Rembed, tmp_path: Path, tiny_backbone: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    chat = tmp_path / "chat"
    shutil.copytree(tiny_backbone, chat)
    (chat / "chat_template.jinja").write_text(
        "{% for m in messages %}<eos> {{ m['content'] }} <eos>{% endfor %}"
    )
    path = write_run(extra={"backbone": {"kind": "pretrained", "path": str(chat)}})
    rembed("train", path, "training.steps=1")
    folder = RunFolder(tmp_path / "runs" / "run").checkpoint(1)
    stock = SentenceTransformer(str(folder), device="cpu")
    assert stock.tokenizer.chat_template  # the trap is set
    np.testing.assert_allclose(stock.encode(TEXTS), load_embedder(folder).encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora": {"rank": 2, "dropout": 0.2}},
        {"optimizer": {"kind": "muon"}, "activation_checkpointing": "selective", "memory": "replay"},
    ],
    ids=["full", "lora", "muon"],
)
def test_resume_is_bitwise(
    write_run: Write, rembed: Rembed, tmp_path: Path, settings: dict[str, Any]
) -> None:
    rembed("train", write_run("whole", **settings))
    rembed("train", write_run("cut", **settings))
    whole, cut = tmp_path / "runs" / "whole", tmp_path / "runs" / "cut"
    for folder in (RunFolder(cut).checkpoint(6), RunFolder(cut).state(6)):
        shutil.rmtree(folder)
    with RunFolder(cut).metrics.open("a") as file:
        file.write('{"step": 7, "lo')  # what a killed process leaves
    rembed("train", write_run("cut", **settings), "--resume")
    assert _same(_weights(whole, 6), _weights(cut, 6))
    lines = [read_lines(RunFolder(r).metrics) for r in (whole, cut)]
    assert [x["loss"] for x in lines[0]] == [x["loss"] for x in lines[1]]


def test_memory_modes_and_recomputation_train_to_the_same_weights(
    write_run: Write, rembed: Rembed, tmp_path: Path
) -> None:
    ways: dict[str, dict[str, Any]] = {
        "auto": {},
        "replay": {"memory": "replay"},
        "layers": {"activation_checkpointing": True},
        "selective": {"activation_checkpointing": "selective", "memory": "hybrid", "store_tokens": 100},
    }
    modes = {}
    for name, settings in ways.items():
        rembed("train", write_run(name, pack_tokens=60, **settings), "training.steps=2")
        modes[name] = json.loads(RunFolder(tmp_path / "runs" / name).manifest.read_text())["memory"]["mode"]
        assert _same(_weights(tmp_path / "runs" / name, 2), _weights(tmp_path / "runs" / "auto", 2)), name
    assert modes == {
        "auto": "store",
        "replay": "replay",
        "layers": "store",
        "selective": "hybrid",
    }
    refused = rembed("train", write_run("small", pack_tokens=60, memory_gib=0.001), code=3)
    assert "training.memory_gib: a pack of" in refused.output
    assert "set training.activation_checkpointing=selective" in refused.output
    assert not RunFolder(tmp_path / "runs" / "small").metrics.exists(), "refused before the first step"


def test_lora_checkpoints_are_plain_models(write_run: Write, rembed: Rembed, tmp_path: Path) -> None:
    rembed("train", write_run(lora={"rank": 2}))
    run = RunFolder(tmp_path / "runs" / "run")
    first, last = _weights(run.path, 0), _weights(run.path, 6)
    assert not any("lora" in name for name in last)
    assert first.keys() == last.keys()
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    assert changed
    assert all("proj" in name for name in changed)


def _wait_for(run: RunFolder, steps: int, process: Forked) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if run.metrics.exists() and len(run.metrics.read_text().splitlines()) >= steps:
            return
        time.sleep(0.005)
    raise AssertionError(f"no {steps} steps within a minute: {process.said}")


def test_killed_and_terminated_runs_go_on_to_the_same_weights(
    write_run: Write, rembed: Rembed, tmp_path: Path
) -> None:
    changes = {"checkpoints": {"every": 20, "log_spaced": True}}
    rembed("train", write_run("whole", changes, steps=120))
    config = write_run("hit", changes, steps=120)
    run = RunFolder(tmp_path / "runs" / "hit")

    process = Forked(lambda: verb("train", config), tmp_path / "killed.txt")
    _wait_for(run, 25, process)
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert run.steps()[-1] < 120
    for step in run.steps():
        load_embedder(run.checkpoint(step))  # only whole checkpoints

    process = Forked(lambda: verb("train", config, "--resume"), tmp_path / "terminated.txt")
    _wait_for(run, 50, process)
    process.send(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM, process.said
    assert "its state is saved" in process.said
    assert "Traceback" not in process.said
    assert run.steps()[-1] < 120

    rembed("train", config, "--resume")
    assert run.steps()[-1] == 120
    assert _same(_weights(tmp_path / "runs" / "whole", 120), _weights(run.path, 120))


def test_a_second_process_is_refused(write_run: Write, rembed: Rembed, tmp_path: Path) -> None:
    with hold(RunFolder(tmp_path / "runs" / "run").lock, refusal="", todo=""):
        assert "another process" in rembed("train", write_run(), code=2).output


def test_two_ranks_under_torchrun_equal_one(write_run: Write, rembed: Rembed, tmp_path: Path) -> None:
    rembed("train", write_run("one"))
    process = Forked(torchrun(2, "train", write_run("two")), tmp_path / "said.txt")
    assert process.wait() == 0, process.said
    assert json.loads(RunFolder(tmp_path / "runs" / "two").manifest.read_text())["ranks"] == 2
    one, two = _weights(tmp_path / "runs" / "one", 6), _weights(tmp_path / "runs" / "two", 6)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=2e-5)


def test_accelerate_launch_runs_it(write_run: Write, tmp_path: Path) -> None:
    job = accelerate_launch(["--cpu", "--num_processes", "1"], "train", write_run(), "training.steps=2")
    process = Forked(job, tmp_path / "said.txt")
    assert process.wait() == 0, process.said
    assert RunFolder(tmp_path / "runs" / "run").steps() == [0, 2]


@pytest.mark.slow  # the same launchers as above, with an interpreter of its own for every process
@pytest.mark.parametrize(
    ("launcher", "ranks"),
    [
        ("torch.distributed.run --standalone --nproc_per_node 2", 2),
        ("accelerate.commands.launch --cpu --num_processes 1", 1),
    ],
)
def test_launchers_run_it_in_fresh_processes(
    launcher: str, ranks: int, write_run: Write, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", *launcher.split(), "-m", "reasoning_embedding", "train"]
    found = subprocess.run(
        [*command, str(write_run()), "training.steps=2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    assert RunFolder(tmp_path / "runs" / "run").steps() == [0, 2]
    assert json.loads(RunFolder(tmp_path / "runs" / "run").manifest.read_text())["ranks"] == ranks


def test_nan_stops_before_it_reaches_the_weights(
    write_run: Write, rembed: Rembed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, compute = 0, ContrastiveLoss.compute

    def breaking(*arguments: Any, **options: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        nonlocal calls
        calls += 1
        gradient, sums = compute(*arguments, **options)
        factor = math.nan if calls == 5 else 1
        return gradient, sums | {"loss": sums["loss"] * factor}

    monkeypatch.setattr(ContrastiveLoss, "compute", breaking)
    result = rembed("train", write_run(), code=1)
    assert "the loss is nan at step 5" in result.output
    run = RunFolder(tmp_path / "runs" / "run")
    assert run.steps() == [0, 3]
    assert all(bool(value.isfinite().all()) for value in _weights(run.path, 3).values())


def test_a_full_disk_keeps_what_was_saved(
    write_run: Write, rembed: Rembed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reasoning_embedding.checkpoints import state

    saved = 0

    def fill(*arguments: object, **options: object) -> None:
        nonlocal saved
        saved += 1
        if saved == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments, **options)

    real = state.save_file
    monkeypatch.setattr(state, "save_file", fill)
    result = rembed("train", write_run(), code=3)
    assert "the disk is full" in result.output
    assert RunFolder(tmp_path / "runs" / "run").state_steps() == [0, 3]
    monkeypatch.setattr(state, "save_file", real)
    rembed("train", write_run(), "--resume")
    assert RunFolder(tmp_path / "runs" / "run").state_steps() == [3, 6]


def test_a_damaged_checkpoint_is_not_resumed(write_run: Write, rembed: Rembed, tmp_path: Path) -> None:
    rembed("train", write_run())
    run = RunFolder(tmp_path / "runs" / "run")
    for folder in (run.checkpoint(6), run.state(6)):
        folder.rename(folder.with_name("old-" + folder.name))
    weights = run.checkpoint(3) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-7] ^= 1
    weights.write_bytes(content)
    result = rembed("train", write_run(), "--resume", code=2)
    assert "files differ" in result.output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["training.lerning_rate=1"], 2, "learning_rate"),
        (["training.batch_size=64"], 2, "batch"),
        (["data.sources.0.path=absent.jsonl"], 2, "absent.jsonl"),
        (["backbone.path=./absent"], 2, "no such folder"),
        (["loss.temperature=0"], 2, "greater than 0"),
    ],
)
def test_mistakes_are_named(write_run: Write, rembed: Rembed, words: list[str], code: int, said: str) -> None:
    output = rembed("train", write_run(), *words, code=code).output
    assert said in output
    assert "Traceback" not in output


def test_a_backbone_that_stays_causal_is_refused(
    write_run: Write, rembed: Rembed, tmp_path: Path, tiny_backbone: Path
) -> None:
    from transformers import AutoTokenizer

    from tests.models import tiny_decoder

    folder = tmp_path / "stablelm"
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    tiny_decoder("stablelm", vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    output = rembed("train", write_run(), f"backbone.path={folder}", code=2).output
    assert str(folder) in output
    assert "honours config.is_causal" in output
    assert not (tmp_path / "runs" / "run" / "checkpoints").exists()


def test_a_run_folder_in_use_is_not_overwritten(write_run: Write, rembed: Rembed) -> None:
    rembed("train", write_run())
    assert "already holds steps 0 to 6" in rembed("train", write_run(), code=2).output
    changed = rembed("train", write_run(), "--resume", "training.learning_rate=0.1", code=2).output
    assert "other settings (training.learning_rate)" in changed
    assert "finished before" in rembed("train", write_run(), "--resume").output


def test_rows_that_cannot_be_used(write_run: Write, rembed: Rembed, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    good = '{"query": "red cat", "pos": ["red cat dog"]}\n'
    bad.write_text(good + '{"query": "blue dog", "pos": []}\n' + good * 9)
    output = rembed("train", write_run(), f"data.sources.0.path={bad}", code=2).output
    assert "bad.jsonl:2" in output
    skipped = rembed(
        "train", write_run(), f"data.sources.0.path={bad}", "data.bad_rows=skip", "training.steps=1"
    )
    assert "1 bad rows skipped" in skipped.output
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    rembed("train", write_run("other"), f"data.sources.0.path={empty}", code=2)


def test_a_text_of_100000_words_is_cut(write_run: Write, rembed: Rembed, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    records = [{"query": "red cat", "pos": ["king " * 100_000]}, *[{"query": "dog", "pos": ["moon"]}] * 8]
    write_lines(path, records)
    rembed("train", write_run(), f"data.sources.0.path={path}", "training.steps=1", "training.batch_size=9")
    tokens = json.loads(RunFolder(tmp_path / "runs" / "run").metrics.read_text())["tokens"]
    assert tokens < 32 + 20


def test_an_unwritable_folder(write_run: Write, rembed: Rembed, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file stands here")
    result = rembed("train", write_run(), code=3)
    assert "a file stands where a folder should be" in result.output
    assert os.path.isfile(tmp_path / "runs")  # noqa: PTH113


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("false", [("compile", False)]),
        ("true", [("recompute", True), ("compile", False)]),
        ("selective", [("compile", True)]),
    ],
)
def test_a_compiler_makes_elementwise_work_again_itself(
    kind: str,
    asked: list[tuple[str, bool]],
    write_run: Write,
    rembed: Rembed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[tuple[str, bool]] = []
    job = "reasoning_embedding.training.setup"
    monkeypatch.setattr(
        f"{job}.compile_layers", lambda model, *, selective: found.append(("compile", selective))
    )
    monkeypatch.setattr(f"{job}.recompute_activations", lambda model, kind: found.append(("recompute", kind)))
    options = ("training.steps=1", "training.compile=true", f"training.activation_checkpointing={kind}")
    rembed("train", write_run(), *options)
    assert found == asked


def test_secrets_are_in_no_file_of_a_run_and_its_settings_are_known_again(
    write_run: Write, rembed: Rembed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Literal tokens and a variable's value, in the text as written, the settings, the manifest and the metrics."""
    github, gitlab, password = "ghp_" + "a1B2" * 9, "glpat-" + "x9Yz" * 5, "correct-horse-7"
    monkeypatch.setenv("PGPASSWORD", password)
    path = write_run(extra={"logging": {"tensorboard": False, "project": github, "group": password}})
    path.write_text(path.read_text() + f"# once it was {gitlab}\n")
    rembed("train", path, "training.steps=3")
    run = RunFolder(tmp_path / "runs" / "run")
    secrets = [secret.encode() for secret in (github, gitlab, password)]
    files = [file for file in run.path.rglob("*") if file.is_file()]
    assert {run.config_yaml, run.config_json, run.manifest, run.metrics} <= set(files)
    leaks = {file.name for file in files if any(secret in file.read_bytes() for secret in secrets)}
    assert leaks == set()
    assert (run.path / ".secret-key").stat().st_mode & 0o777 == 0o600
    saved = json.loads(run.config_json.read_text())
    assert saved["logging"]["project"] != saved["logging"]["group"]
    assert saved["name"] == "run"

    shutil.move(run.path, tmp_path / "runs" / "moved")
    shutil.rmtree(
        RunFolder(tmp_path / "runs" / "moved").checkpoint(3)
    )  # so that there is something to do again
    shutil.move(tmp_path / "runs" / "moved", run.path)
    monkeypatch.delenv("PGPASSWORD")  # what was sealed is known again by its digest, not by its variable
    rembed("train", path, "training.steps=3", "--resume")
    another = f"logging.project=ghp_{'a1B3' * 9}"
    for words, changed in ((), []), ((another,), ["logging.project"]):
        now = config.resolved_json(config.load_config(path, ["training.steps=3", *words]).config)
        found = differences(unsealed(read_settings(run), now, run.path), now)
        assert [key for key, *_ in found] == changed
    named = f"data.sources.0.name={gitlab}"  # it becomes the name of a prompt in every checkpoint
    assert "name holds an access token" in rembed("train", path, named, code=2).output
