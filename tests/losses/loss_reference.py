"""The loss written from its formula, one candidate after another, differentiated by autograd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from reasoning_embedding import config
from reasoning_embedding.data.batch import Batch
from reasoning_embedding.losses import build_loss


def answers(batch: Batch) -> set[tuple[int, int]]:
    """Pairs (text of a query, text that answers it)."""
    drawn = zip(batch.query.tolist(), batch.document[: len(batch.query)].tolist(), strict=True)
    return {*drawn, *map(tuple, batch.known.T.tolist())}


def infonce(x: Tensor, batch: Batch, settings: config.InfoNCE, temperature: Tensor | float) -> Tensor:
    """Mean over queries of the loss that ``settings`` describes, at one width."""
    queries, known, rule = len(batch.query), answers(batch), settings.false_negatives
    q, d = x[batch.query], x[batch.document]
    total = x.new_zeros(())
    for i in range(queries):
        positive = q[i] @ d[i]

        def similar(value: Tensor, limit: Tensor = positive) -> bool:
            if rule is None:
                return False
            return bool(value > (limit + rule.margin if rule.margin is not None else limit * rule.ratio))

        def answering(text: int, i: int = i) -> bool:
            return settings.masks_same_text and (int(batch.query[i]), int(text)) in known

        def left_out(c: int, i: int = i) -> bool:
            exempt = rule is not None and rule.exempt_hard_negatives and batch.owner[c] == i
            return answering(batch.document[c]) or (similar(q[i] @ d[c]) and not exempt)

        candidates = range(len(batch.document))
        terms = {
            "query_document": [q[i] @ d[c] for c in candidates if c == i or not left_out(c)],
            "query_query": [
                q[i] @ q[j]
                for j in range(queries)
                if j != i and not answering(batch.document[j]) and not similar(q[i] @ q[j])
            ],
            "document_query": [
                d[i] @ q[j]
                for j in range(queries)
                if j == i or not (answering(batch.document[j]) or similar(d[i] @ q[j]))
            ],
            "document_document": [d[i] @ d[c] for c in candidates if batch.owner[c] != i and not left_out(c)],
        }
        chosen = [terms[name] for name in settings.directions]
        if settings.softmax == "joint":
            chosen = [[term for group in chosen for term in group]]
        for group in chosen:
            log_z = torch.logsumexp(torch.stack(group) / temperature, dim=0)
            total = total + (log_z - positive / temperature) / len(chosen)
    return total / queries


def distillation(x: Tensor, batch: Batch, settings: config.Distillation, temperature: float) -> Tensor:
    """Mean over queries, or over hard negatives, of the distance to the teacher."""
    total = x.new_zeros(())
    for i in range(len(batch.query)):
        own = [c for c in range(len(batch.document)) if batch.owner[c] == i]
        student = torch.stack([x[batch.query[i]] @ x[batch.document[c]] for c in own])
        teacher = torch.tensor([float(batch.score[c]) for c in own], dtype=x.dtype)
        teacher = teacher / settings.teacher_temperature
        if settings.method == "kl":
            p = torch.softmax(teacher, dim=0)
            log_q = torch.log_softmax(student / (settings.temperature or temperature), dim=0)
            total = total + (p * (p.log() - log_q)).sum()
        else:
            total = total + ((student[0] - student) - (teacher[0] - teacher)).square().sum()
    count = len(batch.query) if settings.method == "kl" else len(batch.document) - len(batch.query)
    return total / count


def teacher_vectors(
    x: Tensor, batch: Batch, settings: config.VectorDistillation, temperature: float
) -> Tensor:
    """Mean over queries of KL between softmaxes over all documents."""
    assert batch.teacher is not None
    student, total = settings.temperature or temperature, x.new_zeros(())
    for i in batch.query.tolist():
        z = torch.stack([batch.teacher[i] @ batch.teacher[j] for j in batch.document.tolist()])
        s = torch.stack([x[i] @ x[j] for j in batch.document.tolist()])
        p = torch.softmax(z / (settings.teacher_temperature or student), dim=0)
        total = total + F.kl_div(torch.log_softmax(s / student, dim=0), p, reduction="sum")
    return total / len(batch.query)


def uniformity(x: Tensor, t: float) -> Tensor:
    """The authors' own line of code (arXiv 2005.10242, figure 5)."""
    return torch.pdist(x, p=2).pow(2).mul(-t).exp().mean().log()


