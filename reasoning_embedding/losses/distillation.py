"""Learning from a teacher: its scores of each query's own candidates, or its vectors of all texts of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from reasoning_embedding import config
from reasoning_embedding.data.batch import Batch

from .masks import own_candidates


def distillation(
    embeddings: Tensor,
    batch: Batch,
    rows: Tensor,
    settings: config.Distillation,
    *,
    temperature: float,
    gradient: Tensor,
    scale: float = 1.0,
) -> Tensor:
    """Sum how far some queries' scores are from the teacher's, and ADD the gradient.

    Parameters
    ----------
    embeddings : Tensor
        (n, D) unit vectors of the distinct texts.
    batch : Batch
        Candidates, the queries whose own they are, and the teacher's scores of them.
    rows : Tensor
        (r,) queries.
    settings : config.Distillation
        Method and temperatures.
    temperature : float
        Of the student, where the settings give none; not differentiated.
    gradient : Tensor
        (n, D), gets `scale` times the gradient added.
    scale : float
        Of the gradient only.

    Returns
    -------
    Tensor
        Scalar, not scaled.

    Notes
    -----
    Over the positive and the hard negatives c of query i, with teacher scores z_c and
    T = teacher_temperature: ``kl`` is sum_c p_c (log p_c - log softmax_c(s(q_i, d_c) / t)), p = softmax(z / T)
    (Lin et al. 2020, arXiv 2010.11386; FlagEmbedding's cross-entropy form has the same gradient).
    ``margin_mse`` is sum_c ((s(q_i, d_i+) - s(q_i, d_c)) - (z_i+ - z_c) / T)^2 (Hofstätter et al. 2020, arXiv
    2010.02666). A query without hard negatives adds nothing.
    """
    row, candidate = own_candidates(batch, rows)
    order = torch.argsort(row, stable=True)
    row, candidate = row[order], candidate[order]
    counts = torch.bincount(row, minlength=len(rows))
    place = (row, torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row])

    query, document = batch.query[rows][row], batch.document[candidate]
    # One line a query, its positive first, padded: gradients of padding are zero.
    lines = embeddings.new_full((len(rows), int(counts.max()) if len(rows) else 1), -torch.inf)
    student = lines.index_put(place, (embeddings[query] * embeddings[document]).sum(dim=1)).requires_grad_()
    teacher = lines.index_put(place, batch.score[candidate].to(lines.dtype) / settings.teacher_temperature)
    scored = torch.isfinite(teacher)
    with torch.enable_grad():
        if settings.method == "kl":
            predicted = torch.log_softmax(student / (settings.temperature or temperature), dim=1)
            target = torch.log_softmax(teacher, dim=1)
            total = (target.exp()[scored] * (target - predicted)[scored]).sum()
        else:
            margins = (student[:, :1] - student) - (teacher[:, :1] - teacher)
            total = margins[scored].square().sum()
        (slope,) = torch.autograd.grad(total, student)
    weight = scale * slope[place][:, None]
    gradient.index_add_(0, query, weight * embeddings[document])
    gradient.index_add_(0, document, weight * embeddings[query])
    return total.detach()


def vector_distillation(
    embeddings: Tensor,
    batch: Batch,
    rows: Tensor,
    settings: config.VectorDistillation,
    *,
    temperature: float,
    gradient: Tensor,
    scale: float = 1.0,
) -> Tensor:
    """Sum how far some queries' similarities to all documents are from the teacher's, and ADD the gradient.

    Parameters
    ----------
    embeddings : Tensor
        (n, D) unit vectors of the distinct texts.
    batch : Batch
        Queries, candidates, and the teacher's (n, D0) unit vectors of the texts.
    rows : Tensor
        (r,) queries.
    settings : config.VectorDistillation
        Temperatures.
    temperature : float
        Of the student, where the settings give none; not differentiated.
    gradient : Tensor
        (n, D), gets `scale` times the gradient added.
    scale : float
        Of the gradient only.

    Returns
    -------
    Tensor
        Float64 scalar, not scaled.

    Raises
    ------
    ValueError
        If the batch has no teacher's vectors.

    Notes
    -----
    sum_i sum_j p_ij (log p_ij - log q_ij) with p_i = softmax_j(<z_i, z_j> / T) of the teacher and q_i =
    softmax_j(<x_i, x_j> / t) of the student, j over every candidate slot of the batch: similarities are distilled, not
    coordinates (Tung and Mori 2019, arXiv 1907.09682; as SEED, arXiv 2101.04731, does with a queue), so D0 may differ
    from D. Its gradient by a student's similarity is (q_ij - p_ij) / t.
    """
    if batch.teacher is None:
        raise ValueError("this loss needs a teacher's vectors of the batch's texts")
    student = settings.temperature or temperature
    query, document = batch.query[rows], batch.document
    teacher = batch.teacher.to(embeddings.dtype)
    target = torch.log_softmax(
        teacher[query] @ teacher[document].T / (settings.teacher_temperature or student), dim=1
    )
    predicted = torch.log_softmax(embeddings[query] @ embeddings[document].T / student, dim=1)
    shares = target.exp()
    total = (target.sub_(predicted).mul_(shares)).sum(dtype=torch.float64)
    slope = predicted.exp_().sub_(shares).mul_(scale / student)
    gradient.index_add_(0, query, slope @ embeddings[document])
    gradient.index_add_(0, document, slope.T @ embeddings[query])
    return total
