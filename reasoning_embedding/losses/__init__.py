"""Losses are functions of tensors."""

from .infonce import LossOutput, infonce
