"""The temperature of a softmax over cosines: a number, or a parameter with an optimizer of its own."""

from __future__ import annotations

import math

import torch

from reasoning_embedding import config


class Temperature:
    """A fixed or learnt temperature.

    Parameters
    ----------
    initial : float
        > 0.
    learnt : config.LearntTemperature, optional
        Its range and its learning rate; absent: it stays as it is.

    Notes
    -----
    The parameter is log(temperature), so a step is relative, as in CLIP (arXiv 2103.00020); it is clamped to
    its range after each. One number on the host, equal on all ranks, with its own Adam without decay: it does
    not depend on how an engine holds the model.
    """

    def __init__(self, initial: float, learnt: config.LearntTemperature | None = None) -> None:
        self._initial, self._learnt = initial, learnt
        self._log = torch.nn.Parameter(torch.tensor(math.log(initial), dtype=torch.float64))
        self._adam = torch.optim.Adam([self._log]) if learnt is not None else None

    @property
    def learnt(self) -> bool:
        """Whether :meth:`update` changes it."""
        return self._adam is not None

    @property
    def value(self) -> float:
        """The temperature."""
        return math.exp(self._log.item()) if self.learnt else self._initial

    def update(self, gradient: float, learning_rate: float) -> None:
        """Take one Adam step.

        Parameters
        ----------
        gradient : float
            d loss / d log(temperature), summed over ranks.
        learning_rate : float
            The model's; multiplied by ``learning_rate_factor``.
        """
        if self._learnt is None or self._adam is None:
            return
        self._adam.param_groups[0]["lr"] = learning_rate * self._learnt.learning_rate_factor
        self._log.grad = torch.tensor(gradient, dtype=torch.float64)
        self._adam.step()
        with torch.no_grad():
            self._log.clamp_(math.log(self._learnt.minimum), math.log(self._learnt.maximum))

    def state(self) -> dict[str, float]:
        """Everything that :meth:`restore` needs, as JSON numbers that come back bitwise."""
        if self._adam is None:
            return {}
        moments = {name: float(value) for name, value in self._adam.state[self._log].items()}
        return {"log_temperature": self._log.item(), **moments}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from what :meth:`state` returned."""
        if self._adam is None or not state:
            return
        moments = dict(state)
        with torch.no_grad():
            self._log.fill_(moments.pop("log_temperature"))
        # Adam counts its steps in float32.
        self._adam.state[self._log] = {
            name: torch.tensor(value, dtype=torch.float32 if name == "step" else torch.float64)
            for name, value in moments.items()
        }
