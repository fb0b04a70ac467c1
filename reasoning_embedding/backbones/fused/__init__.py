"""Decoder layers on a CPU without autograd's bookkeeping: few passes over memory, little kept."""

from .layers import encoding_layers, fuse_layers

__all__ = ["encoding_layers", "fuse_layers"]
