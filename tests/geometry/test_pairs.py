import dataclasses
import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc.geometry.measure import pair_geometry, pair_geometry_from_moments
from dnc.geometry.moments import ClassMoments
from dnc.geometry.pairs import PairGeometry, mean_over_pairs
from tests import oracles
from tests.samples import assert_leaves_close, clusters, off_diagonal

K, N, D = 4, 500, 16
FEATURES, LABELS = clusters(n=N, k=K, d=D)
geometry_of = functools.partial(pair_geometry, num_classes=K)
RATIOS = ("cdnv", "directional_cdnv", "theta")


def assert_matches_oracle(geometry, features, labels, rtol=1e-5):
    expected, terms = oracles.pair_geometry(features, labels), geometry.margin_terms
    np.testing.assert_array_equal(geometry.counts, expected["count"])
    for name in ("variance", "fourth_moment"):
        np.testing.assert_allclose(getattr(geometry, name), expected[name], rtol=rtol, err_msg=name)
    actual = {name: getattr(geometry, name) for name in ("squared_distance", "directional_variance", *RATIOS)}
    for name, values in (actual | {"covariance_overlap": terms.covariance_overlap}).items():
        np.testing.assert_allclose(off_diagonal(values), off_diagonal(expected[name]), rtol=rtol, err_msg=name)
    near, k = np.asarray(terms.neighbors), len(geometry.counts)
    np.testing.assert_array_equal(np.sort(near, axis=1), [[j for j in range(k) if j != i] for i in range(k)])
    axis = expected["axis_covariance"][np.arange(k)[:, None, None], near[:, :, None], near[:, None, :]]
    of_either_sign = {"third": expected["third_moment"], "axis": axis}
    assert_leaves_close({"third": terms.third_moment, "axis": terms.axis_covariance}, of_either_sign, rtol)


def assert_ratios_close(first, second, rtol):
    for name in RATIOS:
        ratios = (off_diagonal(getattr(geometry, name)) for geometry in (first, second))
        np.testing.assert_allclose(*ratios, rtol=rtol, err_msg=name)


@pytest.mark.parametrize(
    "options",
    [
        *({"offset": offset} for offset in (0.0, 1e4)),
        *({"scale": scale} for scale in (1e-6, 1e6)),
        *({"n": n, "k": k, "d": d} for n, k, d in [(40, 2, 3), (30, 7, 2), (23, 3, 50), (2000, 3, 5)]),
    ],
    ids=str,
)
def test_pair_geometry_matches_float64_loop(options):
    features, labels = clusters(**{"seed": 1, "n": N, "k": K, "d": D, **options})
    assert_matches_oracle(pair_geometry(features, labels, options.get("k", K)), features, labels)


def test_pair_geometry_matches_float64_loop_on_heavy_tails():
    rng = np.random.default_rng(4)
    features, labels = clusters(seed=4, n=N, k=K, d=D)
    features *= rng.pareto(2.0, (N, 1)).astype(np.float32) + 0.1
    assert_matches_oracle(geometry_of(features, labels), features, labels)


def test_strongly_collapsed_axes_keep_their_digits():
    features, labels = clusters(seed=5, n=N, k=K, d=D)
    features[:, 0] = 3 * labels + 1e-2 * features[:, 0]  # the decision axes: tiny variance
    for c in range(K):
        features[labels == c, 1:] -= features[labels == c, 1:].mean(axis=0)
    assert_matches_oracle(geometry_of(features, labels), features, labels)


def test_two_classes_on_a_line_by_hand():
    # class 0 at 0 and 2 (mean 1, variance 1), class 1 at 9 and 13 (mean 11, variance 4), d^2 = 100
    features = jnp.array([[0.0], [13.0], [2.0], [9.0]])
    geometry = pair_geometry(features, jnp.array([0, 1, 0, 1]), 2)
    nan = np.nan
    np.testing.assert_allclose(geometry.means, [[1], [11]], rtol=1e-6)
    np.testing.assert_allclose(geometry.variance, [1, 4], rtol=1e-6)
    np.testing.assert_allclose(geometry.cdnv, [[nan, 0.05], [0.05, nan]], rtol=1e-6)
    np.testing.assert_array_equal(2 * geometry.half_cdnv, geometry.cdnv)
    np.testing.assert_allclose(geometry.directional_cdnv, [[nan, 0.01], [0.04, nan]], rtol=1e-6)
    np.testing.assert_allclose(geometry.theta, [[nan, 17e-4], [17e-4, nan]], rtol=1e-6)
    np.testing.assert_allclose(geometry.margin_terms.covariance_overlap, [[1, 4], [4, 16]], rtol=1e-6)
    np.testing.assert_allclose(geometry.margin_terms.third_moment, np.zeros((2, 2)), atol=1e-4)


