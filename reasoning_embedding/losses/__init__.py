"""Losses are functions of tensors: embeddings in, a value and the gradient of the embeddings out.

:class:`ContrastiveLoss` is what a run trains with: InfoNCE (:func:`tiled_infonce`) at one or more widths, and
the terms of :mod:`~reasoning_embedding.losses.terms`. :func:`infonce` is the same loss in its plainest form,
differentiable by autograd, for use elsewhere and as the twin that tests hold the tiles to.

A user's own term is a function that a configuration names (``docs/extending.md``). Another one of the package takes
three steps: a function of tensors that returns its value and adds its gradient to a tensor (by hand, or by
``torch.autograd.grad`` as :func:`anchor_distance` does), a section with a ``weight`` in ``config/loss.py``, and three
lines in :func:`terms <reasoning_embedding.losses.terms.terms>`. It is then logged under its name, and exact over any
number of ranks.
"""

from .contrastive import ContrastiveLoss, build_loss
from .distillation import distillation
from .infonce import infonce
from .regularisers import anchor_distance, check_anchor_texts, sigreg, uniformity
from .temperature import Temperature
from .terms import LossTerm, TermInputs, load_terms
from .tiled_infonce import InfoNCESums, tiled_infonce
