"""What stands between the matrix products of a decoder layer, and its gradient, in torch.

Everything is computed in the dtype of the residual stream and rounded once to the compute dtype. The compiled
twin of these functions is :mod:`.elementwise_native`. Shapes: T tokens, width d, head size s, MLP width f.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .layout import Layout


class Eager:
    """The functions by torch operators, in any dtype.

    Parameters
    ----------
    dtype : torch.dtype
        Compute dtype: of what matrix products take and give.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._wide = torch.promote_types(dtype, torch.float32)

    def add_norm(
        self, x: Tensor, branch: Tensor | None, gain: Tensor, eps: float, *, keep: bool
    ) -> tuple[Tensor | None, Tensor]:
        """Add a branch to the residual stream and normalise: h = x + branch, h / rms(h) * gain.

        Parameters
        ----------
        x : Tensor
            (T, d) residual stream.
        branch : Tensor, optional
            (T, d), in the compute dtype.
        gain : Tensor
            (d,).
        eps : float
            Added to the mean square (Zhang and Sennrich 2019, arXiv 1910.07467).
        keep : bool
            Whether h is wanted.

        Returns
        -------
        tuple of (Tensor or None, Tensor)
            h, and its norm in the compute dtype.
        """
        h = x if branch is None else x + branch
        out = h * _inverse_root(h, eps) * gain
        return h if keep else None, out.to(self._dtype)

    def norm_backward(
        self,
        x: Tensor,
        branch: Tensor | None,
        gain: Tensor,
        eps: float,
        upstream: Tensor,
        residual: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of h = x + branch, that reaches it by its norm (`upstream`) and directly (`residual`).

        With r = 1 / rms(h): r g gain - h r^3 mean(g gain h).

        Returns
        -------
        tuple of (Tensor, Tensor, Tensor)
            (T, d) gradient, the same in the compute dtype, and (d,) gradient of the gain.
        """
        h = x if branch is None else x + branch
        out, by_gain = _norm_backward(h, gain, eps, upstream.to(self._wide))
        out = out + residual
        return out, out.to(self._dtype), by_gain.sum(0)

    def to_heads(
        self,
        packed: Tensor,
        layout: Layout,
        size: int,
        gain: Tensor | None = None,
        eps: float = 0.0,
        rotary: tuple[Tensor, Tensor] | tuple[None, None] = (None, None),
    ) -> Tensor:
        """Normalise each head (if there is a gain), rotate it (if there are angles) and go to head-major.

        Parameters
        ----------
        packed : Tensor
            (T, heads s), rows any distance apart.
        layout : Layout
            The texts.
        size : int
            s.
        gain : Tensor, optional
            (s,) of the norm of a head.
        eps : float
            Of that norm.
        rotary : tuple of Tensor, optional
            (T, s) cosines and sines, whose second half repeats the first (Su et al. 2021, arXiv 2104.09864).

        Returns
        -------
        Tensor
            (T, heads s) in head-major order.
        """
        tokens, width = packed.shape
        heads = packed.reshape(tokens, -1, size)
        if rotary[0] is not None:
            heads = heads.to(self._wide)
            if gain is not None:
                heads = heads * _inverse_root(heads, eps) * gain
            heads = _rotate(heads, *(angle[:, None] for angle in rotary))
        out = packed.new_empty(heads.shape[0] * heads.shape[1], size, dtype=self._dtype)
        out[layout.rows(heads.shape[1])] = heads.to(self._dtype).flatten(0, 1)
        return out.view(tokens, width)

    def from_heads(
        self,
        upstream: Tensor,
        layout: Layout,
        size: int,
        out: Tensor,
        packed: Tensor | None = None,
        gain: Tensor | None = None,
        eps: float = 0.0,
        rotary: tuple[Tensor, Tensor] | tuple[None, None] = (None, None),
    ) -> Tensor | None:
        """Gradient of :meth:`to_heads`, which without gain and angles is its inverse.

        Parameters
        ----------
        upstream : Tensor
            (T, heads s) head-major.
        layout, size, packed, gain, eps, rotary
            As :meth:`to_heads` got them.
        out : Tensor
            (T, heads s), rows any distance apart; the gradient is written here.

        Returns
        -------
        Tensor or None
            (s,) gradient of the gain.
        """
        tokens, width = out.shape
        back = upstream.reshape(-1, size)[layout.rows(width // size)].view(tokens, -1, size)
        by_gain = None
        if rotary[0] is not None:
            cosine, sine = (angle[:, None] for angle in rotary)
            back = _rotate(back.to(self._wide), cosine, -sine)
            if gain is not None and packed is not None:
                heads = packed.reshape(tokens, -1, size).to(self._wide)
                back, by_gain = _norm_backward(heads, gain, eps, back)
                by_gain = by_gain.sum((0, 1))
        out.copy_(back.reshape(tokens, width))
        return by_gain

    def swiglu(self, opened: Tensor) -> Tensor:
        """silu(gate) * up of (T, 2 f) gates and ups, each half a row: (T, f) (Shazeer 2020, arXiv 2002.05202)."""
        gate, up = opened.to(self._wide).chunk(2, 1)
        return (gate * gate.sigmoid() * up).to(self._dtype)

    def swiglu_backward(self, opened: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
        """(T, 2 f) gradient of :meth:`swiglu`'s input, and its (T, f) output made again."""
        gate, up = opened.to(self._wide).chunk(2, 1)
        g, open_ = upstream.to(self._wide), gate.sigmoid()
        by_gate = g * up * open_ * (1 + gate * (1 - open_))
        return torch.cat([by_gate, g * gate * open_], 1).to(self._dtype), (gate * open_ * up).to(self._dtype)

    def softmax(self, scores: Tensor, scale: float) -> Tensor:
        """softmax(scale * scores) over the last dimension; `scores` is given up."""
        return (scores.to(self._wide) * scale).softmax(-1).to(self._dtype)

    def softmax_backward(self, weights: Tensor, upstream: Tensor, scale: float) -> Tensor:
        """Gradient of the scores, P (G - sum(P G)) scale; `upstream` is given up."""
        p, g = weights.to(self._wide), upstream.to(self._wide)
        return (p * (g - (p * g).sum(-1, keepdim=True)) * scale).to(self._dtype)


def _inverse_root(states: Tensor, eps: float) -> Tensor:
    return torch.rsqrt(states.square().mean(-1, keepdim=True) + eps)


def _norm_backward(states: Tensor, gain: Tensor, eps: float, upstream: Tensor) -> tuple[Tensor, Tensor]:
    scale = _inverse_root(states, eps)
    scaled = upstream * gain
    along = (scaled * states).mean(-1, keepdim=True) * scale.pow(3)
    return scaled * scale - states * along, upstream * states * scale


def _rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = heads.chunk(2, -1)
    return heads * cosine + torch.cat([-second, first], -1) * sine
