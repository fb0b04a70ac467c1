"""What training needs beside a model folder to go on as if it had never stopped.

Data and dropout are functions of (seed, step), so the state is the optimizer's moments, and the trainable
parameters where no model folder holds them: the adapters of a LoRA run, whose checkpoints are merged, and
the weights of an unfinished pre-training. Tensors are safetensors; nothing is pickled.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import atomic_folder, hash_file, read_json, write_json

_TODO = "delete this state folder to resume from the one before"
_TENSORS = "state.safetensors"
_RECORD = "state.json"
#: Of what is written; states of format 1 had no sums.
_FORMAT = 2


def save_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, parameters: bool, **record: Any
) -> None:
    """Write the state of a module that this process holds in full; see :func:`write_state`.

    Parameters
    ----------
    folder : Path
        Where; an existing state is replaced.
    model : nn.Module
        Whose trainable parameters are saved if `parameters`.
    optimizer : torch.optim.Optimizer
        Its per-parameter state must be tensors.
    parameters : bool
        Whether no model folder holds the trainable parameters.
    **record
        JSON values that come back from :func:`load_state`.
    """
    kept = {name: value.detach() for name, value in trainable(model).items()} if parameters else {}
    write_state(folder, optimizer.state_dict(), kept, **record)


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put what :func:`save_state` wrote into `model` and `optimizer`, and return its record.

    Raises
    ------
    InputError
        If the state is damaged or belongs to other parameters.
    """
    with explain_damage(folder):
        verify_state(folder)
        state, parameters, record = read_state(folder)
        check_groups(state["param_groups"], optimizer.state_dict()["param_groups"])
        optimizer.load_state_dict(state)
        put_parameters(model, parameters)
    return record


def write_state(
    folder: Path, optimizer: Mapping[str, Any], parameters: Mapping[str, Tensor], **record: Any
) -> None:
    """Write a state, all or nothing.

    Parameters
    ----------
    folder : Path
        Where; an existing state is replaced.
    optimizer : mapping
        A ``state_dict`` of an optimizer, in unsharded tensors.
    parameters : mapping
        Trainable parameters that no model folder holds, by name.
    **record
        JSON values.
    """
    tensors = {
        f"optimizer.{index}.{name}": value.contiguous()
        for index, entry in optimizer["state"].items()
        for name, value in entry.items()
    }
    tensors |= {f"parameter.{name}": value.contiguous() for name, value in parameters.items()}
    with atomic_folder(folder) as temporary:
        save_file(tensors, temporary / _TENSORS)
        content = {**record, "param_groups": optimizer["param_groups"]}
        sums = {"format": _FORMAT, "sums": {_TENSORS: hash_file(temporary / _TENSORS)}}
        write_json(temporary / _RECORD, content | sums, summed=True)


def read_state(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_state` wrote: optimizer, parameters and record.

    Tensors lie in the mapped file: what nobody copies is never read.
    """
    state: dict[int, dict[str, Tensor]] = {}
    parameters: dict[str, Tensor] = {}
    for key, value in load_file(folder / _TENSORS).items():
        kind, _, rest = key.partition(".")
        if kind == "parameter":
            parameters[rest] = value
        else:
            index, _, name = rest.partition(".")
            state.setdefault(int(index), {})[name] = value
    record = read_record(folder)
    del record["sums"], record["format"]
    return {"state": state, "param_groups": record.pop("param_groups")}, parameters, record


def verify_state(folder: Path) -> bool:
    """Hold a state's tensors to the sum of its record.

    Returns
    -------
    bool
        False for a state of an older version, which has no sums.

    Raises
    ------
    InputError
        If a file is not there, or is not the one that was written.
    """
    with explain_damage(folder):
        record = read_record(folder)
        wanted = record["sums"].get(_TENSORS)
        if wanted is None and record["format"] == 1:
            return False
        if hash_file(folder / _TENSORS) != wanted:
            raise InputError(f"{_TENSORS} was changed after it was written", where=str(folder), todo=_TODO)
    return True


def check_groups(saved: Any, now: Any) -> None:
    """Refuse the settings of another optimizer; the rate is set anew each step and plays no part.

    Parameters
    ----------
    saved, now : list of dict
        ``param_groups`` of a state and of the optimizer that it is for. What one of them lacks (another version of
        torch) is not compared.

    Raises
    ------
    ValueError
        Naming what differs.
    """
    saved, now = json.loads(json.dumps([saved, now]))  # a pair comes back from JSON as a list
    if [len(group["params"]) for group in saved] != [len(group["params"]) for group in now]:
        raise ValueError("it holds other parameters")
    for old, new in zip(saved, now, strict=True):
        for key in (old.keys() & new.keys()) - {"lr", "initial_lr", "params"}:
            if old[key] != new[key]:
                raise ValueError(f"its {key} is {old[key]}, and the run's {new[key]}")


def put_parameters(model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Copy saved trainable parameters into a module that this process holds in full."""
    own = trainable(model)
    with torch.no_grad():
        for name, value in parameters.items():
            own[name].copy_(value)


@contextlib.contextmanager
def explain_damage(folder: Path) -> Generator[None]:
    """Turn what a damaged or foreign state raises into an error with a cure.

    Raises
    ------
    InputError
        If the state is damaged or belongs to other parameters.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"the saved state cannot be used ({error})",
            where=str(folder),
            todo=_TODO,
        ) from error


def read_record(folder: Path) -> dict[str, Any]:
    """Read a state's record without its tensors.

    Raises
    ------
    InputError
        If it is not there, is damaged, or does not say what the optimizer was.
    """
    try:
        record = read_json(folder / _RECORD, todo=_TODO)
    except OSError as error:
        raise InputError(f"{_RECORD} is not there", where=str(folder), todo=_TODO) from error
    # A record of today that lost its format or its sums is damaged, not old.
    new = "format" in record or "sums" in record
    whole = record.get("format") == _FORMAT and isinstance(record.get("sums"), dict) if new else True
    if not whole or not isinstance(record.get("param_groups"), list):
        raise InputError(f"{_RECORD} lacks what every state has", where=str(folder), todo=_TODO)
    return {"format": 1, "sums": {}, **record}


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