def epps_pulley(x: Tensor, directions: int, seed: int) -> Tensor:
    """The statistic with complex exponentials, on both halves of the line."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(x.shape[1], directions, generator=generator, dtype=torch.float64)
    z = x.shape[1] ** 0.5 * x @ (drawn / drawn.norm(dim=0))
    t = torch.linspace(-5, 5, 17, dtype=torch.float64)
    empirical = torch.exp(1j * z[:, :, None] * t).mean(dim=0)
    normal = torch.exp(-t.square() / 2)
    return (len(x) * torch.trapezoid((empirical - normal).abs().square() * normal, t, dim=1)).mean()


def cka(x: Tensor, y: Tensor, *, debiased: bool) -> Tensor:
    """Linear CKA from n x n Gram matrices."""
    n = len(x)
    k, m = x @ x.T, y @ y.T

    def hsic(k: Tensor, m: Tensor) -> Tensor:
        if not debiased:
            centre = torch.eye(n, dtype=x.dtype) - 1 / n
            return torch.trace(k @ centre @ m @ centre)
        k, m = k - torch.diag(torch.diag(k)), m - torch.diag(torch.diag(m))
        one = torch.ones(n, dtype=x.dtype)
        ends = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return torch.trace(k @ m) + ends - 2 * (one @ k @ m @ one) / (n - 2)

    return hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt()


def objective(
    x: Tensor,
    batch: Batch,
    settings: config.InfoNCE,
    *,
    temperature: Tensor | float | None = None,
    anchor: Tensor | None = None,
) -> Tensor:
    """Everything that ``settings`` describes."""
    temperature = settings.temperature if temperature is None else temperature
    widths = settings.matryoshka or []
    weights = settings.matryoshka_weights or [1.0] * len(widths)
    total = x.new_zeros(())
    for width, weight in ({x.shape[1]: 1.0} | dict(zip(widths, weights, strict=True))).items():
        cut = x if width == x.shape[1] else F.normalize(x[:, :width], dim=1)
        total = total + weight * infonce(cut, batch, settings, temperature)
    if settings.distillation is not None:
        student = distillation(x, batch, settings.distillation, settings.temperature)
        total = total + settings.distillation.weight * student
    if settings.teacher_vectors is not None:
        student = teacher_vectors(x, batch, settings.teacher_vectors, settings.temperature)
        total = total + settings.teacher_vectors.weight * student
    if settings.uniformity is not None:
        sides = (np.unique(batch.query), np.unique(batch.document[: len(batch.query)]))
        even = sum(uniformity(x[side], settings.uniformity.t) for side in sides) / 2
        total = total + settings.uniformity.weight * even
    if settings.sigreg is not None:
        total = total + settings.sigreg.weight * epps_pulley(x, settings.sigreg.directions, batch.seed)
    if settings.anchor is not None and anchor is not None:
        total = total + settings.anchor.weight * (1 - cka(x, anchor, debiased=settings.anchor.debiased))
    return total


def check(
    batch: Batch, settings: config.InfoNCE, *, dimension: int = 8, seed: int = 0, ranks: int = 1
) -> float:
    """Hold the loss and its gradient to the formula, in float64; return the loss."""
    x = unit_vectors(len(batch.texts), dimension, seed)
    anchor = unit_vectors(len(batch.texts), dimension + 3, seed + 1)
    x.requires_grad_()
    expected = objective(x, batch, settings, anchor=anchor)
    expected.backward()
    loss = build_loss(settings, dimension)
    parts = [loss.compute(x.detach(), batch, rank=rank, ranks=ranks, anchor=anchor) for rank in range(ranks)]
    found = sum(float(sums["loss"]) for _, sums in parts)
    gradient = sum(gradient for gradient, _ in parts)
    assert abs(found - expected.item()) <= 1e-11 * max(1.0, abs(expected.item()))
    torch.testing.assert_close(gradient, x.grad, rtol=1e-10, atol=1e-12)
    return found


def unit_vectors(rows: int, dimension: int, seed: int) -> Tensor:
    """Random unit vectors that lean to one side, as embeddings do."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(rows, dimension, generator=generator, dtype=torch.float64)
    return F.normalize(drawn + 0.5, dim=1)


def random_slots(seed: int, queries: int = 6, negatives: int = 9, *, copies: bool = True) -> Batch:
    """A batch without tokens, for losses alone: every row owns its negatives, and negatives have scores.

    With `copies` some texts fill two slots, two queries are equal, and answers are known that were not drawn.
    """
    rng = np.random.default_rng(seed)
    texts = 2 * queries + negatives
    query = np.arange(queries)
    document = np.arange(queries, texts)
    known = np.zeros((0, 2), np.int64)
    if copies:
        query[-1] = query[0]
        document[1] = document[2]
        document[-1] = document[0]
        document[-2] = query[1]
        known = np.stack([rng.choice(query, 3), rng.choice(document, 3)], axis=1)
    owner = np.concatenate([np.arange(queries), np.sort(rng.integers(0, queries, negatives))])
    batch = Batch.from_arrays(
        [np.zeros(1, np.int32)] * texts,
        np.zeros(texts, np.int32),
        query,
        document,
        owner,
        known,
        rng.normal(size=queries + negatives).astype(np.float32),
        seed=seed,
    )
    return replace(batch, teacher=unit_vectors(texts, 5, seed + 2))
