"""What a run needs beside its newest checkpoint to go on as if it had never stopped.

Data and dropout are functions of (seed, step), so the state is the optimizer's moments, and the adapters
of a LoRA run, whose checkpoints hold merged weights. Tensors are safetensors; nothing is pickled.
"""

from __future__ import annotations

import json

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reasoning_embedding.errors import InputError

from .atomic import atomic_folder, write_json
from .layout import RunFolder


def save_state(
    run: RunFolder, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, *, adapters: bool
) -> None:
    """Write the state of `step`, all or nothing.

    Parameters
    ----------
    run : RunFolder
        The run.
    step : int
        Its checkpoint must already be on disk.
    model : nn.Module
        Whose trainable parameters are saved if `adapters`.
    optimizer : torch.optim.Optimizer
        Its per-parameter state must be tensors.
    adapters : bool
        Whether the checkpoint's weights are merged ones.
    """
    with atomic_folder(run.state(step)) as folder:
        saved = optimizer.state_dict()
        tensors = {
            f"optimizer.{index}.{name}": value.contiguous()
            for index, entry in saved["state"].items()
            for name, value in entry.items()
        }
        if adapters:
            tensors |= {
                f"parameter.{name}": value.detach().contiguous() for name, value in _trainable(model).items()
            }
        save_file(tensors, folder / "state.safetensors")
        write_json(folder / "state.json", {"step": step, "param_groups": saved["param_groups"]})


def load_state(run: RunFolder, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the state of `step` into `model` and `optimizer`.

    Raises
    ------
    InputError
        If the state is damaged or belongs to other parameters.
    """
    folder = run.state(step)
    try:
        tensors = load_file(folder / "state.safetensors")
        groups = json.loads((folder / "state.json").read_text(encoding="utf-8"))["param_groups"]
        state: dict[int, dict[str, Tensor]] = {}
        parameters: dict[str, Tensor] = {}
        for key, value in tensors.items():
            kind, _, rest = key.partition(".")
            if kind == "parameter":
                parameters[rest] = value
            else:
                index, _, name = rest.partition(".")
                state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        trainable = _trainable(model)
        with torch.no_grad():
            for name, value in parameters.items():
                trainable[name].copy_(value)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"the saved state cannot be used ({error})",
            where=str(folder),
            todo="delete this state folder to resume from the one before",
        ) from error


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
