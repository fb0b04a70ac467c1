"""Configurations with every default filled in: as JSON, as YAML, and what differs between two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import yaml
from pydantic import BaseModel, ValidationError

from .reading.variables import escape
from .reading.yaml_file import SCALARS

#: Stands for a key that one of two configurations does not have.
ABSENT = "(absent)"
#: What may differ between the runs of a paired experiment, beside where they lie.
PAIRED = ("backbone", "seed", "name", "output_dir")


def resolved_json(config: BaseModel) -> dict[str, Any]:
    """Return a configuration as JSON values, every default filled in."""
    return config.model_dump(mode="json")


def identity(config: BaseModel) -> dict[str, Any]:
    """Return what a recipe or run is known by: :func:`resolved_json`, so that names and keys made of it stay.

    A readout that says no more than the older ``pooling`` could say is written as that.
    """
    resolved = resolved_json(config)
    readout = resolved["readout"]
    beyond = {key for key, value in readout.items() if value is not None} - {"pooling", "include_prompt"}
    if beyond or readout["pooling"] not in (None, "mean"):
        return resolved
    del resolved["readout"]
    return {**resolved, "pooling": {"kind": "mean", "include_prompt": bool(readout["include_prompt"])}}


def diff(a: BaseModel, b: BaseModel) -> list[tuple[str, Any, Any]]:
    """List what differs between two configurations.

    Parameters
    ----------
    a, b : BaseModel
        Any two sections.

    Returns
    -------
    list of (str, Any, Any)
        Key path (``training.steps``), value in `a`, value in `b`; :data:`ABSENT` where one has no such key.
    """
    return differences(resolved_json(a), resolved_json(b))


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """List what differs between two mappings of JSON values; see :func:`diff`."""
    old, new = dict(_leaves(a, "")), dict(_leaves(b, ""))
    keys = [*old, *(key for key in new if key not in old)]
    pairs = [(key, old.get(key, ABSENT), new.get(key, ABSENT)) for key in keys]
    return [
        (key, left, right) for key, left, right in pairs if type(left) is not type(right) or left != right
    ]


def changed_since(saved: dict[str, Any], now: BaseModel) -> list[str]:
    """List what a configuration saved as JSON says otherwise than one of today.

    Parameters
    ----------
    saved : dict
        What :func:`resolved_json` gave, perhaps of a version with fewer keys: a key that it lacks has its
        default.
    now : BaseModel
        The section of today.

    Returns
    -------
    list of str
        Key paths; empty when both describe the same.
    """
    try:
        before = resolved_json(type(now).model_validate(saved))
    except ValidationError:  # a key that is gone, a value that is no longer allowed
        before = saved
    found = differences(before, resolved_json(now))
    return [key for key, old, new in found if not ("pooling" in saved and _said_or_not(key, old, new))]


def _said_or_not(key: str, old: Any, new: Any) -> bool:
    """Whether a difference is that of the older ``pooling``, which wrote its defaults down, from saying nothing."""
    defaults = {"readout.pooling": "mean", "readout.include_prompt": False}
    return key in defaults and {old, new} == {None, defaults[key]}


def unpaired(found: list[tuple[str, Any, Any]]) -> list[tuple[str, Any, Any]]:
    """Keep of two runs' differences those beside backbone, seed and name: none for runs of one pair."""
    return [entry for entry in found if entry[0].split(".")[0] not in PAIRED]


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [leaf for key, item in items for leaf in _leaves(item, f"{path}.{key}" if path else str(key))]
    yield from below or [(path, value)]


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the text that our reader would take for something else."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # ty: ignore[incompatible-attribute-override]


for _tag, _pattern, _first in SCALARS:
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)
_Dumper.add_representer(str, lambda dumper, text: dumper.represent_str(escape(text)))


def to_yaml(config: BaseModel) -> str:
    """Write a configuration as YAML that :func:`.reading.loading.load_config` reads back to an equal one."""
    return yaml.dump(resolved_json(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
