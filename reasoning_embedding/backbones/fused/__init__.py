"""Decoder layers on a CPU without autograd's bookkeeping: few passes over memory, little kept."""

from .layers import fuse_layers

__all__ = ["fuse_layers"]
