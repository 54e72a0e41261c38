import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from dnc.few_shot.measured import few_shot_error
from dnc.probes.few_shot_linear import few_shot_linear_error
from tests.samples import clusters

SHOTS, K = (1, 3, 10), 4


def sample(**options):
    return clusters(n=160, k=K, d=6, **options)


def supports(key, labels, repeats):
    for draw in jax.random.split(key, repeats):
        noise = np.asarray(jax.random.uniform(draw, labels.shape))
        yield [np.flatnonzero(labels == c)[np.argsort(noise[labels == c])] for c in range(K)]


def test_matches_scikit_learn_on_the_supports_of_ncc():
    features, labels = sample()
    key, strength = jax.random.key(3), 1e-2
    actual = few_shot_linear_error(key, features, labels, SHOTS, 3, K, strength=strength, tolerance=1e-6)
    expected = np.zeros((3, len(SHOTS), K))
    for repeat, ranked in enumerate(supports(key, labels, 3)):
        for index, m in enumerate(SHOTS):
            rows = np.concatenate([rows[:m] for rows in ranked])
            x = np.float64(features[rows])
            unit = np.sqrt(np.mean(np.sum((x - x.mean(axis=0)) ** 2, axis=1)))
            model = LogisticRegression(C=1 / (strength * len(rows)), tol=1e-10, max_iter=10_000)
            model.fit((x - x.mean(axis=0)) / unit, labels[rows])
            for c in range(K):
                predicted = model.predict((features[ranked[c][m:]] - x.mean(axis=0)) / unit)
                expected[repeat, index, c] = np.mean(predicted != c)
    np.testing.assert_allclose(actual.per_class, expected.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(actual.mean, expected.mean(axis=(0, 2)), atol=1e-5)
    np.testing.assert_allclose(actual.std, expected.mean(axis=2).std(axis=0), atol=1e-5)
    assert actual.shots == SHOTS


def test_one_shot_of_two_classes_is_the_nearest_center():
    """Two support points: the boundary is their bisector for both probes, so the paired errors are equal."""
    features, labels = clusters(n=80, k=2, d=5)
    arguments = (jax.random.key(0), features, labels, [1], 5, 2)
    linear, nearest = few_shot_linear_error(*arguments, tolerance=1e-5), few_shot_error(*arguments)
    np.testing.assert_allclose(linear.per_class, nearest.per_class, atol=1e-6)
    assert linear.mean[0] > 0


ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0].astype(np.float32)


@pytest.mark.parametrize(("scale", "offset"), [(1e20, 0), (1e-20, 0), (1, 1e3), (ROTATION, 0)])
def test_scale_translation_and_rotation_do_not_matter(scale, offset):
    features, labels = sample()
    moved = np.float64(features) @ (scale * np.eye(6) if np.isscalar(scale) else scale) + offset
    moved, expected = (few_shot_linear_error(jax.random.key(0), x, labels, SHOTS, 3, K) for x in (moved, features))
    np.testing.assert_allclose(moved.per_class, expected.per_class, atol=0.02)


def test_equal_features_are_errors():
    features, labels = sample()
    error = few_shot_linear_error(jax.random.key(0), np.ones_like(features), labels, SHOTS, 3, K)
    np.testing.assert_array_equal(error.mean, [1, 1, 1])


def test_separable_clusters_have_no_error():
    labels = sample()[1]
    features = (20 * np.eye(K, 6)[labels] + np.random.default_rng(0).normal(size=(160, 6))).astype(np.float32)
    error = few_shot_linear_error(jax.random.key(0), features, labels, SHOTS, 3, K)
    np.testing.assert_array_equal(error.per_class, np.zeros((3, K)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 5}, "class 4 has 0 samples, but 10 shots"),
        ({"strength": -1.0}, "strength=-1"),
        ({"features": np.full((160, 6), np.nan)}, "NaN"),
    ],
)
def test_errors_name_the_argument(changes, message):
    features, labels = sample()
    arguments = {"features": features, "labels": labels, "shots": SHOTS, "repeats": 2, "num_classes": K, **changes}
    with pytest.raises(ValueError, match=message):
        few_shot_linear_error(jax.random.key(0), **arguments)
