"""Losses are functions of tensors."""

from .gradient import EmbeddingGradient, Loss, embedding_gradient
from .infonce import LossOutput, infonce
