"""From a YAML file and overrides to a checked configuration, or to every problem in them.

Relative paths inside a configuration are relative to the current working directory, except those of
``extends:`` and a sweep's ``base:``, which are relative to the file that names them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from reasoning_embedding.config.experiment import ExperimentConfig
from reasoning_embedding.config.lineage import LineageConfig
from reasoning_embedding.config.merge import MergeConfig
from reasoning_embedding.config.reading.sweep_runs import SweepRun, expand_sweep
from reasoning_embedding.config.resolved import to_yaml
from reasoning_embedding.config.sweep import SweepConfig
from reasoning_embedding.config.training import RunConfig
from reasoning_embedding.errors import ConfigError
from reasoning_embedding.secrets import holds_secret, known_secrets

from .extends import read_base, read_tree
from .messages import M, bad_kind, validated
from .overrides import apply_overrides
from .own_functions import pin_functions
from .suggestions import closest
from .tree import Node, Place, Problems, find, tree_of

#: Keys whose texts stand in checkpoints as they are: what models read, and what it is called.
_KEPT = frozenset(
    {"name", "query_template", "instruction", "prompt", "query_prompt", "document_prompt", "prompts"}
)

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
        return str(node.place if met == len(path) else node.start)


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
        return _checked(tree, path, text, files, overrides, expect, problems)
    problems.raise_if_any()
    raise ConfigError([f"{path}: nothing could be read"])


def _checked(
    tree: Node,
    path: Path,
    text: str | None,
    files: list[Path],
    overrides: Sequence[str],
    expect: type[BaseModel] | tuple[type[BaseModel], ...] | None,
    problems: Problems,
) -> LoadedConfig:
    """Override and check a tree; one without a text of its own gets that of the checked configuration."""
    # Before the overrides, which may reach into the base, and after them, which may name another.
    tree = _with_base(tree, problems, files)
    tree = _with_base(apply_overrides(tree, overrides, problems), problems, files)
    tree = pin_functions(tree, problems)
    model = _model(tree, expect, problems)
    config = validated(model, tree, problems) if model else None
    if config is not None:
        _refuse_secrets(tree, problems, anywhere=isinstance(config, ExperimentConfig | SweepConfig))
    if isinstance(config, SweepConfig):
        expand_sweep(config, tree, problems)
    problems.raise_if_any()
    assert config is not None  # else there was a problem
    return LoadedConfig(config, path, to_yaml(config) if text is None else text, tuple(files), tree)


def config_from_mapping(
    settings: Mapping[str, Any],
    overrides: Sequence[str] = (),
    expect: type[BaseModel] | tuple[type[BaseModel], ...] | None = None,
    *,
    kind: str | None = None,
) -> LoadedConfig:
    """Check a configuration that is a Python mapping as :func:`load_config` checks a file.

    Parameters
    ----------
    settings : mapping
        What the file would say; paths (of ``pathlib``) and tuples may stand in it too. ``${...}`` is text.
    overrides, expect
        As for :func:`load_config`.
    kind : str, optional
        Taken where the mapping names no ``kind``.

    Raises
    ------
    ConfigError
        With every problem found and its key path.
    """
    problems = Problems()
    content = settings if kind is None else {"kind": kind, **settings}
    tree = tree_of(content, Place("config"), problems)
    problems.raise_if_any()
    return _checked(tree, Path("config"), None, [], overrides, expect, problems)


def section_from_mapping(model: type[M], settings: Mapping[str, Any], *, where: str) -> M:
    """Check one section that is a Python mapping; `where` is what messages call it.

    Raises
    ------
    ConfigError
        With every problem found and its key path.
    """
    problems = Problems()
    tree = pin_functions(tree_of(settings, Place(where), problems), problems)
    problems.raise_if_any()
    section = validated(model, tree, problems)
    problems.raise_if_any()
    assert section is not None
    return section


def sweep_runs(loaded: LoadedConfig) -> list[SweepRun]:
    """Return the runs of a loaded sweep, in order; loading has checked them all."""
    problems = Problems()
    runs = expand_sweep(loaded.config, loaded.tree, problems)
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


def _model(
    tree: Node, expect: type[BaseModel] | tuple[type[BaseModel], ...] | None, problems: Problems
) -> type[BaseModel] | None:
    node, met = find(tree, ("kind",))
    model = KINDS.get(node.value) if met and isinstance(node.value, str) else None
    if model is None:
        if met or not _misspelt_extends(tree, problems):
            bad_kind(tree, "kind", list(KINDS), problems)
        return None
    wanted = (expect,) if isinstance(expect, type) else expect
    if wanted and not issubclass(model, wanted):
        names = " or ".join(kind for kind, known in KINDS.items() if issubclass(known, wanted))
        problems.add(node.place, f"kind is {node.value}; this command takes a file of kind {names}")
        return None
    return model


def _refuse_secrets(tree: Node, problems: Problems, *, anywhere: bool) -> None:
    """Refuse secrets that could not be masked without changing what is done.

    A run's and a merge's record puts a digest in the place of a secret. Prompts and their names are written into
    every checkpoint as they are, and the processes of experiments and sweeps read their settings from files.
    """
    known = known_secrets()

    def look(node: Node, key: str) -> None:
        if isinstance(node.value, dict):
            for name, item in node.value.items():
                look(item, name)
        elif isinstance(node.value, list):
            for item in node.value:
                look(item, key)
        elif isinstance(node.value, str) and (anywhere or key in _KEPT) and holds_secret(node.value, known):
            why = "its processes read from files" if anywhere else "is written into every checkpoint as it is"
            problems.add(
                node.place,
                f"{key} holds an access token or a password, and this text {why}; take it out (and revoke it, where "
                "others may have read it)",
            )

    look(tree, "")


def _misspelt_extends(tree: Node, problems: Problems) -> bool:
    """Whether a key looks like ``extends``, whose file would have given the kind that is missing."""
    known = {key for model in KINDS.values() for key in model.model_fields}
    keys = tree.value if isinstance(tree.value, dict) else {}
    meant = closest("extends", keys.keys() - known)
    if meant is not None:
        problems.add(keys[meant].start, f"unknown key {meant!r}; did you mean 'extends'?")
    return meant is not None
