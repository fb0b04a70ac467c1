"""The level of weights: what training did to each tensor of a model, beside what a random change of its size would do.

Reinforcement learning is said to move weights off the leading directions of its base and to keep their spectrum, and
supervised fine-tuning to move them along (Zhu et al. 2025, arXiv 2511.08567). Each measure of a matrix therefore stands
beside its null: an update with the same singular values between random directions. Tensors are read one at a time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from reasoning_embedding.checkpoints.tensors import TensorFolder, pieces
from reasoning_embedding.errors import InputError
from reasoning_embedding.progress import Countdown, Report

#: A weight has changed where it moved by more than this share of itself: about what bfloat16 can tell apart. Zhu et al.'s.
CHANGED = 1e-3
#: Share of a matrix's directions that count as its leading ones, and of its entries that count as principal weights.
LEADING = 0.1
#: Measures of a matrix, each with a null, in the order in which they are told.
MATRIX_MEASURES = ("leading_energy", "principal_weights", "rotation", "spectral_drift")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


@dataclass(frozen=True)
class TensorChange:
    """How one tensor of B differs from that of A.

    Attributes
    ----------
    name : str
        Without the ``model.`` that a language model's tensors have before their names.
    kind : str
        The name without its layer's number: what is alike over layers.
    layer : int or None
        Which layer; None of embeddings, heads and the final norm.
    shape : tuple of int
    changed : float
        Share of the entries with |b - a| > 0.001 max(|a|, |b|).
    squared_norm, squared_change : float
        |A|^2 and |B - A|^2 (Frobenius).
    effective_rank : float or None
        exp(entropy of s_i / sum s) of the singular values s of B - A (Roy and Vetterli 2007); of matrices that changed.
    top_share : float or None
        Share of |B - A|^2 in its first direction.
    measures : dict
        ``{name: (value, null)}`` of :data:`MATRIX_MEASURES`, k = a tenth of the smaller side:

        - ``leading_energy``: (|U_k^T D|^2 + |D V_k|^2) / 2 |D|^2 of D = B - A, with the k leading left and right singular
          vectors of A. Null: (k/m + k/n) / 2, exactly.
        - ``principal_weights``: share of |D|^2 in the tenth of the entries that are largest in A's best approximation of
          rank k. Null: a tenth.
        - ``rotation``: mean principal angle, in degrees, between the k leading singular subspaces of A and of B, left and
          right. Null: of A + D', D' with the singular values of D between random directions.
        - ``spectral_drift``: \\|s(B) - s(A)\\| / \\|s(A)\\| of the singular values in order. Null: of A + D'.
    """

    name: str
    kind: str
    layer: int | None
    shape: tuple[int, ...]
    changed: float
    squared_norm: float
    squared_change: float
    effective_rank: float | None
    top_share: float | None
    measures: dict[str, tuple[float, float]]

    @property
    def entries(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


class ModelWeights:
    """A model's tensors under the names that its language model and its embedder share.

    Parameters
    ----------
    folder : TensorFolder
        Where they are.
    """

    def __init__(self, folder: TensorFolder) -> None:
        self.folder = folder
        self._own = {name.removeprefix("model."): name for name in folder.names}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by shared name."""
        return {name: self.folder.shapes[own] for name, own in self._own.items()}

    def read(self, name: str, device: str | torch.device = "cpu") -> Tensor:
        """Read one tensor."""
        return self.folder.read(self._own[name]).to(device)


