"""Sweeps: which runs they give, what they are called, and what is refused at which line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reasoning_embedding.config import SweepRun, load_config, sweep_runs, to_yaml
from reasoning_embedding.errors import ConfigError

BASE = """\
kind: run
name: tiny
backbone: {kind: pretrained, path: some/base}
data: {sources: [{kind: files, path: rows.jsonl}]}
training: {steps: 10}
"""
HEAD = "kind: sweep\nname: s\nbase: base.yaml\n"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(rest: str, head: str = HEAD, base: str = BASE) -> Path:
        (tmp_path / "base.yaml").write_text(base)
        path = tmp_path / "sweep.yaml"
        path.write_text(head + rest)
        return path

    return write


def runs_of(path: Path, *overrides: str) -> list[SweepRun]:
    return sweep_runs(load_config(path, overrides))


def problems_of(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return "\n".join(caught.value.problems).replace(f"{path.parent}/", "")


def test_grid_zip_and_list_are_combined_in_order(write: Write) -> None:
    path = write(
        "grid:\n  training.learning_rate: [1e-4, 1e-3]\n  seed: [0, 1]\n"
        "zip:\n  training.batch_size: [8, 16]\n  training.steps: [20, 10]\n"
        "list:\n  - {training.lora.rank: 4}\n  - {loss.temperature: 0.1}\n"
    )
    runs = runs_of(path)
    assert len(runs) == len({run.name for run in runs}) == 2 * 2 * 2 * 2
    points = [tuple(run.point.items()) for run in runs]
    rate, seed = "training.learning_rate", "seed"
    zipped = [
        (("training.batch_size", 8), ("training.steps", 20)),
        (("training.batch_size", 16), ("training.steps", 10)),
    ]
    singles = [(("training.lora.rank", 4),), (("loss.temperature", 0.1),)]
    assert points == [
        ((rate, r), (seed, s), *z, *p) for r in (1e-4, 1e-3) for s in (0, 1) for z in zipped for p in singles
    ]
    first = runs[0].config
    assert (first.training.learning_rate, first.training.batch_size, first.training.steps) == (1e-4, 8, 20)
    assert first.training.lora is not None
    assert runs[1].config.training.lora is None, "a point of the list does not leak into the next"
    assert (first.name, first.output_dir, first.logging.group) == (runs[0].name, "runs/s/runs", "s")


def test_a_name_is_the_content_of_the_run(write: Write, tmp_path: Path) -> None:
    path = write("grid: {seed: [0, 1]}\n")
    names = [run.name for run in runs_of(path)]
    assert all(name.startswith("tiny-") and len(name) == len("tiny-") + 8 for name in names)
    assert names == [run.name for run in runs_of(path, "name=other", "output_dir=elsewhere", "jobs=3")]
    assert names == [run.name for run in runs_of(path, "grid.seed=[0, 1, 2]")][:2], "more values, same names"
    written_out = write("grid: {seed: [1, 0]}\n", base=BASE + "seed: 7\n")
    assert sorted(run.name for run in runs_of(written_out)) == sorted(names), "what the sweep sets decides"
    assert names != [run.name for run in runs_of(path, "base.training.steps=11")]


def test_a_run_reads_back_as_it_is(write: Write, tmp_path: Path) -> None:
    (run,) = runs_of(write("list: [{training.betas: [0.9, 0.95], training.learning_rate: 1e-5}]\n"))
    file = tmp_path / "run.yaml"
    file.write_text(to_yaml(run.config))
    assert load_config(file).config == run.config


def test_the_base_may_be_written_in_the_sweep(write: Write) -> None:
    inline = "kind: sweep\nname: s\nbase:\n" + "".join(f"  {line}\n" for line in BASE.splitlines())
    rest = "grid: {seed: [3, 4]}\n"
    assert [r.name for r in runs_of(write(rest, head=inline))] == [r.name for r in runs_of(write(rest))]


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (
            "grid:\n  training.lerning_rate: [1]\n",
            "sweep.yaml:5:3: unknown key 'lerning_rate' in training; did you mean 'learning_rate'?",
        ),
        (
            "grid:\n  trainin.steps: [1]\n",
            "sweep.yaml:5:3: unknown key 'trainin' at the top level; did you mean 'training'?",
        ),
        (
            "grid:\n  training.steps:\n    - 10\n    - fast\n",
            'sweep.yaml:7:7: training.steps is "fast"; it must be a whole number',
        ),
        (
            "list:\n  - {seed: 1}\n  - {sed: 1}\n",
            "sweep.yaml:6:6: unknown key 'sed' at the top level; did you mean 'seed'?",
        ),
        (
            "zip:\n  seed: [1, 2]\n  training.steps: [5]\n",
            "sweep.yaml:5:3: zip: all keys of zip need as many values: seed has 2, training.steps has 1",
        ),
        (
            "grid:\n  name: [a, b]\n",
            "sweep.yaml:5:9: grid.name: a sweep names its runs itself; 'name' cannot vary",
        ),
        ("grid:\n  seed: [1]\nlist:\n  - {seed: 2}\n", "'seed' is set by 'seed' of another part already"),
        (
            "grid:\n  training.lora: [{rank: 4}]\nzip:\n  training.lora.rank: [8]\n",
            "'training.lora.rank' is set by 'training.lora' of another part already",
        ),
        ("grid:\n  seed: [1, 1]\n", "sweep.yaml:5:13: two points give one run: {'seed': 1} and {'seed': 1}"),
        ("grid:\n  seed: []\n", "sweep.yaml:5:9: grid.seed is a list of 0; it must be a list of at least 1"),
        ("", "a sweep varies something: give grid, zip or list"),
        (
            "grid:\n  data.sources.3.path: [x]\n",
            "sweep.yaml:5:3: data.sources is a list of 1; write an index from 0 to 0, not '3'",
        ),
        ("grid: {seed: [1]}\ngird: {}\n", "sweep.yaml:5:1: unknown key 'gird' at the top level"),
        (
            "grid:\n  training.steps: [1, 2]\n  training.epochs: [1.0]\n",
            "training.steps: give epochs or steps, not both",
        ),
    ],
)
def test_mistakes_stand_at_their_line(write: Write, rest: str, said: str) -> None:
    assert said in problems_of(write(rest))


def test_mistakes_of_the_base_stand_in_its_file(write: Write) -> None:
    path = write("grid: {seed: [1]}\n", base=BASE.replace("steps", "stps"))
    assert "base.yaml:5:12: unknown key 'stps' in base.training; did you mean 'steps'?" in problems_of(path)
    path = write("grid: {seed: [1]}\n", head=HEAD.replace("base.yaml", "bass.yaml"))
    said = "sweep.yaml:3:7: 'bass.yaml': no such file; did you mean 'base.yaml'?"
    assert problems_of(path) == said
    path = write("grid: {seed: [1]}\n")
    assert problems_of(path, "base=gone.yaml").startswith(
        "override 'base=gone.yaml': 'gone.yaml': no such file"
    )


def test_a_sweep_too_large_is_refused(write: Write) -> None:
    axes = "".join(
        f"  {key}: [{', '.join(str(v) for v in range(1, 31))}]\n"
        for key in ("seed", "training.steps", "training.batch_size")
    )
    assert "this sweep has 27,000 runs; 10,000 are the most" in problems_of(write("grid:\n" + axes))


PAIRED = "paired: true\ngrid:\n  backbone.path: [a/base, a/sft]\n  seed: [0, 1]\n"


def test_paired_runs_differ_in_backbone_and_seed(write: Write) -> None:
    runs = runs_of(write(PAIRED))
    assert [(run.point["backbone.path"], run.point["seed"]) for run in runs] == [
        ("a/base", 0), ("a/base", 1), ("a/sft", 0), ("a/sft", 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (
            PAIRED + "  training.learning_rate: [1e-4, 1e-3]\n",
            "sweep.yaml:8:3: paired runs differ in backbone and seed only, these in training.learning_rate: 0.0001 and",
        ),
        (
            "paired: true\nlist:\n  - {backbone.path: a}\n  - {backbone.path: b, loss.temperature: 0.5}\n",
            "paired runs differ in backbone and seed only",
        ),
        (
            "paired: true\nlist:\n  - {backbone.path: a, seed: 0}\n  - {backbone.path: b, seed: 1}\n",
            "sweep.yaml:4:1: paired backbones have the same seeds, these have [0] and [1]",
        ),
    ],
)
def test_anything_else_is_no_pair(write: Write, rest: str, said: str) -> None:
    assert said in problems_of(write(rest))


def test_what_is_compared(write: Write) -> None:
    def less(extra: str, base: str = BASE) -> Any:
        return load_config(write("grid: {seed: [1]}\n" + extra, base=base)).config.less_is_better

    scored = BASE + "evaluation: {tasks: [{kind: world}]}\n"
    assert less("")
    assert not less("", scored)
    assert not less("metric: accuracy\n")
    assert less("metric: loss\n", scored)
    assert less("metric: seconds\ngoal: min\n")
