"""The loss of a run: embeddings in, their gradient out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from reasoning_embedding import config
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.errors import InputError

from .matryoshka import at_width
from .regularisers import check_anchor_texts
from .temperature import Temperature
from .terms import TermInputs, load_terms, terms
from .tiled_infonce import tiled_infonce


def build_loss(
    settings: config.InfoNCE,
    dimension: int | None = None,
    given: Mapping[str, Callable[..., Tensor]] | None = None,
) -> ContrastiveLoss:
    """Return the loss that a configuration describes.

    Parameters
    ----------
    settings : config.InfoNCE
        The ``loss`` section.
    dimension : int, optional
        Width of the embeddings, to check ``matryoshka`` against.
    given : mapping of str to callable, optional
        Functions of the section's own ``terms``, from :func:`load_terms`. Absent: they are loaded.

    Raises
    ------
    InputError
        If ``matryoshka`` names a width that the embeddings do not have.
    """
    widest = max(settings.matryoshka or [0])
    if dimension is not None and widest > dimension:
        raise InputError(
            f"width {widest} is more than the {dimension} dimensions of this backbone",
            where="loss.matryoshka",
            todo=f"name widths of at most {dimension}",
        )
    return ContrastiveLoss(settings, load_terms(settings, {}) if given is None else given)


class ContrastiveLoss:
    """A configured loss, without process group and without autograd graph.

    On each rank a step calls :meth:`compute`, sums what it returns over ranks, and calls :meth:`finish`; where the
    weights are updated, :meth:`update` is called too.

    Parameters
    ----------
    settings : config.InfoNCE
        The ``loss`` section.
    given : mapping of str to callable
        Functions of the section's own ``terms``, from :func:`load_terms`.
    """

    def __init__(
        self,
        settings: config.InfoNCE,
        given: Mapping[str, Callable[..., Tensor]],
    ) -> None:
        widths = settings.matryoshka or []
        self._settings = settings
        self._widths = dict(zip(widths, settings.matryoshka_weights or [1.0] * len(widths), strict=True))
        self._terms = list(terms(settings, given))
        self._temperature = Temperature(settings.temperature, settings.learn_temperature)
        self._temperature_gradient = 0.0

    @property
    def needs_anchor(self) -> bool:
        """Whether :meth:`compute` must be given the embeddings of the untrained backbone."""
        return self._settings.anchor is not None

    def compute(
        self, embeddings: Tensor, batch: Batch, *, rank: int = 0, ranks: int = 1, anchor: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute one rank's part of the loss of a batch, and of its gradient.

        Parameters
        ----------
        embeddings : Tensor
            (n, D) unit vectors of the batch's distinct texts, equal on all ranks.
        batch : Batch
            What part each text plays, on the same device.
        rank, ranks : int
            Which part of how many: every `ranks`-th query, from `rank` on.
        anchor : Tensor, optional
            (n, D0) embeddings of the same texts by the backbone before its first step.

        Returns
        -------
        gradient : Tensor
            (n, D) of the batch's loss with respect to the embeddings of all its texts: this rank's part, which adds up
            over ranks.
        sums : dict of str to Tensor
            Float64 scalars by name, the same names on every rank; once summed over ranks, :meth:`finish` takes them.

        Raises
        ------
        ValueError
            If the loss has an anchor term and there is no `anchor`.
        InputError
            On every rank, if the batch has too few texts for the anchor term.
        """
        if self._settings.anchor is not None:  # said by the one rank that computes it, the others would wait
            check_anchor_texts(len(embeddings), debiased=self._settings.anchor.debiased)
        embeddings = embeddings.detach().to(torch.promote_types(embeddings.dtype, torch.float32))
        inputs = TermInputs(
            embeddings=embeddings,
            batch=batch,
            rows=torch.arange(len(batch.query), device=embeddings.device)[rank::ranks],
            anchor=anchor,
            temperature=self._temperature.value,
            tile_rows=self._settings.tile_rows,
            gradient=torch.zeros_like(embeddings),
        )
        sums = self._infonce(inputs)
        for number, term in enumerate(self._terms):
            if term.by_rows or number % ranks == rank:
                sums[term.name] = term.compute(inputs, term.weight)
                sums["loss"] = sums["loss"] + term.weight * sums[term.name]
            else:
                sums[term.name] = torch.zeros_like(sums["loss"])
        return inputs.gradient, sums

    def _infonce(self, inputs: TermInputs) -> dict[str, Tensor]:
        """Sums of InfoNCE at the full width, and at every other one."""
        queries, full = len(inputs.batch.query), inputs.embeddings.shape[1]
        zero = torch.zeros((), dtype=torch.float64, device=inputs.embeddings.device)
        sums = {"loss": zero, "accuracy": zero}
        slope = zero
        for width, weight in ({full: 1.0} | self._widths).items():
            with at_width(inputs.embeddings, width, inputs.gradient) as (embeddings, gradient):
                found = tiled_infonce(
                    embeddings,
                    inputs.batch,
                    inputs.rows,
                    self._settings,
                    temperature=inputs.temperature,
                    gradient=gradient,
                    scale=weight / queries,
                )
            sums["loss"] = sums["loss"] + weight * found.loss / queries
            slope = slope + weight * found.temperature_gradient / queries
            if width == full:
                sums["accuracy"] = found.correct / queries
                if self._settings.masks_same_text:
                    sums["masked"] = found.masked
            if self._widths or self._terms:
                sums["infonce" if width == full else f"infonce_{width}"] = found.loss / queries
        return sums | ({"temperature_gradient": slope} if self._temperature.learnt else {})

    def finish(self, sums: dict[str, float]) -> dict[str, float]:
        """Take the sums over all ranks of what :meth:`compute` returned.

        Returns
        -------
        dict of str to float
            ``loss``; ``accuracy``, the share of queries whose positive scores higher than every other document of
            their softmax, ties not counted; ``masked``, how many documents ``mask_same_text`` left out of the softmax
            of a query; the value of each term and each further width, unweighted; ``temperature``
            where it is learnt.
        """
        measures = dict(sums)
        if self._temperature.learnt:
            self._temperature_gradient = measures.pop("temperature_gradient")
            measures["temperature"] = self._temperature.value
        return measures

    def update(self, learning_rate: float) -> None:
        """Move a learnt temperature by the gradient of the last finished step."""
        self._temperature.update(self._temperature_gradient, learning_rate)

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs to go on bitwise, as JSON values."""
        return self._temperature.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self._temperature.restore(state)