def test_directional_cdnv_depends_on_the_axis_only():
    # the baguette: noise of 100 across the axis, 0.1 along it
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    features = np.stack([labels + 0.1 * rng.normal(size=400), 100 * rng.normal(size=400)], axis=1)
    for c in (0, 1):
        features[labels == c] -= features[labels == c].mean(axis=0) - [c, 0]
    geometry = pair_geometry(features.astype(np.float32), labels, 2)
    assert off_diagonal(geometry.cdnv).min() > 1e4
    assert off_diagonal(geometry.directional_cdnv).max() < 0.02


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(seed=st.integers(0, 2**16), scale=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_ratios_are_invariant_to_rotation_translation_scale_and_order(seed, scale, shift):
    rng = np.random.default_rng(seed)
    features, labels = clusters(seed=seed, n=N, k=K, d=D)
    rotation, _ = np.linalg.qr(rng.normal(size=(D, D)))
    order = rng.permutation(N)
    moved = (scale * (features @ rotation + shift)).astype(np.float32)[order]
    assert_ratios_close(geometry_of(features, labels), geometry_of(moved, labels[order]), rtol=3e-4)


def test_renaming_classes_permutes_the_matrices():
    renamed = np.array([2, 0, 3, 1])
    first, second = geometry_of(FEATURES, LABELS), geometry_of(FEATURES, renamed[LABELS].astype(np.int32))
    for name in RATIOS:
        permuted = np.asarray(getattr(second, name))[np.ix_(renamed, renamed)]
        np.testing.assert_allclose(getattr(first, name), permuted, rtol=1e-5, err_msg=name)


def test_pair_geometry_from_moments_agrees_with_the_data():
    from_moments = pair_geometry_from_moments(ClassMoments.from_batch(FEATURES, LABELS, K))
    assert_matches_oracle(from_moments, FEATURES, LABELS, rtol=1e-4)


def test_coincident_means_give_inf_and_never_nan():
    labels = np.array([0, 0, 1, 1, 2, 2])
    features = np.array([[-1, 0], [1, 0], [0, -1], [0, 1], [5, 5], [5, 6]], np.float32)
    geometry = pair_geometry(features, labels, 3)
    for name in RATIOS:
        values = np.asarray(getattr(geometry, name))
        assert values[0, 1] == values[1, 0] == np.inf, name
        assert not np.isnan(off_diagonal(values)).any(), name


def test_zero_variance_class_has_zero_directional_cdnv():
    features, labels = clusters(seed=8, n=N, k=K, d=D)
    features[labels == 2] = 1.0
    geometry = geometry_of(features, labels)
    assert np.nanmax(np.asarray(geometry.directional_cdnv)[2]) < 1e-12


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_features_are_measured_in_float32(dtype):
    half = jnp.asarray(FEATURES).astype(dtype)
    assert geometry_of(half, LABELS).variance.dtype == jnp.float32
    assert_matches_oracle(geometry_of(half, LABELS), np.asarray(half, np.float64), LABELS)


def test_pair_geometry_passes_through_transformations():
    stacked = jax.vmap(lambda x: pair_geometry(x, LABELS, K))(jnp.stack([FEATURES, 2 * FEATURES]))
    cdnv = jax.vmap(lambda geometry: geometry.cdnv)(stacked)
    np.testing.assert_allclose(off_diagonal(cdnv[0]), off_diagonal(cdnv[1]), rtol=1e-5)
    assert jax.eval_shape(geometry_of, FEATURES, LABELS).squared_distance.shape == (K, K)
    assert isinstance(jax.tree.map(np.asarray, stacked), PairGeometry)


def test_mean_over_pairs_ignores_the_diagonal():
    values = jnp.array([[jnp.nan, 1.0], [3.0, jnp.nan]])
    assert mean_over_pairs(values) == 2.0
    np.testing.assert_array_equal(mean_over_pairs(jnp.stack([values, 2 * values])), [2.0, 4.0])


def test_weights_count_samples_and_weight_zero_masks_them():
    features, labels = clusters(seed=11, n=N, k=K, d=D, offset=1e3)
    times = np.random.default_rng(0).integers(0, 4, N)
    repeated = np.repeat(features, times, axis=0), np.repeat(labels, times)
    features[times == 0] = np.nan
    weighted = pair_geometry(features, labels, K, weights=times.astype(np.float32))
    assert_matches_oracle(weighted, *repeated)


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_a_common_factor_of_the_weights_changes_nothing_but_the_counts(scale):
    weighted = pair_geometry(FEATURES, LABELS, K, weights=np.full(N, scale, np.float32))
    expected = geometry_of(FEATURES, LABELS)
    np.testing.assert_allclose(weighted.counts, scale * np.asarray(expected.counts), rtol=1e-6)
    assert_ratios_close(weighted, expected, rtol=1e-6)


def test_overlaps_bound_the_exact_one_from_above():
    expected = oracles.pair_geometry(FEATURES, LABELS)["covariance_overlap"]
    m = oracles.moments(FEATURES, LABELS)
    norm = np.linalg.norm(m["covariance"], axis=(1, 2))
    for overlap, size in (("cauchy_schwarz", norm), ("trace", m["variance"])):
        terms = pair_geometry(FEATURES, LABELS, K, overlap=overlap).margin_terms
        np.testing.assert_allclose(terms.covariance_overlap, np.outer(size, size), rtol=1e-5)
        assert np.all(terms.covariance_overlap >= expected * (1 - 1e-5))
        assert terms.overlap == overlap


def test_collapse_alone_needs_no_certificate_moments():
    light, full = pair_geometry(FEATURES, LABELS, K, overlap="none"), geometry_of(FEATURES, LABELS)
    assert light.margin_terms is None
    assert_ratios_close(light, full, rtol=1e-6)
    with pytest.raises(ValueError, match="overlap='full' is not known: choose one of"):
        pair_geometry(FEATURES, LABELS, K, overlap="full")


def test_the_nearest_neighbors_are_kept():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(840, 6)).astype(np.float32), np.arange(840) % 70
    features += 5 * rng.normal(size=(70, 6))[labels].astype(np.float32)
    geometry = pair_geometry(features, labels, 70)
    distance = np.asarray(geometry.squared_distance) + np.diag(np.full(70, np.inf))
    near = np.argsort(distance, axis=1)[:, :63]
    np.testing.assert_array_equal(geometry.margin_terms.neighbors, near)
    expected = oracles.pair_geometry(features, labels)["axis_covariance"]
    expected = expected[np.arange(70)[:, None, None], near[:, :, None], near[:, None, :]]
    np.testing.assert_allclose(geometry.margin_terms.axis_covariance, expected, atol=1e-5 * expected.max())
    with pytest.raises(ValueError, match="70 classes keeps only 63 rivals of each"):
        geometry.subset(np.array([0, 1]))


