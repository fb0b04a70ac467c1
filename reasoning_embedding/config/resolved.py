"""Configurations with every default filled in: as JSON, as YAML, and what differs between two."""

from __future__ import annotations

import copy
import hashlib
import json
import re
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
#: What may change when a run is resumed: where it lies, what is logged, kept and measured of it, and the resources of
#: its steps. The gradient is the same; its rounding may differ.
_FREE_ON_RESUME = (
    "name",
    "output_dir",
    "logging",
    "hrsa",
    "checkpoints",
    "data.cache_dir",
    "training.device",
    "training.threads",
    "training.pack_tokens",
    "training.memory",
    "training.store_tokens",
    "training.memory_gib",
    "training.activation_checkpointing",
    "training.compile",
    "training.fused_layers",
    "training.ranks",
    "training.timeout_minutes",
    "evaluation.every",
)
#: Says the learning rate of each step: may change where the steps that were taken keep theirs.
_SCHEDULE = (
    "training.steps",
    "training.epochs",
    "training.schedule",
    "training.warmup_ratio",
    "training.final_learning_rate",
    "training.restarts",
)
#: Say where something lies; what lies there is compared instead.
_PLACES = re.compile(
    r"backbone\.path|data\.sources\.\d+\.(path|rows|corpus|function|sha256)|loss\.terms\.\d+\.function"
    r"|loss\.teacher_vectors\.folder"
)
#: Defaults of earlier versions, of keys that are null by default today: a run that began with one keeps it when it is
#: resumed.
_EARLIER_DEFAULTS: dict[str, Any] = {
    "training.final_learning_rate": 0.0,
    "loss.mask_same_text": False,
    "evaluation.max_tokens": 512,
}
#: Keys that versions before did not have, and what leaves all as it was then.
_NEW_KEYS: dict[str, Any] = {
    "data.holdout": None,
    "training.restarts": [],
    "training.device": "auto",
    "loss.terms": [],
    "data.sources.*.columns": None,
    "data.sources.*.min_score": None,
    "data.sources.*.relations": None,
    "tasks.*.relations": None,
    "loss.teacher_vectors": None,
    "hrsa.metrics": [],
    "analysis.metrics": [],
    "hrsa.skip_first": "auto",
    "analysis.skip_first": "auto",
    "analysis.reference_levels": True,
    "analysis.pairs.*.sibling": None,
    "stage.placebo_of": None,
}


def resolved_json(config: BaseModel) -> dict[str, Any]:
    """Return a configuration as JSON values, every default filled in."""
    return config.model_dump(mode="json")


def with_old_defaults(resolved: dict[str, Any]) -> dict[str, Any]:
    """Return a resolved recipe or run as versions before wrote it, where it says no more than those could.

    By it the runs of a sweep, and the stages of an experiment, of those versions are known again.
    """
    resolved = without_new_keys(resolved)
    for key, old in _EARLIER_DEFAULTS.items():
        for place, last in _places(resolved, key.split(".")):
            if place.get(last, ABSENT) is None:
                place[last] = old
    if (section := resolved.get("evaluation")) is not None:
        resolved["evaluation"] = evaluation_of_before(section)
    readout = resolved["readout"]
    beyond = {key for key, value in readout.items() if value is not None} - {"pooling", "include_prompt"}
    if not beyond and readout["pooling"] in (None, "mean"):
        del resolved["readout"]
        resolved["pooling"] = {"kind": "mean", "include_prompt": bool(readout["include_prompt"])}
    return resolved


def without_new_keys(resolved: dict[str, Any]) -> dict[str, Any]:
    """Return resolved settings, sections under their own names, without the keys of today that say nothing."""
    resolved = copy.deepcopy(resolved)
    for key, default in _NEW_KEYS.items():
        for place, last in _places(resolved, key.split(".")):
            if place.get(last, ABSENT) == default:
                del place[last]
    return resolved


