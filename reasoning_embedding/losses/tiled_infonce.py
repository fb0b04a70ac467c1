"""InfoNCE and its gradient in tiles of query rows: the form that training uses.

A tile holds the similarities of a few queries with every candidate, so its softmax is exact in one pass:
similarities are computed once and turned into their gradient in place, without an autograd graph. That takes
three matrix products, where a form that also tiles the candidates needs an online softmax and a fourth
product to compute them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from reasoning_embedding import config
from reasoning_embedding.data.batch import Batch

from .masks import known_answers, own_candidates


class InfoNCESums(NamedTuple):
    """Sums over query rows, float64 scalars, so that rows of several ranks add up.

    Attributes
    ----------
    loss : Tensor
        Nats.
    correct : Tensor
        Rows whose positive scores higher than every other document of their softmax: a tie is none, and neither is a
        row without another one. What ``mask_same_text`` leaves out is no other; what ``false_negatives`` does is.
    masked : Tensor
        Documents that ``mask_same_text`` leaves out of the softmax of a query.
    temperature_gradient : Tensor
        d loss / d log(temperature), if it was asked for.
    """

    loss: Tensor
    correct: Tensor
    masked: Tensor
    temperature_gradient: Tensor


def tiled_infonce(
    embeddings: Tensor,
    batch: Batch,
    rows: Tensor,
    settings: config.InfoNCE,
    *,
    temperature: float,
    gradient: Tensor,
    scale: float = 1.0,
) -> InfoNCESums:
    r"""Sum InfoNCE over some query rows and ADD its gradient.

    Parameters
    ----------
    embeddings : Tensor
        (n, D) unit vectors of the distinct texts.
    batch : Batch
        Which of them are queries and candidates.
    rows : Tensor
        (b,) distinct queries to sum over: those of this rank; may be empty.
    settings : config.InfoNCE
        Directions, masks and tile; whether the gradient of the temperature is wanted.
    temperature : float
        > 0; takes the place of that of the settings, where it may be learnt.
    gradient : Tensor
        (n, D), gets `scale` times the gradient with respect to all embeddings added.
    scale : float
        Of the gradient only.

    Returns
    -------
    InfoNCESums
        Not scaled.

    Notes
    -----
    With s the cosine and t the temperature, row i is -s(q_i, d_i+) / t + log Z_i, and Z_i sums exp(s / t) of

    ==================  ==========================  =============================================
    query_document      s(q_i, d_c)                 all candidates c, its positive among them
    query_query         s(q_i, q_j)                 other queries j
    document_query      s(d_i+, q_j)                all queries j, i among them
    document_document   s(d_i+, d_c)                candidates c but the query's own
    ==================  ==========================  =============================================

    query_document alone is van den Oord et al. 2018 (arXiv 1807.03748); with query_query and
    document_document Qwen3-Embedding (arXiv 2506.05176); all four GTE (arXiv 2308.03281), where the positive
    pair counts twice. Not joint: the mean of the log Z_i of query_document and of document_query, the
    symmetric loss of CLIP. The same definitions as sentence-transformers' MultipleNegativesRankingLoss.

    Masks never touch the positive's own slot. ``mask_same_text`` leaves out candidates c whose text is known
    to answer q_i, and queries j whose positive is. ``false_negatives`` leaves out entries whose similarity is
    above s(q_i, d_i+) + margin, or above ratio * s(q_i, d_i+); as in Qwen3-Embedding, a candidate of
    document_document is judged by its similarity to q_i.

    Beside embeddings and gradient this holds 2 (B + C) D numbers, the vectors of all slots and their gradient,
    and tile_rows similarities for each candidate of each direction: never B x C. ``python -m benchmarks loss`` measures
    one tile of 65,536 queries with 4 candidates each at D = 1024: 5393 MiB with embeddings and gradient, where
    this count gives 5376, 256 of them for the tile; one copy of the scores would take 65,536.
    """
    total = torch.zeros(4, dtype=torch.float64, device=embeddings.device)
    queries, documents = _SlotVectors.of(embeddings, batch.query), _SlotVectors.of(embeddings, batch.document)
    for tile_rows in rows.split(settings.tile_rows) if len(rows) else ():
        tile = _Tile(queries, documents, batch, tile_rows, settings)
        total += tile.exponentiate(temperature)
        tile.add_gradient(scale / temperature)
        del tile  # before the next one takes its memory
    for slots, text in ((queries, batch.query), (documents, batch.document)):
        gradient.index_add_(0, text, slots.gradient)
    return InfoNCESums(*total)


@dataclass
class _SlotVectors:
    """The vectors in one kind of slots, and their gradient."""

    vectors: Tensor
    gradient: Tensor

    @classmethod
    def of(cls, embeddings: Tensor, text: Tensor) -> _SlotVectors:
        vectors = embeddings[text]
        return cls(vectors, torch.zeros_like(vectors))


class _Tile:
    """Some rows against everything they are contrasted with: one buffer, a block of columns a direction."""

    def __init__(
        self,
        queries: _SlotVectors,
        documents: _SlotVectors,
        batch: Batch,
        rows: Tensor,
        settings: config.InfoNCE,
    ) -> None:
        self._queries, self._documents, self._batch = queries, documents, batch
        self._rows, self._settings = rows, settings
        self._places = torch.arange(len(rows), device=rows.device)
        vectors = {"query": queries, "document": documents}
        self._directions = {name: [vectors[kind] for kind in name.split("_")] for name in settings.directions}
        widths = [len(candidates.vectors) for _, candidates in self._directions.values()]
        self._buffer = queries.vectors.new_empty(len(rows), sum(widths))
        self._blocks = dict(zip(self._directions, self._buffer.split(widths, dim=1), strict=True))
        self._spans = [self._buffer] if settings.softmax == "joint" else list(self._blocks.values())
        self._masses: list[Tensor] = []

    def exponentiate(self, temperature: float) -> Tensor:
        """Fill the buffer with exp(logit - largest of its softmax); return the sums of the rows."""
        for name, (anchors, candidates) in self._directions.items():
            # Rows index queries and documents: candidate i is the positive of query i.
            scaled = anchors.vectors[self._rows] / temperature
            torch.mm(scaled, candidates.vectors.T, out=self._blocks[name])
        positive = self._blocks["query_document"][self._places, self._rows]
        correct, masked = self._mask(positive, temperature)
        loss, slope = -positive.double(), positive.double()
        for span in self._spans:
            top = span.amax(dim=1, keepdim=True)
            span.sub_(top).exp_()
            mass = span.sum(dim=1, keepdim=True)
            self._masses.append(mass * len(self._spans))
            loss = loss + (top + mass.log()).squeeze(1).double() / len(self._spans)
            if self._settings.learn_temperature is not None:
                mean = torch.special.xlogy(span, span).sum(dim=1, keepdim=True) / mass + top
                slope = slope - mean.squeeze(1).double() / len(self._spans)
        return torch.stack([loss.sum(), correct.sum().double(), masked.double(), slope.sum()])

    def add_gradient(self, scale: float) -> None:
        """Add `scale` times the gradient with respect to the similarities, sent to both of their vectors."""
        masses = self._masses * (len(self._blocks) // len(self._masses))
        for (name, (anchors, candidates)), mass in zip(self._directions.items(), masses, strict=True):
            exponentials, weight = self._blocks[name], scale / mass
            anchors.gradient.index_add_(0, self._rows, weight * (exponentials @ candidates.vectors))
            candidates.gradient.addmm_(exponentials.T, weight * anchors.vectors[self._rows])
        query, document = self._queries, self._documents
        query.gradient.index_add_(0, self._rows, document.vectors[self._rows], alpha=-scale)
        document.gradient.index_add_(0, self._rows, query.vectors[self._rows], alpha=-scale)

    def _mask(self, positive: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Put -inf where the settings leave entries out; return which rows are hits, and how many texts are left out."""
        own, settings = self._blocks["query_document"], self._settings
        place = (self._places, self._rows)
        known = known_answers(self._batch, self._rows)
        own[place] = -torch.inf
        masked = torch.zeros((), dtype=torch.int64, device=own.device)
        if known is not None:
            known[place] = False
            if settings.masks_same_text:
                masked = known.sum()
                for block in self._blocks.values():
                    # Candidate j < B is the positive of query j, which is left out with it.
                    block.masked_fill_(known[:, : block.shape[1]], -torch.inf)
        best = own.amax(dim=1)
        correct = (positive > best) & (best > -torch.inf)
        if known is not None and not settings.masks_same_text:
            # Rounding may tell two products of one vector apart; its text does not.
            document = self._batch.document
            copies = (document[None, :] == document[self._rows][:, None]) & known
            correct &= ~copies.any(dim=1)
        if settings.false_negatives is not None:
            self._mask_false_negatives(settings.false_negatives, positive, temperature)
        if "query_query" in self._blocks:
            self._blocks["query_query"][place] = -torch.inf
        if "document_document" in self._blocks:
            self._blocks["document_document"][own_candidates(self._batch, self._rows)] = -torch.inf
        own[place] = positive
        if "document_query" in self._blocks:
            self._blocks["document_query"][place] = positive
        return correct, masked

    def _mask_false_negatives(
        self, rule: config.FalseNegatives, positive: Tensor, temperature: float
    ) -> None:
        limit = positive * (rule.ratio or 1) + (rule.margin or 0) / temperature
        similar = self._blocks["query_document"] > limit[:, None]
        if rule.exempt_hard_negatives:
            similar[own_candidates(self._batch, self._rows)] = False
        for name, block in self._blocks.items():
            block.masked_fill_(similar if name.endswith("_document") else block > limit[:, None], -torch.inf)