def test_ddof_divides_second_moments_by_fewer():
    features, labels = clusters(seed=13, n=40, k=K, d=D)
    unbiased = geometry_of(features, labels).with_ddof(1)
    for c in range(K):
        z = features[labels == c].astype(np.float64)
        np.testing.assert_allclose(unbiased.variance[c], z.var(axis=0, ddof=1).sum(), rtol=1e-5)
    z, other = (features[labels == c].astype(np.float64) for c in (0, 1))
    u = other.mean(axis=0) - z.mean(axis=0)
    directional = (z @ u / np.linalg.norm(u)).var(ddof=1)
    np.testing.assert_allclose(unbiased.directional_variance[0, 1], directional, rtol=1e-5)
    overlap = np.trace(np.cov(z.T) @ np.cov(other.T))
    np.testing.assert_allclose(unbiased.margin_terms.covariance_overlap[0, 1], overlap, rtol=1e-5)
    assert unbiased.ddof == 1
    with pytest.raises(ValueError, match="already has ddof=1"):
        unbiased.with_ddof(1)
    with pytest.raises(ValueError, match="more than 1 samples, but one has 1"):
        pair_geometry(np.eye(4, dtype=np.float32), np.array([0, 0, 0, 1]), 2).with_ddof(1)


def small_samples(n, d, draw, repeats):
    """Corrected geometries of repeated draws of n samples of each of two classes, .8 apart along the first axis."""
    rng = np.random.default_rng(0)
    labels = np.arange(2 * n) % 2
    features = draw(rng, (repeats, 2 * n, d)) * np.linspace(1, 0.5, d)
    features[:, labels == 1, 0] += 0.8

    def both(x):
        geometry = pair_geometry(x, labels, 2, overlap="exact")
        better = geometry.with_corrected_distances()
        return geometry, better, geometry.directional_cdnv, better.directional_cdnv

    return jax.jit(lambda samples: jax.lax.map(both, samples))(features.astype(np.float32))


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, shape: rng.normal(size=shape),
        lambda rng, shape: rng.exponential(size=shape) - 1,
        lambda rng, shape: rng.normal(size=shape) * rng.uniform(0.5, 1.5, (*shape[:-1], 1)) / np.sqrt(13 / 12),
    ],
    ids=["normal", "skewed", "unequal lengths"],
)
def test_corrections_are_unbiased(draw, monkeypatch):
    """Averaged over draws of 12 samples in 30 dimensions, of variance 1 along the axis."""
    monkeypatch.setattr("dnc.geometry.pairs.NOISE", -np.inf)
    geometry, better, _, _ = small_samples(12, 30, draw, repeats=400)
    terms = better.margin_terms
    overlap = terms.covariance_overlap
    values = better.squared_distance[:, 0, 1], terms.axis_covariance[:, 0, 0, 0], overlap[:, 0, 0], overlap[:, 0, 1]
    square = np.sum(np.linspace(1, 0.5, 30) ** 4)
    for value, true in zip(np.asarray(values), (0.8**2, 0.8**2, square, square), strict=True):
        np.testing.assert_allclose(value.mean(), true, atol=4.5 * value.std() / np.sqrt(400))
    assert geometry.squared_distance[:, 0, 1].mean() > 4 * 0.8**2