def _places(value: Any, path: list[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Mappings that hold the last key of a path; ``*`` stands for each entry of a list."""
    if path[0] == "*":
        for item in value if isinstance(value, list) else ():
            yield from _places(item, path[1:])
    elif isinstance(value, dict) and len(path) == 1:
        yield value, path[0]
    elif isinstance(value, dict):
        yield from _places(value.get(path[0]), path[1:])


def evaluation_of_before(section: dict[str, Any]) -> dict[str, Any]:
    """Return a resolved evaluation section as versions before had it: texts cut at 512 tokens, whole vectors."""
    new = ("prompts", "truncate", "quantize")
    section = without_new_keys(section)
    kept = {key: value for key, value in section.items() if value is not None or key not in new}
    return kept if kept.get("max_tokens") is not None else {**kept, "max_tokens": 512}


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
    """List what a configuration saved as JSON says otherwise than one of today, of what may not change on resume.

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
        Key paths; empty when a run of the one may go on as the other. Schedule (:func:`is_schedule`),
        places (:func:`is_place`) and what is scored (:func:`is_scoring`) are among them.
    """
    now, _ = as_begun(saved, now)
    found = differences(_today(saved, now), resolved_json(now))
    same = [key for key, old, new in found if "pooling" in saved and _said_or_not(key, old, new)]
    return [key for key, *_ in found if not _is_free(key) and key not in same]


def as_begun(saved: dict[str, Any], now: BaseModel) -> tuple[Any, list[str]]:
    """Return a configuration with the defaults that an earlier version had where the saved one was begun with them.

    Parameters
    ----------
    saved : dict
        What :func:`resolved_json` gave when the run began.
    now : BaseModel
        The same run's configuration of today.

    Returns
    -------
    tuple
        The configuration, and ``key = value`` of each key that was set back.
    """
    before, content, kept = dict(_leaves(saved, "")), resolved_json(now), []
    for key, old in _EARLIER_DEFAULTS.items():
        *sections, last = key.split(".")
        place = content
        for section in sections:
            place = place.get(section) or {}
        # None is what all of these are by default today.
        if before.get(key, ABSENT) == old and last in place and place[last] is None:
            place[last] = old
            kept.append(f"{key} = {json.dumps(old)}")
    return (type(now).model_validate(content) if kept else now), kept


def digests(resolved: dict[str, Any]) -> dict[str, str]:
    """Return a short SHA-256 of each setting that moves a run's gradient, by key path, of what :func:`resolved_json` gave.

    Places are left out: the content of data and backbone is compared. So is the schedule, whose rates are.
    """
    return {
        key: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
        for key, value in (*_leaves(resolved, ""), *_lengths(resolved, ""))
        if not _is_free(key)
        and not is_place(key)
        and not is_schedule(key)
        and not key.startswith("evaluation")
    }


def is_place(key: str) -> bool:
    """Whether a key path says where data or a backbone lies, not what it holds."""
    return _PLACES.fullmatch(key) is not None


def is_scoring(key: str) -> bool:
    """Whether a key path decides the scores that a run takes while it trains; when they are taken plays no part."""
    return _within(key, ("evaluation",)) and key != "evaluation.every"


def scoring_digest(resolved: dict[str, Any]) -> str:
    """Return a short SHA-256 of what decides the scores of a run while it trains, of what :func:`resolved_json` gave."""
    scoring = {key: value for key, value in _leaves(resolved, "") if is_scoring(key)}
    return hashlib.sha256(json.dumps(scoring, sort_keys=True).encode()).hexdigest()[:16]


def is_schedule(key: str) -> bool:
    """Whether a key path decides the rates of steps."""
    return _within(key, _SCHEDULE)


def _is_free(key: str) -> bool:
    return _within(key, _FREE_ON_RESUME)


def _within(key: str, sections: tuple[str, ...]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _today(saved: dict[str, Any], now: BaseModel) -> dict[str, Any]:
    """Fill in the keys of today; a key that is gone, or a value that is no longer allowed, stays as it is."""
    try:
        return resolved_json(type(now).model_validate(saved))
    except ValidationError:
        return saved


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


def _lengths(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Entries of each list: a longer one has all leaves of a shorter."""
    if isinstance(value, list):
        yield f"{path}.length", len(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _lengths(item, f"{path}.{key}" if path else str(key))


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the text that our reader would take for something else."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # ty: ignore[incompatible-attribute-override]


for _tag, _pattern, _first in SCALARS:
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)
_Dumper.add_representer(str, lambda dumper, text: dumper.represent_str(escape(text)))


def to_yaml(config: BaseModel) -> str:
    """Write a configuration as YAML that :func:`.reading.loading.load_config` reads back to an equal one."""
    return yaml.dump(resolved_json(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
