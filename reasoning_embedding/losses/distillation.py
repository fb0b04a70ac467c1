"""Learning a teacher's scores of each query's own candidates."""

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
