"""What users see, word for word: schemas, help, messages, tables, pages and model cards.

Written before the package was taken apart and put together again, so that what changes on the way is seen.
``python -m tests.goldens.test_interface --write`` writes the files anew; their diff is then what users will notice.
Almost everything goes through the command line, because modules move and verbs do not.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from reasoning_embedding import __version__
from reasoning_embedding.cli.main import main
from reasoning_embedding.config.json_schema import published_schemas
from reasoning_embedding.config.reading.loading import KINDS
from reasoning_embedding.publishing import export, plan_release
from reasoning_embedding.publishing.facts import About
from reasoning_embedding.reports.pages.experiment import still_charts
from reasoning_embedding.reports.pages.merge import build_merge, merge_tables
from reasoning_embedding.reports.reading import read_experiment
from tests.config.config_files import EXPERIMENT, RUN
from tests.publishing.published_run import write_checkpoint, write_run
from tests.synthetic_experiment import write_experiment, write_scored_runs

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDENS = Path(__file__).resolve().parent / "interface"
#: Cases whose files are published, and where.
PUBLISHED = {"schemas": REPOSITORY / "docs" / "schema"}
#: Misspellings of each shipped configuration.
SAMPLE = 12
#: Sections whose keys are the user's own names.
FREE = {"weights", "extra"}
SURROUNDINGS = {
    "COLUMNS": "100",
    "LINES": "40",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "HF_HUB_OFFLINE": "1",
    "HERE": "here",
    "MY_TOKEN": "a-secret-value",
}

Files = dict[str, str]


# --- the command line ------------------------------------------------------------------------------


def rembed(*words: str) -> tuple[int, str, str]:
    """Run a verb in this process; returns its exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as stopped:
            code = stopped.code
    return int(code or 0), out.getvalue(), err.getvalue()


