"""From a sweep to its runs: each point set in the base, checked as if it stood in the base's file."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from reasoning_embedding.config.resolved import diff, resolved_json, unpaired, with_old_defaults
from reasoning_embedding.config.sweep import OWN, SweepConfig
from reasoning_embedding.config.training import RunConfig

from .messages import validated
from .overrides import set_value
from .tree import Node, Problems, find, plain

_MOST_RUNS = 10_000


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Parameters
    ----------
    name : str
        The base's name and a short hash of everything that decides the run.
    point : dict
        The values of the keys that vary.
    config : RunConfig
        The run, every default filled in.
    """

    name: str
    point: dict[str, Any]
    config: RunConfig


def expand_sweep(sweep: SweepConfig, tree: Node, problems: Problems) -> list[SweepRun]:
    """Return the runs of a sweep in order: of the grid's keys the last varies fastest, then zip, then list.

    Parameters
    ----------
    sweep : SweepConfig
        The checked sweep.
    tree : Node
        What it was read from, with the run's tree at ``base``.
    problems : Problems
        Receives keys that a run does not have, values it cannot take, equal runs, and what may not differ.
    """
    base, _ = find(tree, ("base",))
    axes = _axes(tree)
    count = 1
    for axis in axes:
        count *= len(axis)
    if count > _MOST_RUNS:
        problems.add(tree.place, f"this sweep has {count:,} runs; {_MOST_RUNS:,} are the most")
        return []
    runs: dict[str, SweepRun] = {}
    failed = 0
    for combination in itertools.product(*axes):
        point = {key: node for part in combination for key, node in part.items()}
        run = _run(sweep, base, point, problems)
        if run is None:
            failed += 1
            if failed == problems.most:
                break
            continue
        if run.name in runs:
            at = next(iter(point.values()))
            problems.add(at.place, f"two points give one run: {runs[run.name].point} and {run.point}")
        runs.setdefault(run.name, run)
    if sweep.paired:
        _check_paired(list(runs.values()), tree, problems)
    return list(runs.values())


def _axes(tree: Node) -> list[list[dict[str, Node]]]:
    """Alternatives that are combined, each a set of keys with its values; a value knows its key's place."""

    def named(key: str, node: Node, value: Node) -> dict[str, Node]:
        return {key: replace(value, key_place=node.key_place)}

    grid, zipped, points = (_part(tree, name) for name in ("grid", "zip", "list"))
    axes = [[named(key, node, value) for value in _items(node)] for key, node in _entries(grid)]
    if columns := [[named(key, node, value) for value in _items(node)] for key, node in _entries(zipped)]:
        axes.append([{k: v for part in row for k, v in part.items()} for row in zip(*columns, strict=True)])
    if singles := [dict(_entries(point)) for point in _items(points)]:
        axes.append(singles)
    return axes


def _part(tree: Node, name: str) -> Node:
    node, met = find(tree, (name,))
    return node if met else Node(None, tree.place)


def _entries(node: Node) -> Iterator[tuple[str, Node]]:
    yield from node.value.items() if isinstance(node.value, dict) else ()


def _items(node: Node) -> list[Node]:
    return node.value if isinstance(node.value, list) else []


def _run(sweep: SweepConfig, base: Node, point: dict[str, Node], problems: Problems) -> SweepRun | None:
    before = len(problems)
    tree = base
    for key, node in point.items():
        tree = set_value(tree, key, node, problems)
    config = validated(RunConfig, tree, problems)
    if config is None or len(problems) > before:
        return None
    decisive = {
        key: value for key, value in with_old_defaults(resolved_json(config)).items() if key not in OWN
    }
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{config.name[:110]}-{digest}"
    logging = config.logging.model_copy(update={"group": config.logging.group or sweep.name})
    folder = f"{sweep.output_dir}/{sweep.name}/runs"
    own = config.model_copy(update={"name": name, "output_dir": folder, "logging": logging})
    return SweepRun(name, {key: plain(node) for key, node in point.items()}, own)


def _check_paired(runs: list[SweepRun], tree: Node, problems: Problems) -> None:
    """Refuse whatever differs beside backbone and seed, and backbones without their siblings' seeds."""
    keys = {key: node.key_place for axis in _axes(tree) for part in axis for key, node in part.items()}
    paired, _ = find(tree, ("paired",))
    for run in runs[1:]:
        for key, left, right in unpaired(diff(runs[0].config, run.config)):
            place = next((at for name, at in keys.items() if f"{key}.".startswith(f"{name}.")), None)
            text = f"paired runs differ in backbone and seed only, these in {key}: {left!r} and {right!r}"
            problems.add(place or paired.place, text)
    seeds: dict[str, set[int]] = {}
    for run in runs:
        backbone = json.dumps(resolved_json(run.config.backbone), sort_keys=True)
        seeds.setdefault(backbone, set()).add(run.config.seed)
    if len({frozenset(found) for found in seeds.values()}) > 1:
        shown = " and ".join(sorted({str(sorted(found)) for found in seeds.values()}))
        problems.add(paired.start, f"paired backbones have the same seeds, these have {shown}")