def test_corrected_directional_cdnv_is_near_the_populations():
    """Plug-in values of 30 samples in 128 dimensions are off by a factor; corrected ones by less than a fifth."""
    _, _, plug_in, corrected = small_samples(30, 128, lambda rng, shape: rng.normal(size=shape) * 0.5, repeats=60)
    true = 0.5**2 / 0.8**2
    assert np.nanmean(plug_in) < true / 1.5
    np.testing.assert_allclose(np.nanmean(corrected), true, rtol=0.2)


def test_corrections_refuse_to_divide_by_noise():
    rng = np.random.default_rng(0)
    noise = pair_geometry(rng.normal(size=(16, 400)).astype(np.float32), np.arange(16) % 2, 2)
    better = noise.with_corrected_distances()
    assert np.isnan(better.cdnv).all()
    assert np.isnan(better.directional_cdnv).all()
    with pytest.raises(ValueError, match="already corrected"):
        better.with_corrected_distances()
    with pytest.raises(ValueError, match='overlap="exact"'):
        pair_geometry(np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1]), 2, overlap="none").with_corrected_distances()


@pytest.mark.parametrize("classes", [[3, 1], [1, 3, 2, 0]])
def test_subset_equals_measuring_the_classes_samples(classes):
    member = np.isin(LABELS, classes)
    number = np.argsort(classes)[np.searchsorted(np.sort(classes), LABELS[member])].astype(np.int32)
    expected = pair_geometry(FEATURES[member], number, len(classes), queries=True)
    actual = pair_geometry(FEATURES, LABELS, K, queries=True).subset(np.array(classes))
    np.testing.assert_array_equal(actual.margin_terms.neighbors, expected.margin_terms.neighbors)
    assert_leaves_close(
        *(dataclasses.replace(geometry, queries=None, trace_of_cube=None) for geometry in (actual, expected)), rtol=1e-5
    )
    kept = np.asarray(actual.queries.weight) > 0
    others = ("length", "references", "cubic", "mixed")  # lengths are from other origins, references other samples
    fields = [f.name for f in dataclasses.fields(actual.queries) if f.name not in others]
    assert actual.queries.most is None
    for name in fields:
        if name == "most":
            continue
        ours, wanted = (np.asarray(getattr(geometry.queries, name)) for geometry in (actual, expected))
        assert_leaves_close({name: ours[kept]}, {name: wanted}, rtol=1e-4)
    right = np.asarray(actual.queries.references.right)[kept]
    if len(classes) == 2:
        farther = np.asarray(actual.queries.references.farther)[kept]
        np.testing.assert_allclose(right, farther.max(axis=1))
    else:
        assert np.isnan(right).all()