def transcript(*words: str) -> str:
    """What a terminal would show of a verb, and its exit code."""
    code, out, err = rembed(*words)
    parts = [
        f"$ rembed {' '.join(words)}",
        out.rstrip("\n"),
        err.rstrip("\n"),
        f"(exit {code})" if code else "",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def output(*words: str) -> str:
    """Standard output of a verb that must not fail."""
    code, out, err = rembed(*words)
    assert code == 0, f"rembed {' '.join(words)} ended with {code}\n{out}\n{err}"
    return out


# --- cases: name -> function of an empty folder (also the working folder) that returns texts --------------


def schemas(folder: Path) -> Files:
    """The JSON schemas as they are published: editors read them, so their files stand in docs/schema."""
    return {
        name: json.dumps(schema, indent=1, ensure_ascii=False)
        for name, schema in published_schemas(KINDS).items()
    }


def helps(folder: Path) -> Files:
    whole = transcript("--help")
    verbs = listed(whole)
    parts = [whole, transcript("--version")]
    for verb in verbs:
        text = transcript(verb, "--help")
        parts += [text, *(transcript(verb, inner, "--help") for inner in listed(text))]
    return {"help.txt": "\n".join(parts)}


def listed(text: str) -> list[str]:
    """Verbs under the heading ``Commands:`` of a help."""
    _, _, commands = text.partition("\nCommands:\n")
    return re.findall(r"^  ([a-z][\w-]*)", commands, flags=re.MULTILINE)


def misspellings(folder: Path) -> Files:
    """Some keys of every shipped configuration with one letter wrong.

    Keys and letters are chosen by a hash of where they stand, so that a key more or less changes few of them.
    """
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    parts = []
    # Files of a folder ``accelerate`` are the launcher's, which checks them itself.
    for path in sorted(Path("configs").rglob("*.yaml")):
        if path.parent.name == "accelerate":
            continue
        text = path.read_text(encoding="utf-8")
        keys = [(_draw(path, *where), key, mark) for *where, key, mark in keys_of(yaml.compose(text))]
        for draw, key, mark in sorted(keys, key=lambda item: item[0])[:SAMPLE]:
            wrong = misspelt(key, draw)
            path.write_text(text[: mark.index] + wrong + text[mark.index + len(key) :], encoding="utf-8")
            parts.append(f"# {key} -> {wrong}\n" + transcript("config", "check", str(path)))
        path.write_text(text, encoding="utf-8")
    return {"misspelt-keys.txt": "\n".join(parts)}


def keys_of(node: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """(path, key, mark) of every key of a YAML document that is not the user's own name."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = f"{path}.{key.value}"
            yield here, key.value, key.start_mark
            if key.value not in FREE:
                yield from keys_of(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from keys_of(value, f"{path}.{index}")


def misspelt(key: str, draw: int) -> str:
    """A letter left out, another in its place, or two neighbours exchanged."""
    at, letter = draw % len(key), "abcdefghijklmnopqrstuvwxyz"[draw // 7 % 26]
    forms = (
        key[:at] + key[at + 1 :],
        key[:at] + letter + key[at + 1 :],
        key[:at] + key[at : at + 2][::-1] + key[at + 2 :],
    )
    return next((form for form in (forms[draw // 3 % 3], *forms) if form and form != key), key + letter)


def _draw(*words: object) -> int:
    text = "\n".join(str(word).replace(os.sep, "/") for word in words)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


LINEAGE = """\
kind: lineage
name: demo
stages:
  - {kind: given, name: base, path: some/model}
  - kind: rlvr
    name: rlvr
    parent: base
    learning_rate: 1e-5
    steps: 4
    batch_size: 2
"""
MERGE = """\
kind: merge
name: demo
models: [runs/a@last, runs/b@last]
method: {kind: slerp}
path: {t: [0, 0.5, 1], beside: [{kind: linear}]}
evaluation: {tasks: [{kind: world}]}
"""
SWEEP = """\
kind: sweep
name: demo
metric: evaluation.task.a
base: run.yaml
grid:
  training.learning_rate: [1e-4, 1e-3, 1e-2]
  seed: [0, 1]
"""
TEXTS = {"run": RUN, "experiment": EXPERIMENT, "lineage": LINEAGE, "merge": MERGE, "sweep": SWEEP}

#: (kind, what is replaced, by what): one mistake in a file that is otherwise right.
EDITS = (
    ("run", "  steps: 10", "  stpes: 10"),
    ("run", "  steps: 10", "  log_spaced: true"),
    ("run", "name: demo", "name: demo\nlerning_rate: 1"),
    ("run", "name: demo", "name: demo\nextend: x"),
    ("run", "name: demo", "name: demo\nname: other"),
    ("run", "name: demo", "name: 12"),
    ("run", "name: demo", "name: ../x"),
    ("run", "name: demo\n", ""),
    ("run", "name: demo", "name: a/b\nname: c\nfoo: 1\ntrainin: {}"),
    ("run", "kind: run", "kind: runn"),
    ("run", "kind: run\n", ""),
    ("run", "kind: run", "kind: lineage"),
    ("run", "  steps: 10", "  steps: 0"),
    ("run", "  steps: 10", "  steps: 1e2"),
    ("run", "  steps: 10", "  steps: '10'"),
    ("run", "  steps: 10", "  steps: true"),
    ("run", "  steps: 10", "  steps: .nan"),
    ("run", "  steps: 10", "  learning_rate: .nan"),
    ("run", "  steps: 10", "  compile: no"),
    ("run", "  steps: 10", "  activation_checkpointing: no"),
    ("run", "  steps: 10", "  schedule: cosin"),
    ("run", "  steps: 10", "  betas: [0.1]"),
    ("run", "  steps: 10", "  betas: [0.1, 1]"),
    ("run", "  steps: 10", "  steps: 10\n  epochs: 1"),
    ("run", "training:\n  steps: 10", "training: 3"),
    ("run", "      path: rows.jsonl", "      pth: rows.jsonl"),
    ("run", "      path: rows.jsonl", "      path: ''"),
    ("run", "      path: rows.jsonl", '      path: "${NOT_SET_ANYWHERE}/x"'),
    ("run", "      path: rows.jsonl", '      path: "${MY_TOKEN}/x"'),
    ("run", "      path: rows.jsonl", '      path: "${a b}"'),
    ("run", "    - kind: files", "    - kind: file"),
    ("run", "  kind: random\n", ""),
    ("run", "  kind: random\n", "  knd: random\n"),
    ("run", "  tokenizer: some/folder", "  tokenizer: x\n  extra: 1"),
    ("run", "  sources:\n    - kind: files\n      path: rows.jsonl", "  sources: []"),
    ("run", "kind: run", "kind: !foo run"),
    ("run", "kind: run", "<<: {kind: run}"),
    ("run", "kind: run", "kind: run\n1: x"),
    ("run", "kind: run", "kind: [run"),
    ("run", "kind: run", "kind: a: b"),
    ("run", "  steps: 10", "\tsteps: 10"),
    ("run", "  steps: 10", "  steps: 10\n---\nkind: run"),
    ("run", "  steps: 10", "  steps: *nowhere"),
    ("run", "  steps: 10", "  steps: @10"),
    ("run", RUN, ""),
    ("run", RUN, "- 1\n- 2\n"),
    ("run", "kind: run", "extends: gone.yaml"),
    ("run", "kind: run", "extends: run.yaml"),
    ("run", "kind: run", "extends: [experimnt.yaml]"),
    ("run", "kind: run", "extends: ''"),
    ("run", "kind: run", "extends: 3"),
    ("experiment", "name: sft\n", "name: base\n"),
    ("experiment", "parent: base", "parent: bse"),
    ("experiment", "name: two", "name: one"),
    ("experiment", "{name: one, backbone: base}", "{name: one, backbone: 3}"),
    ("experiment", "{name: one, backbone: base}", "{name: one, backbone: {kind: pretrained}}"),
    ("experiment", "backbone: sft", "backbone: sftt"),
    ("experiment", "steps: [0, 5]", "steps: [0, x]"),
    ("experiment", "steps: [0, 5]", "steps: alll"),
    ("experiment", "[q_proj]", "[1]"),
    ("experiment", "run:two@last", "run:tow@last"),
    ("experiment", "run:two@last", "lineage:gone"),
    ("experiment", "run:two@last", "lineage:sft@4"),
    ("experiment", "run: one", "run: uno"),
    ("experiment", "seed_band: p", "seed_band: q"),
    ("experiment", "seed_band: p", "seed_band: [p, P]"),
    ("experiment", "seed_band: p", "seed_band: [p, p]"),
    ("experiment", "seed_band: p", "seed_band: []"),
    ("experiment", "probe: {kind: world}", "probe: {kind: text, path: 1, text: 2}"),
    ("experiment", "tokenizer: {kind: world}", "tokenizer: null"),
    ("lineage", "parent: base", "parent: sft"),
    ("lineage", "batch_size: 2", "batch_size: 2\n    reward: exact_macth"),
    ("lineage", "batch_size: 2", "batch_size: 2\n    data: {kind: files, paths: [rows.jsonl]}"),
    ("lineage", "batch_size: 2", "batch_size: 2\nhrsa: {probe: {kind: world}}"),
    ("lineage", "path: some/model", "path: some/model, tokenizer_of: other"),
    ("merge", "[runs/a@last, runs/b@last]", "[runs/a@last]"),
    ("merge", "[runs/a@last, runs/b@last]", "[a, b, c]"),
    ("merge", "method: {kind: slerp}", "method: {kind: linear, weights: [1, 2, 3]}"),
    ("merge", "method: {kind: slerp}", "method: {kind: linear, weights: [1, -1]}"),
    ("merge", "method: {kind: slerp}", "method: {kind: linear, decay: 0.5}"),
    ("merge", "method: {kind: slerp}", "method: {kind: slerp, t: 0.5}"),
    ("merge", "method: {kind: slerp}", "method: {kind: ties, base: x}"),
    ("merge", "method: {kind: slerp}", "method: {kind: linear}"),
    ("merge", "method: {kind: slerp}", "method: {kind: serlp}"),
    ("merge", "[0, 0.5, 1]", "[0, 1, 0.5]"),
    ("merge", "{tasks: [{kind: world}]}", "{tasks: [{kind: world}], steps: all}"),
    ("sweep", "  training.learning_rate", "  training.lerning_rate"),
    ("sweep", "  training.learning_rate", "  trainin.learning_rate"),
    ("sweep", "seed: [0, 1]", "seed: [0, x]"),
    ("sweep", "seed: [0, 1]", "seed: [1, 1]"),
    ("sweep", "seed: [0, 1]", "seed: []"),
    ("sweep", "seed: [0, 1]", "name: [a, b]"),
    ("sweep", "seed: [0, 1]", "seed: [0, 1]\nlist: [{seed: 2}]"),
    ("sweep", "seed: [0, 1]", "seed: [0, 1]\nlist: [{loss.temperature: 1}, {sed: 1}]"),
    ("sweep", "seed: [0, 1]", "data.sources.3.path: [x]"),
    ("sweep", "seed: [0, 1]", "training.epochs: [1.0]"),
    ("sweep", "seed: [0, 1]", "seed: [0, 1]\nzip:\n  loss.temperature: [1, 2]\n  training.steps: [5]"),
    ("sweep", "seed: [0, 1]", "seed: [0, 1]\npaired: true"),
    ("sweep", SWEEP[SWEEP.index("grid") :], ""),
    ("sweep", "base: run.yaml", "base: rnu.yaml"),
)
#: (kind, overrides): mistakes on the command line, and values that do not go together.
OVERRIDES = (
    ("run", "training.lerning_rate=1"),
    ("run", "trainin.steps=1"),
    ("run", "training.steps=1e2"),
    ("run", "training.batch_size="),
    ("run", "data.sources.1.path=x"),
    ("run", "data.sources.x=1"),
    ("run", "training.steps.a=1"),
    ("run", "training.0=1"),
    ("run", "training.betas=[1"),
    ("run", "training.betas={a: 1, a: 2}"),
    ("run", "=3"),
    ("run", "a.b.c.d=1"),
    ("run", "name=${NOT_SET_ANYWHERE}"),
    ("run", "training.batch_size=x", "training.steps=y", "a.b=1"),
    ("run", "training.activation_checkpointing=true", "training.memory=replay"),
    ("run", "training.activation_checkpointing=offload", "training.store_tokens=5"),
    ("run", "training.memory=hybrid"),
    ("run", "training.memory=store", "training.store_tokens=5"),
    ("run", "training.memory=replay", "training.store_tokens=5"),
    ("run", "training.memory=store", "training.memory_gib=5"),
    ("run", "loss.temperature=0"),
    ("run", "loss.false_negatives={margin: 0.1, ratio: 0.9}"),
    ("run", "loss.learn_temperature={minimum: 1, maximum: 0.5}"),
    ("run", "loss.learn_temperature={minimum: 0.1}", "loss.temperature=0.05"),
    ("run", "loss.directions=[query_query]"),
    ("run", "loss.directions=[query_document, query_document]"),
    ("run", "loss.softmax=per_direction", "loss.directions=[query_document, query_query]"),
    ("run", "loss.matryoshka=[8, 16]", "loss.matryoshka_weights=[1]"),
    ("run", "loss.matryoshka=[8, 8]"),
    ("run", "data.query_template=Query"),
    ("run", "data.weights={a: 1}", "data.temperature=2"),
    ("run", "data.weights={a: 1}", "data.caps={a: 1}"),
    ("run", "data.batching=mixed", "data.temperature=2"),
    ("run", "data.cache_dir=cache", "data.sources=[{kind: hub, dataset: a/b}]"),
    ("run", "evaluation={tasks: [{kind: sts, path: [a.csv, b.csv]}]}"),
    ("run", "evaluation={tasks: [{kind: number-sequences, chunks: 1}]}"),
    ("run", "evaluation={tasks: [{kind: number-sequences, terms: 10, chunks: 3}]}"),
    ("run", "evaluation={tasks: [{kind: number-sequences, families: [even, even]}]}"),
    ("run", "evaluation={tasks: [{kind: beri, path: x}]}"),
    ("experiment", "seed=3"),
    ("experiment", "runs.5.seed=1"),
    ("experiment", "recipe.training.steps=-1"),
    ("experiment", "evaluation.baselines=[bm52]"),
    ("sweep", "base=gone.yaml"),
    ("sweep", "base.training.stps=3"),
    ("sweep", "grid.seed=0"),
)


def mistakes(folder: Path) -> Files:
    """One mistake at a time in otherwise right files, and on the command line."""
    for kind, text in TEXTS.items():
        Path(f"{kind}.yaml").write_text(text, encoding="utf-8")
    controls = transcript("config", "check", *(f"{kind}.yaml" for kind in TEXTS))
    assert "exit" not in controls, controls
    parts = ["# nothing is wrong\n" + controls]
    for kind, old, new in EDITS:
        assert TEXTS[kind].count(old) >= 1, (kind, old)
        path = Path(f"{kind}.yaml")
        path.write_text(TEXTS[kind].replace(old, new, 1), encoding="utf-8")
        shown = (
            f"{json.dumps(old)} -> {json.dumps(new)}" if old != TEXTS[kind] else f"all -> {json.dumps(new)}"
        )
        parts.append(f"# {shown}\n" + transcript("config", "check", str(path)))
        path.write_text(TEXTS[kind], encoding="utf-8")
    parts += [transcript("config", "check", f"{kind}.yaml", *overrides) for kind, *overrides in OVERRIDES]
    # Mistakes of several files, round in a circle, in a base, and in another encoding.
    Path("a.yaml").write_text("kind: run\nextends: b.yaml\n", encoding="utf-8")
    Path("b.yaml").write_text("extends: a.yaml\n", encoding="utf-8")
    Path("c.yaml").write_text("extends: d.yaml\nsed: 2\n", encoding="utf-8")
    Path("d.yaml").write_text(RUN.replace("steps: 10", "stpes: 10"), encoding="utf-8")
    Path("e.yaml").write_bytes(b"kind: run\nname: caf\xe9\n")
    for files in (
        ("a.yaml",),
        ("c.yaml",),
        ("e.yaml",),
        ("a.yaml", "c.yaml", "e.yaml"),
        ("rnu.yaml",),
        ("gone/",),
    ):
        parts.append(transcript("config", "check", *files))
    return {"config-mistakes.txt": "\n".join(parts)}


def settings(folder: Path) -> Files:
    """Every default filled in, and what differs between two files."""
    for kind, text in TEXTS.items():
        Path(f"{kind}.yaml").write_text(text, encoding="utf-8")
    files = {f"show-{kind}.yaml": output("config", "show", f"{kind}.yaml") for kind in KINDS}
    Path("other.yaml").write_text(RUN.replace("steps: 10", "steps: 12\n  lora: {rank: 4}"), encoding="utf-8")
    parts = [
        transcript("config", "diff", "run.yaml", "other.yaml"),
        transcript("config", "diff", "run.yaml", "run.yaml"),
        transcript("config", "diff", "run.yaml", "merge.yaml"),
    ]
    return files | {"config-diff.txt": "\n".join(parts)}


def refusals(folder: Path) -> Files:
    """What verbs say to a first mistake, before they do any work."""
    for kind, text in TEXTS.items():
        Path(f"{kind}.yaml").write_text(text, encoding="utf-8")
    Path("empty").mkdir()
    Path("rows.jsonl").write_text('{"query": "a", "pos": ["b"]}\n', encoding="utf-8")
    lines = (
        "confg",
        "--nope",
        "config check --nope x",
        "config show",
        "config check",
        "config check training.steps=1",
        "config check empty",
        "config schema rnu",
        "config show gone.yaml",
        "train experiment.yaml",
        "train gone.yaml",
        "train run.yaml training.stpes=3",
        "experiment run.yaml",
        "grow run.yaml",
        "sweep run.yaml",
        "sweep sweep.yaml --list --dry-run",
        "sweep sweep.yaml --list --shard 3",
        "merge run.yaml",
        "plan experiment.yaml",
        "plan run.yaml --gpu H1000 training.batch_size=1",
        "plan run.yaml backbone.kind=pretrained",
        "report empty",
        "report gone",
        "report empty --paper --table",
        "report empty --base x",
        "report empty --table --format latx",
        "report empty --table --margin 0",
        "runs ls empty",
        "runs ls gone",
        "runs show empty",
        "runs diff empty empty",
        "runs lineage empty",
        "data mine rows.jsonl -o mined.jsonl",
        "data mine rows.jsonl -o mined.jsonl --model bm25 --ranks x",
        "data mine gone.jsonl -o mined.jsonl --model bm25",
        "data mine rows.jsonl -o mined.txt --model bm25",
        "data filter rows.jsonl -o kept.jsonl",
        "data stats gone.jsonl",
        "data stats empty",
        "data prepare run.yaml",
        "data prepare experiment.yaml",
        "publish empty --repo me/x",
        "publish empty",
    )
    parts = [transcript(*line.split()) for line in lines]
    unknown = "backbone={kind: pretrained, path: some/model}"
    parts.append(transcript("plan", "run.yaml", unknown, "training.batch_size=1"))
    parts.append(transcript("train", "run.yaml", "--run", "one"))
    return {"refusals.txt": "\n".join(parts)}


def plans(folder: Path) -> Files:
    """What runs would cost on paper, and what an experiment would start."""
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    hub = "data={sources: [{kind: hub, dataset: a/b, expected_rows: 100000}]}"
    path = "backbone={kind: pretrained, path: Qwen/Qwen3-0.6B}"
    Path("run.yaml").write_text(RUN, encoding="utf-8")
    common = ("plan", "run.yaml", path, hub, "training.batch_size=1024")
    parts = [
        transcript(*common, "--gpu", "H200"),
        transcript(*common, "--gpus", "16", "--gpu", "H100"),
        transcript(
            *common, "training.lora={rank: 16}", "training.activation_checkpointing=selective", "--gpus", "1"
        ),
        transcript(*common, "--launcher", "configs/accelerate/8gpu-fsdp2.yaml"),
        transcript(*common, "--launcher", "configs/accelerate/8gpu-zero3-offload.yaml"),
        transcript("experiment", "configs/paper/qwen3-4b-psr.yaml", "--dry-run"),
        transcript("experiment", "configs/quickstart.yaml", "--dry-run", "--gpus", "2"),
        transcript("sweep", "configs/sweeps/learning-rate.yaml", "--list"),
        transcript("sweep", "configs/sweeps/siblings.yaml", "--dry-run"),
    ]
    return {"plans.txt": "\n".join(parts), "plan.json": _indented(output(*common, "--gpus", "8", "--json"))}


def runs(folder: Path) -> Files:
    """What is told of folders: where they stand, how far they are, what differs, what made them."""
    write_run(Path("runs/small"))
    write_run(Path("runs/other"), settings={"seed": 2, "training": {"steps": 12}})
    write_experiment(Path("runs/synthetic"), steps=3)
    parent = {"path": "runs/small/checkpoints/step-000006", "content_hash": "0" * 64}
    write_checkpoint(Path("runs/merged"), kind="merge", parents=[parent, {"path": "lab/two"}], parent=None)
    lines = (
        "runs ls runs",
        "runs show runs/small",
        "runs show runs/synthetic",
        "runs show runs/synthetic/lineage/sft",
        "runs diff runs/small runs/other",
        "runs diff runs/small runs/other --paired",
        "runs diff runs/small runs/synthetic",
        "runs lineage runs/small",
        "runs lineage runs/merged",
        "runs lineage runs/synthetic/lineage/sft",
    )
    return {"runs.txt": "\n".join(transcript(*line.split()) for line in lines)}


CONTAMINATION = {
    "threshold": 0.8,
    "words": 5,
    "training": {"texts": 90, "fingerprint": "f"},
    "tasks": {
        "own": {
            "queries": {"texts": 40, "exact": 0, "near": 0, "sources": {}, "examples": []},
            "documents": {
                "texts": 1600,
                "exact": 3,
                "near": 1,
                "sources": {"nli": 3, "web": 1},
                "examples": [{"kind": "exact", "jaccard": 1.0, "text": "<b>a\ncat</b>", "training": {}}],
            },
        }
    },
    "unchecked": {"STS22": "offline, and these data sets are not on this machine:\n  STS22"},
}


def _sequences(shift: float) -> dict[str, Any]:
    """Scores of the task of number sequences, as its evaluation writes them."""
    metrics = ("silhouette_true", "davies_bouldin_true", "silhouette_kmeans", "davies_bouldin_kmeans", "ari")
    values = dict(
        zip(metrics, (0.11 + shift, 2.5 - shift, 0.25 + shift, 1.2 - shift, 0.3 + shift), strict=True)
    )
    points = [[round(shift * 10 + i % 4, 3), round(i * 0.5 - shift, 3)] for i in range(24)]
    projection = {
        "families": ["consecutive", "even", "odd", "prime", "recaman", "composite"],
        "labels": [index // 4 for index in range(24)],
        "points": points,
        "perplexity": 7.67,
    }
    baselines = {
        name: {metric: round(value - 0.1 * index, 4) for metric, value in values.items()}
        for index, name in enumerate(("tfidf", "digit_histogram", "random", "hand_made"))
    }
    baselines["random"]["sd"] = 0.0123
    return {
        "task": "number-sequences",
        "type": "Clustering",
        "main_metric": "silhouette_true",
        "main_score": values["silhouette_true"],
        "texts": 24,
        "standard": True,
        "tsne": projection,
        "baselines": baselines,
        "null": {"draws": 9, "p_value": 0.1},
        **values,
    }


def report(folder: Path) -> Files:
    """The page of an experiment with everything a page can hold, and what a paper takes from it."""
    write_experiment(Path("synthetic"))
    Path("synthetic/contamination.json").write_text(json.dumps(CONTAMINATION), encoding="utf-8")
    for index, place in enumerate(
        ("runs/base/evaluation/step-000000", "runs/base/evaluation/step-000150", "evaluation/untrained")
    ):
        path = Path("synthetic", place, "scores.json")
        record = json.loads(path.read_text(encoding="utf-8"))
        record["tasks"].append(_sequences(0.05 * index))
        path.write_text(json.dumps(record), encoding="utf-8")
    shutil.rmtree("synthetic/runs/base-seed1/evaluation")  # a page also says what it lacks
    files = {"report-terminal.txt": transcript("report", "synthetic")}
    made = Path("synthetic/report")
    page = (made / "index.html").read_text(encoding="utf-8")
    drawn = still_charts(read_experiment(Path("synthetic")))
    files |= {"report-page.txt": seen(page), "report-charts.txt": charts(page, drawn)}
    files["report-tables.md"] = (made / "table.md").read_text(encoding="utf-8")
    files["report-run-page.txt"] = transcript("report", "synthetic/runs/rlvr") + seen(
        Path("synthetic/runs/rlvr/report/index.html").read_text(encoding="utf-8")
    )
    files["paper-terminal.txt"] = transcript("report", "synthetic", "--paper")
    for path in sorted(Path("synthetic/paper").iterdir()):
        if path.suffix in {".md", ".tex", ".csv"}:
            files[f"paper-{path.name}"] = path.read_text(encoding="utf-8")
    files["paper-appendix-page.txt"] = seen(Path("synthetic/paper/appendix.html").read_text(encoding="utf-8"))
    return files


def score_tables(folder: Path) -> Files:
    """Base and variants with seeds, single queries and a failed task, in all forms."""
    seeds = {"base": (0, 1, 2), "sft": (0, 1, 2), "rlvr": (0, 1)}
    tasks = {"alpha": "Retrieval", "beta": "Retrieval", "gamma": "STS", "delta": "Classification"}
    write_scored_runs(Path("pairs"), seeds, tasks, gains={"sft": -0.12, "rlvr": 0.001})
    path = Path("pairs/runs/rlvr-1/evaluation/step-000100/scores.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    record["failed"] = [{"task": record["tasks"].pop()["task"], "error": "out of memory\nat 50% & more"}]
    path.write_text(json.dumps(record), encoding="utf-8")
    files = {"scores-terminal.txt": transcript("report", "pairs", "--table")}
    files["scores-other-base.txt"] = transcript(
        "report", "pairs", "--table", "--base", "sft", "--margin", "2"
    )
    for form, suffix in (("markdown", "md"), ("latex", "tex"), ("csv", "csv")):
        files[f"scores.{suffix}"] = output("report", "pairs", "--table", "--format", form)
        written = Path(f"pairs/report/scores.{suffix}").read_text(encoding="utf-8")
        assert written.rstrip("\n") == files[f"scores.{suffix}"].rstrip("\n")
    return files


def sweep(folder: Path) -> Files:
    """A sweep of six runs: five finished, one failed."""
    base = RUN.replace("kind: random\n  tokenizer: some/folder", "kind: pretrained\n  path: some/base")
    Path("run.yaml").write_text(base, encoding="utf-8")
    Path("sweep.yaml").write_text(SWEEP, encoding="utf-8")
    files = {"sweep-launches.txt": transcript("sweep", "sweep.yaml", "--dry-run")}
    made = Path("runs/demo")
    names = [entry["name"] for entry in json.loads((made / "sweep.json").read_text(encoding="utf-8"))["runs"]]
    for name, value in zip(names, (0.50, 0.54, 0.60, 0.70, 0.66, None), strict=True):
        run = made / "runs" / name
        if value is None:
            note = {"state": "failed", "note": "out of <memory>\n  -> less"}
            (made / "ledger").mkdir(exist_ok=True)
            (made / "ledger" / f"{name}.json").write_text(json.dumps(note), encoding="utf-8")
            continue
        (run / "checkpoints" / "step-000004").mkdir(parents=True)
        (run / "manifest.json").write_text(json.dumps({"steps": 4}), encoding="utf-8")
        lines = [
            {"step": 2, "loss": 1.0, "evaluation": {"task.a": 0.1}},
            {"step": 4, "loss": 0.5, "evaluation": {"task.a": value}},
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (run / "metrics.jsonl").write_text(text + '{"step": 5, "lo', encoding="utf-8")
    files["sweep-terminal.txt"] = "\n".join(
        transcript(*line.split())
        for line in ("sweep sweep.yaml --list", "report runs/demo", "runs show runs/demo", "runs ls runs")
    )
    files["sweep-page.txt"] = seen((made / "report" / "index.html").read_text(encoding="utf-8"))
    files["sweep-tables.md"] = (made / "report" / "table.md").read_text(encoding="utf-8")
    return files


def _tensor(name: str, cosine: float, *, lerp: bool, t: float = 0.5) -> dict[str, Any]:
    common = {"name": name, "shape": [2], "parameters": 2, "norms": [3.0, 5.0], "norm_merged": 4.0}
    return common | {"cosine": [cosine], "angle": [10.0], "orthogonal_change": [0.25], "t": t, "lerp": lerp}


def _merged(method: str, t: float, score: float, similarity: float) -> dict[str, Any]:
    return {
        "name": f"{method}-{t:g}",
        "method": method,
        "t": t,
        "model": f"models/{method}-{t:g}",
        "tensors": "tensors/x.json",
        "summary": {"tensors": 2, "parameters": 4, "lerp_tensors": 0.5, "lerp_parameters": 0.25},
        "warnings": ["prompts <differ>"],
        "scores": {
            "numbers": {"main_metric": "silhouette_true", "main_score": score, "silhouette_true": score},
            "world": {"main_metric": "ndcg_at_10", "main_score": score / 3},
        },
        "similarity": {
            "runs/a@last": {"cka": [similarity, None, None]},
            "runs/b@last": {"cka": [1 - similarity, 0.0, 1.0]},
        },
    }


def merge(folder: Path) -> Files:
    """A path by two ways between two models, scored and held against its ends."""
    fractions = (0.0, 0.5, 1.0)
    points = [_merged("slerp", t, t / 2, 1 - t) for t in fractions]
    points += [_merged("linear", t, t / 2 + (0.1 if t == 0.5 else 0), 1 - t) for t in fractions]
    record: dict[str, Any] = {"name": "demo", "models": ["runs/a@last", "runs/b@last"], "points": points}
    record |= {"failed": ["x: task: why"], "probe": {"kind": "world", "texts": 320}}
    tensors = [_tensor("embed", 0.9, lerp=False), _tensor("norm", 0.99999, lerp=True)]
    tensors += [_tensor(f"layers.{i}.q", 0.5 + i / 200, lerp=i == 3, t=i / 100) for i in range(100)]
    Path("merge/tensors").mkdir(parents=True)
    Path("merge/tensors/x.json").write_text(json.dumps({"tensors": tensors}), encoding="utf-8")
    Path("merge/merge.json").write_text(json.dumps(record), encoding="utf-8")
    page = build_merge(Path("merge")).read_text(encoding="utf-8")
    return {
        "merge-terminal.txt": merge_tables(Path("merge")) + "\n",
        "merge-page.txt": seen(page),
        "merge-tables.md": Path("merge/report/table.md").read_text(encoding="utf-8"),
    }


def data(folder: Path) -> Files:
    """What is told of training rows: lengths, duplicates, likely false negatives, and rows filtered and mined."""
    names = "red green blue old new big small fast slow hot cold light dark".split()
    texts = [f"the {names[i % 13]} cat sees {i % 10} birds and {i} dogs" for i in range(40)]
    rows = []
    for i, text in enumerate(texts):
        row = {"query": ["find", f"who sees {i} dogs {names[i % 13]}"], "pos": [text], "neg": [texts[i - 1]]}
        rows.append(row | {"pos_scores": [0.9], "neg_scores": [0.3 + 0.6 * (i % 7) / 6]})
    rows += [rows[3], rows[5] | {"neg": rows[5]["pos"]}, rows[7] | {"pos": ["another <answer>"]}]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    lines = (
        "data stats rows.jsonl -o described",
        "data filter rows.jsonl -o kept.jsonl --duplicates --min-length 20",
        "data filter rows.jsonl -o kept-by-margin.jsonl --margin 0.1",
        "data mine rows.jsonl -o mined.jsonl --model bm25 -k 2 --ranks 2-20",
        "data filter rows.jsonl -o kept.jsonl --duplicates",
    )
    said = "\n".join(transcript(*line.split()) for line in lines)
    reports = [f"{path.name}\n{_indented(path.read_text())}" for path in sorted(Path().glob("*.report.json"))]
    return {
        "data-terminal.txt": said,
        "data-reports.txt": "\n".join(reports),
        "data-page.txt": seen(Path("described/index.html").read_text(encoding="utf-8")),
        "data-statistics.json": _indented(Path("described/statistics.json").read_text(encoding="utf-8")),
    }


def cards(folder: Path) -> Files:
    """Model cards of a run, of one of its steps, and of a merge."""

    def card(path: Path) -> str:
        return (path / "README.md").read_text(encoding="utf-8")

    run = write_run(Path("run"))
    found = {"queries": {"texts": 40, "exact": 1, "near": 2, "sources": {}, "examples": []}}
    record = {"tasks": {"own": found}, "unchecked": {"STS22": "offline"}}
    Path("run/contamination.json").write_text(json.dumps(record), encoding="utf-8")
    release = plan_release(run.path, "me/small", all_steps=True)
    said: list[str] = []
    export(release, About("apache-2.0", ("en",)), said.append)
    main_folder = release.exported(release.main)
    parents = [{"path": "lab/one", "revision": "r1"}, {"path": "lab/two", "revision": None}]
    merged = write_checkpoint(Path("merged"), kind="merge", parents=parents, parent=None, method="slerp")
    merge_release = plan_release(merged, "me/merged")
    export(merge_release, About(), said.append)
    names = sorted(
        path.relative_to(main_folder).as_posix() for path in main_folder.rglob("*") if path.is_file()
    )
    return {
        "card.md": card(main_folder),
        "card-step.md": card(release.exported(release.steps[0])),
        "card-merge.md": card(merge_release.exported(merge_release.main)),
        "card-files.txt": "\n".join([*names, "", *said]) + "\n",
        "card-index.jsonl": (main_folder / "checkpoints.jsonl").read_text(encoding="utf-8"),
    }


CASES: dict[str, Callable[[Path], Files]] = {
    case.__name__: case
    for case in (
        schemas,
        helps,
        misspellings,
        mistakes,
        settings,
        refusals,
        plans,
        runs,
        report,
        score_tables,
        sweep,
        merge,
        data,
        cards,
    )
}


# --- pages as text ---------------------------------------------------------------------------------


class _Seen(HTMLParser):
    """The text of a page, a line a paragraph, item or row of a table; scripts and styles are not seen."""

    LINES = frozenset(
        "title h1 h2 h3 h4 p li tr dt dd summary pre figure figcaption section header main div text rect line "
        "option label button ul dl table thead tbody svg details".split()
    )
    HIDDEN = frozenset({"script", "style"})

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = [""]
        self.hidden = 0
        self.pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in self.HIDDEN
        self.pre += tag == "pre"
        if tag in self.LINES:
            self.lines.append({"h1": "# ", "h2": "## ", "h3": "### ", "li": "- "}.get(tag, ""))
        elif tag in {"td", "th"} and self.lines[-1]:
            self.lines[-1] += " | "
        elif tag in {"small", "span", "b"}:
            self.lines[-1] += " "
        elif tag == "img":
            self.lines.append(f"[image: {dict(attrs).get('alt')}]")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in self.HIDDEN
        self.pre -= tag == "pre"
        if tag in self.LINES:
            self.lines.append("")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.lines[-1] += data if self.pre else re.sub(r"\s+", " ", data)


def seen(page: str) -> str:
    """What a page says, without its markup, and without the values that single marks of a chart say."""
    page = re.sub(r'(<(?:circle|rect|polygon) class="mark"[^>]*>)<title>.*?</title>', r"\1", page)
    parser = _Seen()
    parser.feed(page)
    parser.close()
    lines = [line if "\n" in line else re.sub(r" +", " ", line).strip() for line in parser.lines]
    return "\n".join(line for line in lines if line not in {"", "-", "#", "##", "###"}) + "\n"


def charts(page: str, drawn: dict[str, Any]) -> str:
    """What a page draws its charts from: titles, labels, lines, and of lists of numbers their ends and mean.

    What is explored stands in the page as data; `drawn` is what its still charts were drawn from.
    """
    (text,) = re.findall(r'id="report-data">(.*?)</script>', page, flags=re.DOTALL)
    lines = {chart.key: asdict(chart) for name, chart in drawn.items() if name != "scores"}
    still = {"charts": lines, "bars": asdict(drawn["scores"])}
    data = json.loads(text) | json.loads(json.dumps(still))
    found: list[str] = []

    def tell(value: Any, path: str) -> None:
        plain = {}
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            named = below.get("name") or below.get("key") if isinstance(below, dict) else None
            numbers = _numbers(below)
            if numbers:
                mean = sum(numbers) / len(numbers)
                plain[key] = f"{len(numbers)} x {numbers[0]:.5g} .. {numbers[-1]:.5g}, mean {mean:.5g}"
            elif isinstance(below, dict | list):
                tell(below, f"{path}/{named or key}")
            elif below not in (None, ""):
                plain[key] = below
        if plain:
            found.append(f"{path}: {json.dumps(plain, ensure_ascii=False)}")

    tell({key: data[key] for key in ("colours", "dark", "charts", "explorer", "heatmaps", "bars")}, "")
    return "\n".join(found) + "\n"


def _numbers(value: Any) -> list[float] | None:
    """All numbers of nested lists of numbers and nulls; None for anything else."""
    if not isinstance(value, list):
        return None
    flat: list[float] = []
    for item in value:
        if isinstance(item, list):
            below = _numbers(item)
            if below is None:
                return None
            flat += below
        elif isinstance(item, int | float) and not isinstance(item, bool):
            flat.append(float(item))
        elif item is not None:
            return None
    return flat


def _indented(text: str) -> str:
    return json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"


# --- writing and comparing -------------------------------------------------------------------------


def normalised(text: str, folder: Path) -> str:
    """Text without what differs between two machines: folders, seconds, versions, the last digits."""
    for path in {str(folder), str(folder.resolve())}:
        text = text.replace(path, "FOLDER")
    text = text.replace(str(REPOSITORY), "REPOSITORY")
    text = re.sub(r"^ *\d+ s  ", "TIME  ", text, flags=re.MULTILINE)
    text = re.sub(rf"\b{re.escape(__version__)}\b", "VERSION", text)
    text = re.sub(r"(?<=\n)\| ([\w-]+) \| \d+\.\d+\.[\w.+]+ \|(?=\n)", r"| \1 | VERSION |", text)
    # Of numbers written to the last bit, as many digits as every machine agrees on.
    text = re.sub(
        r"(?<![\w.])\d+\.\d{9,}(?:e[-+]?\d+)?(?![\w.])", lambda found: f"{float(found[0]):.7g}", text
    )
    return text if text.endswith("\n") or not text else text + "\n"


def _instead_of_a_picture(figure: object, target: Any, *words: object, **options: object) -> None:
    """Drawing takes most of a report's time, and no pixel is compared here."""
    Path(target).write_bytes(b"\x89PNG\r\n\x1a\n")


@contextlib.contextmanager
def surroundings() -> Generator[Path]:
    """An empty working folder, a terminal of a known width, and no drawing."""
    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.dict(os.environ, SURROUNDINGS),
        mock.patch("matplotlib.figure.Figure.savefig", _instead_of_a_picture),
    ):
        os.environ.pop("NOT_SET_ANYWHERE", None)
        folder = Path(name).resolve()
        with contextlib.chdir(folder):
            yield folder


def produced(case: str) -> Files:
    """What a case gives now."""
    with surroundings() as folder:
        return {name: normalised(text, folder) for name, text in CASES[case](folder).items()}


def place_of(case: str) -> Path:
    """The folder of a case's files."""
    return PUBLISHED.get(case, GOLDENS / case)


def golden(case: str) -> Files:
    """What a case gave when the goldens were written."""
    place = place_of(case)
    return (
        {path.name: path.read_text(encoding="utf-8") for path in sorted(place.iterdir())}
        if place.is_dir()
        else {}
    )


def differences(case: str, new: Files) -> str:
    """A unified diff between goldens and what a case gives now; empty if there is none."""
    old = golden(case)
    lines: list[str] = []
    for name in sorted({*old, *new}):
        a, b = (side.get(name, "").splitlines(keepends=True) for side in (old, new))
        place = f"{case}/{name}"
        lines += difflib.unified_diff(a, b, f"{place} (golden)", f"{place} (now)")
        if (name in old) != (name in new):
            lines.append(f"{place} is only {'in the goldens' if name in old else 'made now'}\n")
    return "".join(lines)


@pytest.mark.parametrize("case", CASES)
def test_users_see_the_same(case: str) -> None:
    found = differences(case, produced(case))
    assert not found, f"\n{found}\nIf this is meant: python -m tests.goldens.test_interface --write {case}"


def test_every_golden_belongs_to_a_case() -> None:
    assert {path.name for path in GOLDENS.iterdir()} == set(CASES) - set(PUBLISHED)


def _main(words: list[str]) -> int:
    chosen = [word for word in words if word != "--write"] or list(CASES)
    unknown = set(chosen) - set(CASES)
    if unknown:
        print(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
        return 2
    different = False
    for case in chosen:
        new = produced(case)
        found = differences(case, new)
        different |= bool(found)
        print(found, end="")
        if found and "--write" in words:
            shutil.rmtree(place_of(case), ignore_errors=True)
            place_of(case).mkdir(parents=True)
            for name, text in new.items():
                (place_of(case) / name).write_text(text, encoding="utf-8")
    return int(different and "--write" not in words)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
