"""Layers and kernels for CPUs, each with its slow twin; what the other modules of backbones call stands here.

:func:`fuse_layers` for training, :func:`fast_encoding` for forwards without gradients, :func:`attend` for the layers
that stay as transformers has them. Each leaves alone what it would not compute the same.
"""

from .bfloat16_attention import attend
from .encoding import fast_encoding
from .fused_layers import fuse_layers
