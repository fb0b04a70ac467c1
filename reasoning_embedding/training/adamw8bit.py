"""AdamW with 8-bit moments, from bitsandbytes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reasoning_embedding.errors import SetupError

#: Where bitsandbytes keeps quantised moments within a parameter's saved state.
_NESTED = "__bnb_optimizer_quant_state__"


def adamw8bit(groups: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:
    """Return bitsandbytes' AdamW8bit, with a saved state of flat tensors.

    Parameters
    ----------
    groups : list of dict
        Parameter groups.
    **options
        ``lr`` and ``betas``.

    Raises
    ------
    SetupError
        If bitsandbytes is not installed.
    """
    try:
        from bitsandbytes.optim import AdamW8bit  # ty: ignore[import-not-found]
    except ImportError as error:
        raise SetupError(
            "optimizer 'adamw8bit' needs bitsandbytes",
            todo="pip install 'reasoning-embedding[bitsandbytes]', or optimizer: adamw",
        ) from error

    class FlatAdamW8bit(AdamW8bit):
        """Its state_dict holds one tensor a name, as the state of a run is saved."""

        def state_dict(self) -> dict[str, Any]:
            saved = super().state_dict()
            return {**saved, "state": {index: _flat(entry) for index, entry in saved["state"].items()}}

        def load_state_dict(self, state_dict: dict[str, Any], **kwargs: Any) -> None:
            state = {index: _nested(entry) for index, entry in state_dict["state"].items()}
            super().load_state_dict({**state_dict, "state": state}, **kwargs)

    return FlatAdamW8bit(groups, **options)


def _flat(entry: dict[str, Any]) -> dict[str, Tensor]:
    flat = {name: value for name, value in entry.items() if name != _NESTED}
    flat |= {f"{_NESTED}{name}": value for name, value in entry.get(_NESTED, {}).items()}
    # All parameters share one code book; a file of tensors wants each on its own.
    return {name: torch.as_tensor(value).clone() for name, value in flat.items()}


def _nested(entry: dict[str, Tensor]) -> dict[str, Any]:
    found: dict[str, Any] = {name: value for name, value in entry.items() if not name.startswith(_NESTED)}
    nested = {name.removeprefix(_NESTED): v for name, v in entry.items() if name.startswith(_NESTED)}
    if nested:
        found[_NESTED] = nested
    return {name: int(value) if name == "step" else value for name, value in found.items()}
