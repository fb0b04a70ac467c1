"""What each metric ignores and notices: the table of the registry, in numbers and for any input."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from reasoning_embedding import hrsa
from reasoning_embedding.hrsa import registry
from reasoning_embedding.hrsa.registry import METRICS, SPECTRUM, TRANSFORMATIONS, MetricSpec

ONE, NONE, FLOOR = (1 - 1e-7, 1 + 1e-7), (-1e-7, 1e-7), (0.19, 0.23)
LITTLE = (-0.2, 0.2)
COLUMNS = (
    "dimension_wise_correlation permutation_match orthogonal_procrustes residual linear_cka debiased_linear_cka "
    "rbf_cka procrustes_distance gulp knn_overlap cknna"
).split()
#: Of X (400 x 32, standard normal) and T(X): bounds in the order of COLUMNS.
TABLE = {
    "identity": (ONE, ONE, ONE, NONE, ONE, ONE, ONE, NONE, NONE, ONE, ONE),
    "scale": (ONE, ONE, ONE, (0.4444, 0.4445), ONE, ONE, ONE, NONE, NONE, ONE, ONE),
    "shift": (ONE, ONE, ONE, NONE, ONE, ONE, ONE, NONE, NONE, (0.3, 0.5), (0.5, 0.7)),
    "permutation": (LITTLE, ONE, ONE, NONE, ONE, ONE, ONE, NONE, NONE, ONE, ONE),
    "sign flips": ((-1e-9, 1e-9), ONE, ONE, NONE, ONE, ONE, ONE, NONE, NONE, ONE, ONE),
    "orthogonal": (LITTLE, (0.35, 0.5), FLOOR, NONE, ONE, ONE, ONE, NONE, NONE, ONE, ONE),
    "column scaling": (
        *(ONE, ONE, (0.97, 0.999), (0.1, 0.25), (0.7, 0.9), (0.7, 0.9), (0.8, 0.92), (0.1, 0.2), (0.9, 1.4)),
        *((0.2, 0.45), (0.4, 0.6)),
    ),
    "random linear": (
        *(LITTLE, (0.35, 0.5), FLOOR, (0.6, 0.85), (0.65, 0.9), (0.65, 0.9), (0.7, 0.9), (0.2, 0.4), (3, 5)),
        *((0.15, 0.4), (0.3, 0.5)),
    ),
    "row shuffle": (
        *(
            (-0.05, 0.05),
            (0.1, 0.13),
            FLOOR,
            (1.4, 2.1),
            (0.05, 0.1),
            (-0.02, 0.02),
            (0.35, 0.45),
            (1.4, 1.6),
        ),
        *((31, 35), (0, 0.03), (-0.05, 0.1)),
    ),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_table_in_numbers(name):
    x = np.random.RandomState(0).randn(400, 32)
    y = TRANSFORMATIONS[name](x, np.random.default_rng(1))
    fit = hrsa.orthogonal_procrustes(x, y)
    found = [
        fit.residual if column == "residual" else float(METRICS[column].function(x, y)) for column in COLUMNS
    ]
    for column, value, (low, high) in zip(COLUMNS, found, TABLE[name], strict=True):
        assert low <= value <= high, (name, column, value)


def compute(spec: MetricSpec, x: np.ndarray, y: np.ndarray, labels: np.ndarray) -> float:
    if spec.function is hrsa.alpha_req:
        return float(hrsa.alpha_req(y, ranks=(2, y.shape[1])))
    if spec.level is SPECTRUM:
        return float(spec.function(y))
    if spec.function is hrsa.linear_probe_transfer:
        return float(hrsa.linear_probe_transfer(x, y, labels, probe="ridge"))
    return float(spec.function(x, y))


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=4, deadline=None, derandomize=True, phases=[Phase.generate])  # shrinking takes minutes
@given(seed=st.integers(0, 10_000), d=st.integers(14, 30), noise=st.floats(0.1, 2))
def test_every_metric_keeps_its_contract(name, seed, d, noise):
    spec, random = METRICS[name], np.random.RandomState(seed)
    labels = np.arange(160) % 4
    # The spectrum of a round cloud can only become steeper; a probe needs classes.
    x = random.randn(160, d) + (spec.level is not SPECTRUM) * 2 * random.randn(4, d)[labels]
    y = x + noise * random.randn(160, d)
    for transformation, apply in TRANSFORMATIONS.items():
        rng = np.random.default_rng(seed)
        if transformation in spec.invariant_to:
            expected = pytest.approx(compute(spec, x, y, labels), rel=1e-6, abs=1e-6)
            assert compute(spec, x, apply(y, rng), labels) == expected, transformation
        if transformation in spec.sensitive_to:
            itself = compute(spec, x, x, labels)
            changed = compute(spec, x, apply(x, rng), labels)
            least = 0.005 if name == "rbf_cka" else 0.02  # RBF CKA of four far groups moves by 0.01
            assert abs(changed - itself) > least * max(1, abs(itself)), transformation


def test_a_metric_that_breaks_its_contract_would_be_noticed():
    """The control: uncentred correlation notices a shift, and k-NN of rows ignores none of its own."""
    random = np.random.RandomState(0)
    x = random.randn(160, 16)

    def uncentred(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean((a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)))

    assert abs(uncentred(x, x + 5) - uncentred(x, x)) > 0.02
    assert float(hrsa.knn_overlap(x, x + 5, centred=True)) == 1


def test_the_documented_table_is_the_declared_one():
    order = ["identity", "scale", "shift", "permutation", "sign flips", "orthogonal", "column scaling"]
    order += ["random linear", "row shuffle"]
    assert order == list(TRANSFORMATIONS)
    lines = [
        line for line in (registry.__doc__ or "").splitlines() if re.match(r"[a-z_]+ .*(ign|not)\.", line)
    ]
    assert [line.split()[0] for line in lines] == list(METRICS)
    for line in lines:
        cells = re.findall(r"ignores|ign\.|not\.|a bit|-", line.split(" ", 1)[1])
        spec = METRICS[line.split()[0]]
        for transformation, cell in zip(order, cells, strict=True):
            said = {"ignores": "ignores", "ign.": "ignores", "not.": "notices"}.get(cell)
            ignored, noticed = transformation in spec.invariant_to, transformation in spec.sensitive_to
            assert said == ("ignores" if ignored else "notices" if noticed else None), (line, transformation)


def test_levels_of_the_hierarchy_differ_in_what_they_ignore():
    levels = {spec.level.name: spec.level for spec in METRICS.values()}
    assert list(levels) == ["representation", "geometry", "function", "spectrum"]
    assert "orthogonal" in levels["representation"].sensitive_to & levels["geometry"].invariant_to
    assert all(level.question.endswith("?") for level in levels.values())


def test_a_contradictory_contract_is_refused():
    with pytest.raises(ValueError, match="contradictory"):
        MetricSpec(hrsa.linear_cka, registry.GEOMETRY, frozenset({"row shuffle"}))
    with pytest.raises(ValueError, match="unknown"):
        MetricSpec(hrsa.linear_cka, registry.GEOMETRY, frozenset({"rotation"}))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    d=st.integers(3, 24),
    scale=st.floats(0.01, 100),
    shift=st.floats(-10, 10),
)
def test_similarity_transformations(seed, d, scale, shift):
    """CKA ignores rotation, scale and shift; correlation ignores scale and shift a dimension."""
    random = np.random.RandomState(seed)
    x = random.randn(80, d)
    rotation = ortho_group.rvs(d, random_state=seed)
    turned = scale * (x @ rotation) + shift
    assert float(hrsa.linear_cka(x, turned)) == pytest.approx(1, abs=1e-8)
    assert float(hrsa.debiased_linear_cka(x, turned)) == pytest.approx(1, abs=1e-8)
    assert float(hrsa.rbf_cka(x, turned)) == pytest.approx(1, abs=1e-8)
    assert float(hrsa.knn_overlap(x, turned, k=5, centred=True)) == pytest.approx(1)
    fit = hrsa.orthogonal_procrustes(x, turned, heldout=0)
    assert np.allclose(fit.map, rotation, atol=1e-6)
    stretched = x * random.uniform(0.1, 10, d) + random.randn(d)
    assert float(hrsa.dimension_wise_correlation(x, stretched)) == pytest.approx(1, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), d=st.integers(3, 24))
def test_symmetry_and_signed_permutations(seed, d):
    random = np.random.RandomState(seed)
    x = random.randn(60, d)
    y = x + random.randn(60, d)
    for metric in (
        hrsa.linear_cka,
        hrsa.debiased_linear_cka,
        hrsa.dimension_wise_correlation,
        hrsa.knn_overlap,
    ):
        assert float(metric(x, y)) == pytest.approx(float(metric(y, x)), abs=1e-10)
    relabelled = x[:, random.permutation(d)] * random.choice([-1, 1], d)
    fit = hrsa.orthogonal_procrustes(x, relabelled)
    assert fit.value == pytest.approx(1, abs=1e-9)
    assert fit.rescaled == pytest.approx(1, abs=1e-9)
    assert fit.cosine == pytest.approx(1, abs=1e-9)
