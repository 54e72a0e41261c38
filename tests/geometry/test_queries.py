"""The forms that the geometry of queries takes where there is much of it, against the one that small samples have."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc.certificates import certificate
from dnc.few_shot import distances
from dnc.few_shot.hard import hard_samples
from dnc.few_shot.predict import predict, predicted_error
from dnc.geometry import far_classes, measure, queries, query_geometry, references, sizes, symmetric
from dnc.geometry.leading import leading
from dnc.geometry.measure import pair_geometry
from dnc.geometry.queries import QuerySource, covariance_form
from dnc.geometry.query_geometry import QueryGeometry, has_far
from tests.samples import stacked

K, N, D = 12, 20, 24
SHOTS = [1, 3, 10]


def sample() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    scale = 1.5 / np.sqrt(1 + np.arange(D))
    classes = [np.float32(0.9 * rng.normal(size=D) * scale + rng.normal(size=(N + c, D)) * scale) for c in range(K)]
    return stacked(classes)


@pytest.fixture
def changed(monkeypatch):
    """Set constants of `queries` and forget the programs that were compiled with others."""

    def change(**values: float) -> None:
        for name, value in values.items():
            for module in (queries, query_geometry, far_classes, measure, references, distances):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, value)
        jax.clear_caches()

    yield change
    jax.clear_caches()


def numbers(geometry) -> dict[str, np.ndarray]:
    """What users get of the queries."""
    bounds, predicted = certificate("exact_conditional", geometry, SHOTS), predicted_error(geometry, SHOTS)
    hard = hard_samples(geometry, 10, [str(c) for c in range(K)], top=40)
    return {
        "bound": np.asarray(bounds.per_class),
        "bound_pairs": np.asarray(bounds.per_pair),
        "predicted": np.asarray(predicted.per_class),
        "predicted_pairs": np.asarray(predicted.per_pair),
        "hard": hard.error,
    }


def measured(**options):
    return pair_geometry(*sample(), K, queries=True, **options)


def test_made_where_it_is_used_it_is_what_is_held(changed, monkeypatch):
    held = measured()
    assert isinstance(held.queries, QueryGeometry)
    expected = numbers(held)
    monkeypatch.setattr(sizes, "CPU", dataclasses.replace(sizes.CPU, queries=50, elements=2**12))
    changed(HELD=0)
    source = measured()
    assert isinstance(source.queries, QuerySource)
    for name, value in numbers(source).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("held", [True, False])
def test_a_subset_is_the_subset_either_way(changed, held):
    chosen = np.array([4, 0, 7])
    expected = certificate("exact_conditional", measured().subset(chosen), SHOTS).per_class
    changed(HELD=2**23 if held else 0)
    subset = measured().subset(chosen)
    np.testing.assert_allclose(certificate("exact_conditional", subset, SHOTS).per_class, expected, rtol=1e-5)
    rivals = predicted_error(subset, [10]).per_class
    x, y = sample()
    member = np.isin(y, chosen)
    alone = pair_geometry(x[member], np.argsort(chosen)[np.searchsorted(np.sort(chosen), y[member])], 3, queries=True)
    np.testing.assert_allclose(rivals, predicted_error(alone, [10]).per_class, atol=2e-3)


def test_small_classes_are_their_samples(changed):
    expected = numbers(measured())
    assert covariance_form(K * N, K, 64, largest=40) == ("samples", 40)
    wide = np.pad(sample()[0], ((0, 0), (0, 40)))  # classes of fewer samples than dimensions
    geometry = pair_geometry(wide, sample()[1], K, queries=True, largest=40)
    for name, value in numbers(geometry).items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-4, atol=1e-5, err_msg=name)


def test_classes_larger_than_was_said_are_no_basis_of_a_certificate():
    wide = np.pad(sample()[0], ((0, 0), (0, 40)))
    geometry = pair_geometry(wide, sample()[1], K, queries=True, largest=N)
    np.testing.assert_allclose(certificate("exact_conditional", geometry, [10]).per_class, 1, rtol=1e-6)


@pytest.mark.parametrize("rank", [3, 8, 24])
def test_leading_eigenvectors_bound_quadratic_forms(rank):
    rng = np.random.default_rng(1)
    root = np.float32(rng.normal(size=(60, D)) / (1 + np.arange(D)))
    sigma = root.T @ root
    total = symmetric.add_outer_products(symmetric.zeros(D), jnp.asarray(root), jnp.ones(60))
    found = leading(total, num_classes=1, rank=rank)
    b = np.float32(rng.normal(size=(500, D)))
    exact, inside = np.einsum("nd,de,ne->n", b, sigma, b), np.sum((b @ np.asarray(found.factor).T) ** 2, axis=1)
    length = np.sum(b**2, axis=1)
    assert found.factor.shape == (rank, D)
    assert np.all(inside <= exact * (1 + 1e-5))
    assert np.all(inside + found.most * length >= exact * (1 - 1e-5))
    eigenvalues = np.linalg.eigvalsh(sigma)[::-1]
    following = eigenvalues[rank] if rank < D else 0
    np.testing.assert_allclose(found.rest, eigenvalues[rank:].sum() / D, rtol=0.05, atol=1e-5)
    assert 0.99 * following <= found.most <= 1.4 * following + 1e-4 * eigenvalues[0]


@pytest.mark.parametrize("rank", [8, 64])
def test_by_leading_eigenvectors_the_certificate_is_never_below(changed, rank):
    exact = numbers(measured())
    changed(_FLAT_OPERATIONS=0, RANK=rank)
    assert covariance_form(K * N, K, D)[0] == "leading"
    geometry = measured()
    assert geometry.queries.most is not None
    found = numbers(geometry)
    assert np.all(found["bound"] >= exact["bound"] * (1 - 1e-4))
    assert np.all(found["bound_pairs"] >= exact["bound_pairs"] * (1 - 1e-4))
    if rank >= D:  # as many eigenvectors as dimensions
        for name, value in found.items():
            np.testing.assert_allclose(value, exact[name], rtol=2e-3, atol=1e-4, err_msg=name)


def test_of_many_rivals_the_nearest_decide(changed):
    exact = numbers(measured())
    changed(NEAREST=6, _FEW_CLASSES=2)
    found = numbers(measured())
    np.testing.assert_allclose(found["bound"], exact["bound"], rtol=1e-5)
    np.testing.assert_array_less(np.abs(found["predicted"] - exact["predicted"]).mean(axis=1), [0.005, 0.005, 1e-4])
    np.testing.assert_allclose(found["predicted_pairs"], exact["predicted_pairs"], atol=0.015)
    np.testing.assert_allclose(found["hard"], exact["hard"], atol=1e-3)


def test_overlaps_of_covariances_made_group_by_group_are_those_of_all_at_once(changed):
    x, y = sample()
    expected = pair_geometry(x, y, K, overlap="exact").margin_terms.covariance_overlap
    changed(LARGEST_COVARIANCES=8 * 5 * 4 * symmetric.length(D))  # five at once
    found = pair_geometry(x, y, K).margin_terms
    assert found.overlap == "exact"
    np.testing.assert_allclose(found.covariance_overlap, expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["samples", "flat", "leading"])
@pytest.mark.parametrize("held", [True, False])
def test_of_many_classes_only_the_near_are_looked_at_closely(changed, monkeypatch, form, held):
    """Four of twelve: the others' b^T Sigma b is exact, or bounded; one to three shots count all of them."""
    x, y = sample()
    wide = {"samples": 40}.get(form, 0)  # classes of fewer samples than dimensions
    options = {"largest": 40} if form == "samples" else {}
    x = np.pad(x, ((0, 0), (0, wide)))

    def measure() -> dict[str, np.ndarray]:
        return numbers(pair_geometry(x, y, K, queries=True, **options))

    changed(**({"_FLAT_OPERATIONS": 0} if form == "leading" else {}))
    exact = measure()
    monkeypatch.setattr(sizes, "CPU", dataclasses.replace(sizes.CPU, near=4, near_queries=3))
    changed(
        HELD=2**23 if held else 0,
        NEAREST=3,
        FAR_REFERENCES=40,
        FAR_RANK=8,
        **({"_FLAT_OPERATIONS": 0} if form == "leading" else {}),
    )
    assert has_far(K)
    found = measure()
    assert np.all(found["bound"] >= exact["bound"] * (1 - 1e-4))
    assert np.all(found["bound_pairs"] >= exact["bound_pairs"] * (1 - 1e-4))
    if form == "samples":
        np.testing.assert_allclose(found["bound"], exact["bound"], rtol=1e-4)
        np.testing.assert_allclose(found["bound_pairs"], exact["bound_pairs"], rtol=1e-4, atol=1e-6)
    few = [SHOTS.index(1), SHOTS.index(3)]
    np.testing.assert_allclose(found["predicted"][few], exact["predicted"][few], rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(found["predicted_pairs"][few], exact["predicted_pairs"][few], atol=2e-3)
    np.testing.assert_allclose(found["predicted"], exact["predicted"], atol=0.02)
    np.testing.assert_allclose(found["hard"], exact["hard"], atol=0.05)


def test_a_block_of_many_classes_is_looked_at_in_parts_that_hold_few(changed, monkeypatch):
    """Fewer samples than a block takes, two of each class: the query's own class is always among the near."""
    x, y = sample()
    kept = np.concatenate([np.flatnonzero(y == c)[:2] for c in range(K)])

    def measure() -> tuple[np.ndarray, np.ndarray]:
        geometry = pair_geometry(x[kept], y[kept], K, queries=True, largest=2)
        bounds, predicted = certificate("exact_conditional", geometry, SHOTS), predicted_error(geometry, [10])
        return np.asarray(bounds.per_pair), np.asarray(predicted.per_pair)

    changed(HELD=0)
    exact = measure()
    monkeypatch.setattr(sizes, "CPU", dataclasses.replace(sizes.CPU, near=4, near_queries=3))
    changed(HELD=0, NEAREST=3)
    found = measure()
    np.testing.assert_allclose(found[0], exact[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[1], exact[1], atol=0.03)


@pytest.mark.parametrize("form", ["few classes", "many classes", "far classes"])
def test_classes_of_fewer_samples_than_shots_are_predicted_from_cumulants(changed, monkeypatch, form):
    """Of two samples, less the query, one shot is known; three shots of two samples are known to no query."""
    rng = np.random.default_rng(0)
    k = 5 if form == "few classes" else 40
    counts = np.full(k, 7)
    counts[:2] = 2, 3
    y = np.repeat(np.arange(k), counts)
    x = (rng.normal(size=(k, 6))[y] + 0.7 * rng.normal(size=(len(y), 6))).astype(np.float32)
    if form == "far classes":
        monkeypatch.setattr(sizes, "CPU", dataclasses.replace(sizes.CPU, near=8, near_queries=6))
        changed(NEAREST=7, FAR_REFERENCES=4)
    geometry = pair_geometry(x, y, k, queries=True)
    right = np.asarray(geometry.queries.references.right)
    np.testing.assert_array_equal(np.isnan(right), np.stack([y < 0, y == 0, y >= 0], axis=1))
    shots = jnp.broadcast_to(jnp.asarray([2.0, 3.0])[:, None], (2, k))
    (found, _), (expected, _) = (predict(geometry, shots, few=few) for few in (True, False))
    np.testing.assert_allclose(found[0, :1], expected[0, :1], rtol=1e-4)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4)


def test_shots_between_whole_numbers_are_predicted_from_cumulants():
    geometry = measured()
    shots = jnp.full((1, K), 2.5)
    found, expected = (predict(geometry, shots, few=few) for few in (True, False))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)


def test_few_references_of_the_far_are_right_on_average(changed, monkeypatch):
    """Every rival's share is unbiased, and they are independent: so is their product."""
    exact = numbers(measured())
    monkeypatch.setattr(sizes, "CPU", dataclasses.replace(sizes.CPU, near=4, near_queries=3))
    changed(NEAREST=3, FAR_REFERENCES=8)
    found = numbers(measured())
    one, three = SHOTS.index(1), SHOTS.index(3)
    for at in (one, three):
        assert np.mean(found["predicted"][at]) == pytest.approx(np.mean(exact["predicted"][at]), rel=0.03)
    assert np.any(found["predicted"][one] != exact["predicted"][one])
