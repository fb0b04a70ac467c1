"""Names, axes and directions of what a report shows; one place, so that table, PNG and page agree."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

#: Okabe and Ito's colour-blind safe palette, most legible on white first; the second row is for dark pages.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DARK_COLOURS = ("#56B4E9", "#E69F00", "#2BC49A", "#E59BC4", "#F0E442", "#D55E00", "#FFFFFF")
#: Colours of baselines, on white and on dark pages.
BASELINE_GREYS = ("#666666", "#AAAAAA", "#CCCCCC")
DARK_GREYS = ("#B0B0B0", "#808080", "#606060")

#: HRSA metrics of the main table: representation, then geometry, the form that holds in most places first.
HEADLINE = (
    "dimension_correlation",
    "h_inv",
    "h_inv_rescaled",
    "procrustes_residual",
    "cka_debiased",
    "cka_unit",
    "cka",
    "knn_jaccard@10",
)
#: The forms of layer curves and heat maps that a few long rows (attention sinks) do not decide, and how a page says so.
ROBUST = ("cka_unit", "cka_debiased", "knn_jaccard@10")
ROBUST_NOTE = (
    "Shown first: the forms that a few long rows (attention sinks) do not decide, CKA of unit rows, and debiased CKA and "
    "k-NN overlap beside it."
)
#: Those of the page's main table, which is as wide as a screen; the others stand in the table of all metrics.
MAIN = ("dimension_correlation", "procrustes_residual", "cka_debiased", "cka_unit", "cka", "knn_jaccard@10")
#: Headline metrics under names short enough for a terminal, or for a table of many columns.
SHORT = {
    "dimension_correlation": "dim. corr.",
    "h_inv": "H_inv",
    "procrustes_residual": "residual",
    "cka_debiased": "debiased CKA",
    "cka_unit": "unit-row CKA",
    "cka": "CKA",
    "knn_jaccard@10": "kNN@10",
}
#: CKA in the order of preference: what a record has of it depends on its age.
CKA = ("cka_debiased", "cka")
#: Metrics that texts and papers speak of, by level.
LEVELS = {
    "representation": ("dimension_correlation", "h_inv", "procrustes_cosine"),
    "geometry": ("cka_debiased", "cka_unit", "cka", "knn_jaccard@10"),
}
#: What a similarity is held against, by its key in records: name, and what it is.
REFERENCE_LEVELS = {
    "row_shuffle": ("row shuffle", "the mean over shuffled rows: what no correspondence at all gives"),
    "random_initialisation": (
        "fresh weights",
        "two models of these architectures without any training, on the same texts: architecture and texts alone",
    ),
    "other_texts": (
        "other texts",
        "these two models on different texts at the same positions: what is similar whatever is read",
    ),
    "sibling": ("sibling", "A and a model grown like it: what growing it again changes"),
}
SCORE = "nDCG@10"
#: Its key in the files of scores.
SCORE_KEY = "ndcg_at_10"


@dataclass(frozen=True)
class MetricLabel:
    """How an HRSA metric is written and read.

    Parameters
    ----------
    title : str
        Name in tables and on axes.
    higher_is_closer : bool or None
        Whether two more similar models score higher; None if the metric has no such direction.
    limits : tuple of float or None
        Range of the axis; None leaves it to the data.
    """

    title: str
    higher_is_closer: bool | None
    limits: tuple[float, float] | None


_METRICS = {
    "dimension_correlation": MetricLabel("Dimension-wise correlation", True, (-1, 1)),
    "permutation_match": MetricLabel("Permutation match", True, (0, 1)),
    "h_inv": MetricLabel("Inverse row entropy H_inv", True, (0, 1)),
    "h_inv_rescaled": MetricLabel("H_inv above its floor", True, (0, 1)),
    "procrustes_residual": MetricLabel("Procrustes residual", False, None),
    "procrustes_cosine": MetricLabel("Procrustes cosine", True, (-1, 1)),
    "cka": MetricLabel("Linear CKA", True, (0, 1)),
    "cka_debiased": MetricLabel("Debiased CKA", True, None),
    "cka_unit": MetricLabel("Debiased CKA of unit rows", True, None),
    "cka_rbf": MetricLabel("RBF CKA", True, (0, 1)),
    "procrustes_distance": MetricLabel("Procrustes distance", False, (0, 2)),
    "gulp": MetricLabel("GULP (squared)", False, None),
    "rankme_sigma": MetricLabel("RankMe (singular values)", None, None),
    "rankme_lambda": MetricLabel("RankMe (eigenvalues)", None, None),
    "participation_ratio": MetricLabel("Participation ratio", None, None),
    "isotropy": MetricLabel("IsoScore", None, (0, 1)),
    "alpha": MetricLabel("alpha-ReQ exponent", None, None),
}
_NEIGHBOURS = re.compile(r"(centred_)?knn_(jaccard|mutual)(_centred)?@(\d+)")
_ALIGNMENT = re.compile(r"cknna@(\d+)")


_REPLICATE = re.compile(r"(?P<arm>.+?)(?P<placebo>-placebo)?(-(?P<lineage>\d+)(-seed(?P<seed>\d+))?)?")


def replicate_label(name: str) -> str:
    """What a reader calls an arm, a stage or a run of a replicate design.

    Examples
    --------
    >>> replicate_label("rlvr-2"), replicate_label("sft-placebo-1-seed2")
    ('RLVR, lineage 2', 'placebo of SFT, lineage 1, seed 2')
    """
    match = _REPLICATE.fullmatch(name)
    assert match is not None  # any name matches
    arm = training_kind(match["arm"])
    parts = [f"placebo of {arm}" if match["placebo"] else arm]
    parts += [f"{what} {match[what]}" for what in ("lineage", "seed") if match[what]]
    return ", ".join(parts)


def metric_label(metric: str) -> MetricLabel:
    """Label of a metric; one this table does not know keeps its own name and has no direction."""
    if metric in _METRICS:
        return _METRICS[metric]
    if match := _NEIGHBOURS.fullmatch(metric):
        kind = {"jaccard": "Jaccard", "mutual": "mutual"}[match[2]]
        centred = ", centred" if match[1] or match[3] else ""
        return MetricLabel(f"k-NN overlap ({kind}{centred}, k = {match[4]})", True, (0, 1))
    if match := _ALIGNMENT.fullmatch(metric):
        return MetricLabel(f"CKNNA (k = {match[1]})", True, None)
    return MetricLabel(metric, None, None)


#: Quantities of a training log worth a curve, with their axis (quantity and unit).
QUANTITIES = {
    "loss": "loss (nats)",
    "accuracy": "in-batch accuracy (fraction)",
    "reward": "reward (mean over completions)",
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm (L2)",
    "tokens_per_second": "throughput (tokens/s)",
    "queries_per_second": "throughput (queries/s)",
    "padding_efficiency": "padding efficiency (fraction)",
    "token_imbalance": "fullest rank over the mean, minus 1 (tokens)",
    "mfu": "model FLOP utilisation (fraction)",
    "peak_memory_gib": "peak memory (GiB)",
    "kl": "KL divergence to the parent (nats)",
    "seconds": "time of a step (s)",
}


def training_kind(kind: str) -> str:
    """A kind of training as the field writes it: ``rlvr`` -> ``RLVR``."""
    return kind.upper() if kind in ("sft", "rlvr", "dpo") else kind


def short_layer(label: str) -> str:
    """A layer's label short enough for a tick: ``layer 4 (pre-norm)`` -> ``4 pre``."""
    short = {"embedding": "emb", "final norm": "norm"}.get(label, label.removeprefix("layer "))
    return short.replace(" (pre-norm)", " pre")


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign, a true minus sign, and no sign on what rounds to zero."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def compact(value: float) -> str:
    """A count or a statistic of counts: three digits, or whole from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def brackets(
    bounds: tuple[float, float] | None, digits: int = 3, *, write: Callable[[float, int], str] = number
) -> str:
    """An interval for a table, its ends as numbers or, of a difference, :func:`signed`; empty where there is none."""
    return "" if bounds is None else f"[{write(bounds[0], digits)}, {write(bounds[1], digits)}]"
