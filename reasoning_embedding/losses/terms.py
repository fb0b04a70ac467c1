"""The terms that a configuration can add to InfoNCE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from reasoning_embedding import config
from reasoning_embedding.config.functions import check_call, explain_own_code, load_function
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.errors import InputError

from .distillation import distillation, vector_distillation
from .regularisers import anchor_distance, sigreg, uniformity


@dataclass(frozen=True)
class TermInputs:
    """What a rank computes a term from, and where the gradient goes.

    Attributes
    ----------
    embeddings : Tensor
        (n, D) of all distinct texts.
    batch : Batch
        Their parts.
    rows : Tensor
        This rank's queries.
    anchor : Tensor or None
        (n, D0) of the same texts by the backbone before its first step.
    temperature : float
        Of InfoNCE.
    tile_rows : int
        Rows at a time.
    gradient : Tensor
        (n, D), to be added to.
    """

    embeddings: Tensor
    batch: Batch
    rows: Tensor
    anchor: Tensor | None
    temperature: float
    tile_rows: int
    gradient: Tensor


@dataclass(frozen=True)
class LossTerm:
    """Something added to InfoNCE.

    Attributes
    ----------
    name : str
        Under which its value is logged.
    weight : float
        It counts this much.
    by_rows : bool
        It is a sum over query rows, and each rank computes its own; else one rank computes the whole.
    compute : callable
        (inputs, scale) -> its value (of these rows); adds `scale` times its gradient to ``inputs.gradient``.
    """

    name: str
    weight: float
    by_rows: bool
    compute: Callable[[TermInputs, float], Tensor]


def terms(settings: config.InfoNCE, given: Mapping[str, Callable[..., Tensor]]) -> Iterator[LossTerm]:
    """Terms of a configuration; `given`: the functions of its own ``terms``, as :func:`load_terms` returns them."""
    if (one := settings.distillation) is not None:
        yield LossTerm("distillation", one.weight, by_rows=True, compute=partial(_distillation, one))
    if (one := settings.teacher_vectors) is not None:
        yield LossTerm("teacher_vectors", one.weight, by_rows=True, compute=partial(_teacher_vectors, one))
    if (one := settings.uniformity) is not None:
        yield LossTerm("uniformity", one.weight, by_rows=False, compute=partial(_uniformity, one))
    if (one := settings.sigreg) is not None:
        yield LossTerm("sigreg", one.weight, by_rows=False, compute=partial(_sigreg, one))
    if (one := settings.anchor) is not None:
        yield LossTerm("anchor", one.weight, by_rows=False, compute=partial(_anchor, one))
    for one in settings.terms:
        compute = partial(_own, one, given[one.function])
        yield LossTerm(f"terms.{one.label}", one.weight, by_rows=False, compute=compute)


def load_terms(
    settings: config.InfoNCE, from_python: Mapping[str, Callable[..., Tensor]]
) -> dict[str, Callable[..., Tensor]]:
    """Return the functions of the ``terms`` of a configuration by their addresses.

    Parameters
    ----------
    settings : config.InfoNCE
        The ``loss`` section.
    from_python : mapping of str to callable
        Those that a Python program gave.

    Raises
    ------
    InputError
        If a function cannot be imported, is another one than the configuration was read with, does not take
        ``(embeddings, batch)`` and its options, or was given by a Python program that is not this one.
    """
    found = {}
    for number, term in enumerate(settings.terms):
        where = f"loss.terms[{number}] ({term.function})"
        function = from_python.get(term.function)
        if function is None:
            function = load_function(term.function, where=where, sha256=term.sha256)
        check_call(function, 2, term.options, where=where)
        found[term.function] = function
    return found


def _distillation(settings: config.Distillation, inputs: TermInputs, scale: float) -> Tensor:
    """Mean over queries (kl) or over hard negatives (margin_mse)."""
    queries, candidates = len(inputs.batch.query), len(inputs.batch.document)
    count = queries if settings.method == "kl" else max(candidates - queries, 1)
    return _mean_over_rows(distillation, settings, inputs, scale, count)


def _teacher_vectors(settings: config.VectorDistillation, inputs: TermInputs, scale: float) -> Tensor:
    """Mean over queries."""
    return _mean_over_rows(vector_distillation, settings, inputs, scale, len(inputs.batch.query))


def _mean_over_rows(
    compute: Callable[..., Tensor], settings: Any, inputs: TermInputs, scale: float, count: int
) -> Tensor:
    """Sum a term over this rank's rows, a tile at a time, and divide by what there is of it in the whole batch."""
    total = torch.zeros((), dtype=torch.float64, device=inputs.embeddings.device)
    for rows in inputs.rows.split(inputs.tile_rows):
        total += compute(
            inputs.embeddings,
            inputs.batch,
            rows,
            settings,
            temperature=inputs.temperature,
            gradient=inputs.gradient,
            scale=scale / count,
        )
    return total / count


def _uniformity(settings: config.Uniformity, inputs: TermInputs, scale: float) -> Tensor:
    """Mean of the queries' and the positives', as Wang and Isola's."""
    kinds = (inputs.batch.query, inputs.batch.document[: len(inputs.batch.query)])
    values = [
        uniformity(
            inputs.embeddings,
            texts.unique(),
            t=settings.t,
            tile_rows=inputs.tile_rows,
            gradient=inputs.gradient,
            scale=scale / len(kinds),
        )
        for texts in kinds
    ]
    return torch.stack(values).mean()


def _sigreg(settings: config.SIGReg, inputs: TermInputs, scale: float) -> Tensor:
    return sigreg(
        inputs.embeddings,
        directions=settings.directions,
        seed=inputs.batch.seed,
        gradient=inputs.gradient,
        scale=scale,
    )


def _own(
    settings: config.OwnTerm, function: Callable[..., Tensor], inputs: TermInputs, scale: float
) -> Tensor:
    """A user's function, differentiated by autograd."""
    where = f"loss.terms.{settings.label}"
    leaf = inputs.embeddings.detach().requires_grad_()
    with torch.enable_grad(), explain_own_code(where):
        value = function(leaf, inputs.batch, **settings.options)
        if not isinstance(value, Tensor) or value.ndim:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"it returned {shape}, not one number", where=where, todo="return a tensor without dimensions"
            )
        if not value.requires_grad:
            raise InputError(
                "its value does not depend on the embeddings, so it teaches nothing",
                where=where,
                todo="compute it from the first argument by torch's functions, without detach() or numpy",
            )
        (slope,) = torch.autograd.grad(value, leaf)
    inputs.gradient.add_(slope, alpha=scale)
    return value.detach().double()


def _anchor(settings: config.Anchor, inputs: TermInputs, scale: float) -> Tensor:
    if inputs.anchor is None:
        raise ValueError("this loss needs the embeddings of the backbone before its first step")
    return anchor_distance(
        inputs.embeddings, inputs.anchor, debiased=settings.debiased, gradient=inputs.gradient, scale=scale
    )