def compare_weights(
    a: ModelWeights,
    b: ModelWeights,
    report: Report,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> list[TensorChange]:
    """Measure how each tensor of `b` differs from that of `a`.

    Parameters
    ----------
    a, b : ModelWeights
        Before and after.
    report : callable
        Takes lines of progress.
    seed : int
        Of the random updates.
    device : str or torch.device
        Where decompositions are made, in float64 wherever it has it.

    Raises
    ------
    InputError
        If a tensor has two shapes, or the models share none.
    """
    names = _require_same_shapes(a, b)
    count = Countdown(report, "tensors")
    found = []
    for done, name in enumerate(names, start=1):
        generator = torch.Generator().manual_seed(seed + done)
        found.append(_tensor(name, a.read(name, device), b.read(name, device), generator))
        count(done, len(names))
    return found


def update_cosine(before: ModelWeights, one: ModelWeights, other: ModelWeights) -> float | None:
    """Cosine of two models' updates from the same start, over all tensors that the three share.

    Two random updates of n entries have 0, give or take 1 / sqrt(n). None where one of them changed nothing.
    """
    dot = first = second = 0.0
    names = [name for name in before.shapes if name in one.shapes and name in other.shapes]
    for name in names:
        for a, b, c in pieces([model.read(name) for model in (before, one, other)]):
            dot += float((b - a) @ (c - a))
            first += float((b - a) @ (b - a))
            second += float((c - a) @ (c - a))
    return dot / math.sqrt(first * second) if first and second else None


def summary(changes: Sequence[TensorChange]) -> dict[str, Any]:
    """Sum up changes of several tensors: shares over entries, norms over all, measures as means over matrices."""
    entries = sum(change.entries for change in changes)
    norm = sum(change.squared_norm for change in changes)
    moved = [change for change in changes if change.measures]
    return {
        "tensors": len(changes),
        "matrices": len(moved),
        "entries": entries,
        "changed": sum(change.changed * change.entries for change in changes) / entries,
        "relative_change": math.sqrt(sum(change.squared_change for change in changes) / norm)
        if norm
        else None,
        "effective_rank": _mean(change.effective_rank for change in moved),
        "largest_rank": _mean(min(change.shape) for change in moved),
        "top_share": _mean(change.top_share for change in moved),
        "measures": {
            name: [_mean(change.measures[name][place] for change in moved) for place in (0, 1)]
            for name in MATRIX_MEASURES
        }
        if moved
        else {},
    }


def by_kind(changes: Sequence[TensorChange]) -> dict[str, dict[str, Any]]:
    """Return :func:`summary` of each kind of tensor, in the order of the model."""
    kinds: dict[str, list[TensorChange]] = {}
    for change in changes:
        kinds.setdefault(change.kind, []).append(change)
    return {kind: summary(members) for kind, members in kinds.items()}


def _require_same_shapes(a: ModelWeights, b: ModelWeights) -> list[str]:
    """Names that both have, once every one has one shape."""
    shapes, others = a.shapes, b.shapes
    shared = [name for name in shapes if name in others]
    where = f"{a.folder.path} and {b.folder.path}"
    if not shared:
        raise InputError(
            "the two models share no tensor",
            where=where,
            todo="name two models of one architecture, such as a backbone and what was trained from it",
        )
    if odd := next((name for name in shared if shapes[name] != others[name]), None):
        raise InputError(
            f"{odd} has shape {list(shapes[odd])} in the one model and {list(others[odd])} in the other",
            where=where,
            todo="name two models of one shape: weights are compared entry by entry",
        )
    return shared


def _tensor(name: str, before: Tensor, after: Tensor, generator: torch.Generator) -> TensorChange:
    moved = squared_norm = squared_change = 0.0
    for a, b in pieces([before, after]):
        change = (b - a).abs()
        moved += float((change > CHANGED * torch.maximum(a.abs(), b.abs())).sum())
        squared_norm += float(a @ a)
        squared_change += float(change @ change)
    layer = _LAYER.search(name)
    rank = top = None
    measures: dict[str, tuple[float, float]] = {}
    if before.ndim == 2 and min(before.shape) > 1 and squared_change > 0:
        rank, top, measures = _matrix(before, after, generator)
    return TensorChange(
        name=name,
        kind=_LAYER.sub(".", name).lstrip(".").removesuffix(".weight"),
        layer=int(layer[1]) if layer else None,
        shape=tuple(before.shape),
        changed=moved / before.numel(),
        squared_norm=squared_norm,
        squared_change=squared_change,
        effective_rank=rank,
        top_share=top,
        measures=measures,
    )


def _matrix(
    before: Tensor, after: Tensor, generator: torch.Generator
) -> tuple[float, float, dict[str, tuple[float, float]]]:
    kind = torch.float32 if before.device.type == "mps" else torch.float64
    a, b = before.to(kind), after.to(kind)
    if a.shape[0] < a.shape[1]:  # all measures treat both sides alike
        a, b = a.T, b.T
    update = b - a
    rows, columns = a.shape
    k = max(1, round(LEADING * columns))
    old, new = _Decomposed(a, k), _Decomposed(b, k)
    spectrum = _Decomposed(update, 1).values
    total = float(update.square().sum())

    energy = float((old.left.T @ update).square().sum() + (update @ old.right).square().sum()) / (2 * total)
    best = (a @ old.right @ old.right.T).abs().flatten()
    largest = best.topk(max(1, round(LEADING * best.numel())), sorted=False).indices
    weights = float(update.flatten()[largest].square().sum()) / total

    random = _Decomposed(a + _with_spectrum(spectrum, rows, generator).to(a), k)
    share = spectrum / spectrum.sum()
    entropy = -float(torch.special.xlogy(share, share).sum())
    return (
        math.exp(entropy),
        float(spectrum[0] ** 2 / spectrum.square().sum()),
        {
            "leading_energy": (energy, (k / rows + k / columns) / 2),
            "principal_weights": (weights, len(largest) / best.numel()),
            "rotation": (old.angle(new), old.angle(random)),
            "spectral_drift": (old.drift(new), old.drift(random)),
        },
    )


class _Decomposed:
    """Singular values of a matrix with at least as many rows as columns, and its leading directions.

    By the eigenvalues of its Gram matrix: values below 1e-8 of the largest are not resolved, which moves no measure here,
    and a matrix of 150,000 rows costs no more than its columns.
    """

    def __init__(self, matrix: Tensor, k: int) -> None:
        values, vectors = torch.linalg.eigh(matrix.T @ matrix)
        self.values = values.flip(0).clamp_min(0).sqrt()
        self.right = vectors.flip(1)[:, :k]
        # Orthonormal also where leading values are alike or tiny.
        self.left = torch.linalg.qr(matrix @ self.right).Q

    def angle(self, other: _Decomposed) -> float:
        """Mean principal angle between leading subspaces, of left and right ones, in degrees."""
        angles = [
            # Of sines and cosines the one that tells small angles apart: arcsin of the part outside.
            torch.asin(torch.linalg.svdvals(theirs - mine @ (mine.T @ theirs)).clamp(0, 1))
            for mine, theirs in ((self.left, other.left), (self.right, other.right))
        ]
        return math.degrees(float(torch.cat(angles).mean()))

    def drift(self, other: _Decomposed) -> float:
        """How far the spectrum moved, of its norm."""
        return float(torch.linalg.norm(other.values - self.values) / torch.linalg.norm(self.values))


def _with_spectrum(values: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """A random matrix with given singular values: both sides' directions are uniformly distributed (Haar)."""
    columns = len(values)
    sides = []
    for size in (rows, columns):
        found = torch.linalg.qr(torch.randn(size, columns, generator=generator, dtype=torch.float64))
        sides.append(found.Q * found.R.diagonal().sign())
    return (sides[0] * values.double().cpu()) @ sides[1].T


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def weights_record(
    a: ModelWeights,
    b: ModelWeights,
    report: Report,
    *,
    sibling: ModelWeights | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Compare two models' weights and lay the result out as JSON values.

    Parameters
    ----------
    a, b : ModelWeights
        Before and after.
    report : callable
        Takes lines of progress.
    sibling : ModelWeights, optional
        Also trained from `a`: what another seed, or another kind of training, did to the same weights.
    seed, device
        As of :func:`compare_weights`.

    Raises
    ------
    InputError
        As of :func:`compare_weights`; also for the sibling, before any work.
    """
    if sibling is not None:
        _require_same_shapes(a, sibling)
    changes = compare_weights(a, b, report, seed=seed, device=device)
    layers: dict[int, list[TensorChange]] = {}
    for change in changes:
        if change.layer is not None:
            layers.setdefault(change.layer, []).append(change)
    record: dict[str, Any] = {
        "kind": "weights",
        "seed": seed,
        "changed_above": CHANGED,
        "leading": LEADING,
        "only_in_a": sorted(set(a.shapes) - set(b.shapes)),
        "only_in_b": sorted(set(b.shapes) - set(a.shapes)),
        "all": summary(changes),
        "kinds": by_kind(changes),
        "layers": {str(layer): summary(members) for layer, members in sorted(layers.items())},
        "tensors": [asdict(change) for change in changes],
    }
    if sibling is not None:
        report("the sibling's update")
        entries = sum(math.prod(shape) for name, shape in a.shapes.items() if name in sibling.shapes)
        record["sibling"] = {"cosine": update_cosine(a, b, sibling), "random": 1 / math.sqrt(entries)}
    return record


def weight_steps(
    models: Mapping[int, tuple[str | None, Callable[[], ModelWeights]]],
    start: ModelWeights,
    known: Sequence[dict[str, Any]],
    report: Report,
    *,
    device: str | torch.device = "cpu",
) -> Iterator[dict[str, Any]]:
    """Compare every model of a series with one start, and yield a record of each step as it is there.

    Parameters
    ----------
    models : mapping of int to (str or None, callable)
        By step: what the model is known by, and what opens it.
    start : ModelWeights
        What all are compared with.
    known : sequence of dict
        Records of an earlier call with the same start; a model that is known by the same name is not measured again.
    report : callable
        Takes lines of progress.
    device : str or torch.device
        As of :func:`compare_weights`.

    Yields
    ------
    dict
        ``step``, ``content``, ``all`` and ``kinds`` (:func:`summary`).
    """
    done = {(record["step"], record["content"]): record for record in known}
    for step, (content, opened) in sorted(models.items()):
        if content is not None and (found := done.get((step, content))) is not None:
            yield found
            continue
        report(f"step {step}")
        changes = compare_weights(start, opened(), report, device=device)
        yield {"step": step, "content": content, "all": summary(changes), "kinds": by_kind(changes)}
