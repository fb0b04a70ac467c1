"""From a YAML file and overrides to a checked configuration, or to every problem in them.

Relative paths inside a configuration are relative to the current working directory, except those of
``extends:`` and a sweep's ``base:``, which are relative to the file that names them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from reasoning_embedding.config.experiment import ExperimentConfig
from reasoning_embedding.config.lineage import LineageConfig
from reasoning_embedding.config.merge import MergeConfig
from reasoning_embedding.config.reading.sweep_runs import SweepRun, expand_sweep
from reasoning_embedding.config.sweep import SweepConfig
from reasoning_embedding.config.training import RunConfig
from reasoning_embedding.errors import ConfigError

from .extends import read_base, read_tree
from .messages import explain, missing_kind, show
from .overrides import apply_overrides
from .suggestions import closest, did_you_mean
from .tree import Node, Problems, find, plain

Config = RunConfig | LineageConfig | ExperimentConfig | MergeConfig | SweepConfig

#: What the top-level ``kind`` selects.
KINDS: dict[str, type[Config]] = {
    "run": RunConfig,
    "lineage": LineageConfig,
    "experiment": ExperimentConfig,
    "merge": MergeConfig,
    "sweep": SweepConfig,
}


@dataclass(frozen=True)
class LoadedConfig:
    """A checked configuration and where it came from.

    Parameters
    ----------
    config : RunConfig, LineageConfig, ExperimentConfig, MergeConfig or SweepConfig
        The configuration, every default filled in.
    path : Path
        The file asked for.
    text : str
        Its text as written.
    sources : tuple of Path
        Every file read: `path` and what it extends.
    tree : Node
        The merged values with their places.
    """

    config: Any
    path: Path
    text: str
    sources: tuple[Path, ...]
    tree: Node

    def where(self, *path: str | int) -> str:
        """Return ``file:line:column`` of a key path, or of the nearest section that was written."""
        node, met = find(self.tree, path)
        return str(node.place if met == len(path) else node.key_place or node.place)


def load_config(
    path: Path | str,
    overrides: Sequence[str] = (),
    expect: type[BaseModel] | tuple[type[BaseModel], ...] | None = None,
) -> LoadedConfig:
    """Read, merge, override and check a configuration.

    Parameters
    ----------
    path : Path or str
        A YAML file whose top-level ``kind`` is ``run``, ``lineage``, ``experiment``, ``merge`` or
        ``sweep``.
    overrides : sequence of str
        ``key.path=value``, see :func:`reasoning_embedding.config.reading.overrides.apply_overrides`.
    expect : type or tuple of types, optional
        Kinds the caller can use; another one is a problem at the file's ``kind``.

    Returns
    -------
    LoadedConfig

    Raises
    ------
    ConfigError
        With every problem found and its ``file:line:column``.
    """
    path = Path(path)
    problems = Problems()
    tree, files, text = read_tree(path, problems)
    if tree is not None:
        # Before the overrides, which may reach into the base, and after them, which may name another.
        tree = _with_base(tree, problems, files)
        tree = _with_base(apply_overrides(tree, overrides, problems), problems, files)
        model = _model(tree, expect, problems)
        config = _validated(model, tree, problems) if model else None
        if isinstance(config, SweepConfig):
            expand_sweep(config, tree, _as_run, problems)
        problems.raise_if_any()
        return LoadedConfig(config, path, text, tuple(files), tree)
    problems.raise_if_any()
    raise ConfigError([f"{path}: nothing could be read"])


def sweep_runs(loaded: LoadedConfig) -> list[SweepRun]:
    """Return the runs of a loaded sweep, in order; loading has checked them all."""
    problems = Problems()
    runs = expand_sweep(loaded.config, loaded.tree, _as_run, problems)
    problems.raise_if_any()
    return runs


def _with_base(tree: Node, problems: Problems, files: list[Path]) -> Node:
    """Read what a sweep's ``base`` names; a file that cannot be read ends the check, as nothing fits then."""
    node, met = find(tree, ("kind",))
    if not met or node.value != "sweep":
        return tree
    before = len(problems)
    tree = read_base(tree, problems, files)
    if len(problems) > before:
        problems.raise_if_any()
    return tree


def _as_run(tree: Node, problems: Problems) -> RunConfig | None:
    config = _validated(RunConfig, tree, problems)
    return config if isinstance(config, RunConfig) else None


def _model(
    tree: Node, expect: type[BaseModel] | tuple[type[BaseModel], ...] | None, problems: Problems
) -> type[BaseModel] | None:
    node, met = find(tree, ("kind",))
    if not met:
        _missing_kind(tree, problems)
        return None
    model = KINDS.get(node.value) if isinstance(node.value, str) else None
    if model is None:
        hint = did_you_mean(str(node.value), KINDS)
        problems.add(node.place, f"kind is {show(node.value)}; it must be one of {', '.join(KINDS)}{hint}")
        return None
    wanted = (expect,) if isinstance(expect, type) else expect
    if wanted and not issubclass(model, wanted):
        names = " or ".join(kind for kind, known in KINDS.items() if issubclass(known, wanted))
        problems.add(node.place, f"kind is {node.value}; this command takes a file of kind {names}")
        return None
    return model


def _missing_kind(tree: Node, problems: Problems) -> None:
    """Say that no kind is given; the cause may be a misspelt ``extends``, whose file would give it."""
    known = {key for model in KINDS.values() for key in model.model_fields}
    keys = tree.value if isinstance(tree.value, dict) else {}
    meant = closest("extends", keys.keys() - known)
    if meant is None:
        missing_kind(tree, "kind", list(KINDS), problems)
    else:
        place = keys[meant].key_place or keys[meant].place
        problems.add(place, f"unknown key {meant!r}; did you mean 'extends'?")


def _validated(model: type[BaseModel], tree: Node, problems: Problems) -> BaseModel | None:
    # Through JSON because only there pydantic's strict mode takes a list for a tuple; strict, because
    # "64" is not a number, 1 not a boolean and true not a number.
    try:
        return model.model_validate_json(json.dumps(plain(tree)), strict=True)
    except ValidationError as error:
        explain(model, tree, error.errors(include_url=False), problems)
        return None
