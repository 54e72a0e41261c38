import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc.few_shot import betting
from dnc.few_shot import guarantee as module
from dnc.few_shot.block_errors import nearest_center
from dnc.few_shot.guarantee import guarantee, guaranteed_difference
from dnc.few_shot.measured import few_shot_error
from dnc.probes.logistic import LinearClassifier, fit_logistic, is_correct


def clusters(seed: int, k: int = 3, n: int = 30, d: int = 6, distance: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(k * n)
    features = (distance * rng.normal(size=(k, 1, d)) + rng.normal(size=(k, n, d))).reshape(k * n, d)
    return features[order].astype(np.float32), np.repeat(np.arange(k), n)[order]


@pytest.fixture(autouse=True)
def few_shuffles(monkeypatch):
    monkeypatch.setattr(module, "_SHUFFLES_AT_ONCE", 2)
    monkeypatch.setattr(module, "_MAX_SHUFFLES", 8)


def oracle_errors(features, labels, key, m, pairings):
    """Errors [pairings, blocks, k] of the blocks of one shuffle, one query at a time."""
    x, noise = features.astype(np.float64), np.asarray(jax.random.uniform(key, labels.shape))
    ranked = [np.flatnonzero(labels == c)[np.argsort(noise[labels == c])] for c in range(len(m))]
    blocks = min(len(rows) // (shots + 1) for rows, shots in zip(ranked, m, strict=True))
    errors = np.zeros((pairings, blocks, len(m)))
    for t in range(pairings):
        for b in range(blocks):
            starts = [b * (shots + 1) for shots in m]
            centers = [x[r[s : s + shots]].mean(axis=0) for r, s, shots in zip(ranked, starts, m, strict=True)]
            for c, rows in enumerate(ranked):
                query = x[rows[(b + t) % blocks * (m[c] + 1) + m[c]]]
                distances = [np.sum((query - center) ** 2) for center in centers]
                errors[t, b, c] = any(distances[j] <= distances[c] for j in range(len(m)) if j != c)
    return errors


@pytest.mark.parametrize("m", [(4, 4, 4), (1, 6, 3)])
def test_blocks_match_a_loop(m):
    features, labels = clusters(seed=0)
    keys = jax.random.split(jax.random.key(1), 3)
    blocks = 30 // (max(m) + 1)
    actual = module.block_errors(
        jnp.asarray(features), jnp.asarray(labels, jnp.int32), np.array(m), blocks, nearest_center, keys
    )
    expected = np.concatenate([oracle_errors(features, labels, key, m, min(blocks, 16)) for key in keys])
    np.testing.assert_array_equal(actual, expected)
    assert 0.02 < actual.mean() < 0.9


@pytest.mark.parametrize("apart", [0.3, 0.003])  # two classes are so close that a product would round their distance
def test_errors_of_many_classes_are_those_of_their_differences(apart):
    features, labels = clusters(seed=3, k=70, n=9, d=40, distance=0.9)
    rng = np.random.default_rng(0)
    pair = labels < 2
    step = apart * rng.normal(size=40)
    features[pair] = 5 + labels[pair, None] * step + 3 * apart * rng.normal(size=(pair.sum(), 40))
    keys = jax.random.split(jax.random.key(1), 2)
    m = np.full(70, 2)
    actual = module.block_errors(jnp.asarray(features), jnp.asarray(labels, jnp.int32), m, 3, nearest_center, keys)
    expected = np.concatenate([oracle_errors(features, labels, key, m, 3) for key in keys])
    np.testing.assert_array_equal(actual, expected)
    assert 0 < actual[..., :2].mean() < 1
    assert 0.02 < actual.mean() < 0.9


def test_bounds_are_those_of_the_blocks_errors(monkeypatch):
    features, labels = clusters(seed=1)
    kept = []  # of every call
    errors = module.block_errors
    monkeypatch.setattr(module, "block_errors", lambda *args: kept.append(errors(*args)) or kept[-1])
    actual = guarantee(features, labels, 3, [2], confidence=0.9, per_class=True)
    values = np.concatenate(kept)
    assert values.shape[1:] == (10, 3)
    expected = betting.bounds(values.mean(axis=2, dtype=np.float64), 1 - 0.9, spread=1 / 3)
    np.testing.assert_allclose([actual.lower[0], actual.upper[0]], expected)
    expected = [betting.bounds(values[:, :, c].astype(np.float64), 1 - 0.9) for c in range(3)]
    np.testing.assert_allclose(np.stack([actual.per_class_lower[0], actual.per_class_upper[0]], axis=1), expected)
    np.testing.assert_allclose(actual.error[0], values.mean())


def test_bounds_surround_the_measured_error():
    features, labels = clusters(seed=2, n=100)
    actual = guarantee(features, labels, 3, [1, 5, 20], per_class=True)
    measured = few_shot_error(jax.random.key(0), features, labels, [1, 5, 20], repeats=50, num_classes=3)
    np.testing.assert_allclose(actual.error, measured.mean, atol=0.04)
    assert np.all((actual.lower < measured.mean) & (measured.mean < actual.upper))
    assert np.all((actual.per_class_lower < measured.per_class) & (measured.per_class < actual.per_class_upper))
    np.testing.assert_array_equal(actual.blocks, [50, 16, 4])
    assert (actual.shots, actual.confidence) == ((1, 5, 20), 0.95)


def test_two_sided_bounds_are_one_sided_ones_at_half_the_risk():
    features, labels = clusters(seed=2)
    both = guarantee(features, labels, 3, [2], confidence=0.9, two_sided=True)
    one = guarantee(features, labels, 3, [2], confidence=0.95)
    np.testing.assert_allclose([both.lower, both.upper], [one.lower, one.upper], atol=1e-5)


def test_answer_depends_on_the_seed_alone_and_little(monkeypatch):
    monkeypatch.setattr(module, "_MAX_SHUFFLES", 64)
    features, labels = clusters(seed=3, n=60)
    first, again, other = (guarantee(features, labels, 3, [2], seed=seed) for seed in (0, 0, 1))
    assert (first.upper, first.lower) == (again.upper, again.lower)
    assert first.error != other.error
    assert abs(first.upper - other.upper) < 0.01


def test_equal_shots_for_each_class_are_shots_per_class():
    features, labels = clusters(seed=4)
    actual = guarantee(features, labels, 3, [3, (3, 3, 3)])
    assert actual.shots == (3, 3)
    assert actual.upper[0] == actual.upper[1]


def test_rare_classes_may_have_fewer_shots():
    features, labels = clusters(seed=4, n=60)
    kept = (labels != 2) | (np.cumsum(labels == 2) <= 12)
    actual = guarantee(features[kept], labels[kept], 3, [[11, 9, 1]])
    np.testing.assert_array_equal(actual.blocks, [5])


def test_ties_are_errors():
    features, labels = np.ones((24, 3), np.float32), np.repeat(np.arange(2), 12)
    actual = guarantee(features, labels, 2, [1, 3])
    np.testing.assert_array_equal(actual.error, [1, 1])
    np.testing.assert_array_equal(actual.upper, [1, 1])
    assert np.all(actual.lower > 0.2)


@pytest.mark.parametrize(("scale", "offset"), [(1e20, 0), (1e-20, 0), (1, 1e3)])
def test_scale_and_translation_do_not_matter(scale, offset):
    features, labels = clusters(seed=0)
    moved = guarantee(np.float64(features) * scale + offset, labels, 3, [2])
    still = guarantee(features, labels, 3, [2])
    np.testing.assert_allclose(moved.upper, still.upper, atol=0.01)


def test_a_far_class_makes_no_ties_of_the_others():
    rng = np.random.default_rng(0)
    features, labels = 0.3 * rng.normal(size=(60, 8)), np.arange(60) % 3
    features[labels == 1, 0] += 3
    features[labels == 2] += 1e4
    assert guarantee(features, labels, 3, [4]).error[0] == 0


def linear(support: jax.Array, taken: jax.Array, queries: jax.Array) -> jax.Array:
    k, m, d = support.shape
    chosen = taken.reshape(-1).astype(support.dtype)
    share = chosen / jnp.sum(chosen)
    x = support.reshape(-1, d)
    mean = share @ x
    scale = jnp.sqrt(share @ jnp.sum((x - mean[None]) ** 2, axis=1))
    strength, start = jnp.asarray(1e-3, x.dtype), LinearClassifier.zeros(d, k)
    classes = jnp.arange(k, dtype=jnp.int32)
    z, y = (x - mean[None]) / scale, jnp.repeat(classes, m)
    fit = fit_logistic(z, y, chosen, strength, start, tolerance=1e-4, max_iterations=100)
    scores = fit.classifier.scores((queries.reshape(-1, d) - mean[None]) / scale)
    return 1 - is_correct(scores, jnp.repeat(classes, queries.shape[1])).reshape(k, -1)


def test_another_rule():
    features, labels = clusters(seed=5, distance=2.0)
    ours, linears = (guarantee(features, labels, 3, [4], rule=rule) for rule in (nearest_center, linear))
    assert abs(ours.error[0] - linears.error[0]) < 0.1
    assert ours.error[0] != linears.error[0]


def test_a_rule_without_errors_in_the_unit_interval_is_refused():
    with pytest.raises(ValueError, match=r"rule must give errors in \[0, 1\]"):
        guarantee(*clusters(seed=5), 3, [4], rule=lambda s, t, q: jnp.full(q.shape[:2], jnp.nan))


def test_difference_of_an_encoder_and_its_noisy_copy():
    features, labels = clusters(seed=6, k=4, n=150, d=8)
    noisy = features + 0.3 * np.random.default_rng(0).normal(size=features.shape)
    actual = guaranteed_difference(noisy, features, labels, 4, [3])
    a, b = (guarantee(x, labels, 4, [3], two_sided=True) for x in (noisy, features))
    np.testing.assert_allclose(actual.difference, a.error - b.error, atol=0.02)
    assert actual.lower[0] < actual.difference[0] < actual.upper[0]
    assert actual.upper[0] - actual.lower[0] < a.upper[0] - b.lower[0] - (a.lower[0] - b.upper[0])
    np.testing.assert_array_equal(actual.blocks, [37])


def test_difference_of_a_good_and_a_bad_encoder_has_a_sign():
    features, labels = clusters(seed=6, k=4, n=150, d=8)
    bad = features + 3 * np.random.default_rng(0).normal(size=features.shape)
    assert guaranteed_difference(bad, features, labels, 4, [3]).lower[0] > 0
    assert guaranteed_difference(features, bad, labels, 4, [3]).upper[0] < 0


def test_difference_of_equal_encoders_surrounds_nothing():
    features, labels = clusters(seed=6)
    actual = guaranteed_difference(features, features, labels, 3, [1])
    assert actual.difference[0] == 0
    np.testing.assert_allclose(actual.lower, -actual.upper)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shots": [10]}, "class 0 has 30 samples, but a guarantee for 10 shots needs at least 33 .*at most 9 shots"),
        ({"shots": [[1, 1, 20]]}, "class 2 has 30 samples, but a guarantee for 20 shots needs at least 63"),
        ({"shots": [[1, 1]]}, "must be a positive integer, or one for each of 3 classes"),
        ({"shots": [0]}, r"shots=\[0\] must be a non-empty sequence of positive integers"),
        ({"shots": []}, "non-empty"),
        ({"confidence": 1.0}, r"confidence=1\.0"),
        ({"num_classes": 4}, "class 3 has 0 samples"),
        ({"features": np.full((90, 6), np.inf)}, "Inf"),
    ],
)
def test_errors_name_the_argument(changes, message):
    features, labels = clusters(seed=0)
    arguments = {"features": features, "labels": labels, "num_classes": 3, "shots": [1], **changes}
    with pytest.raises(ValueError, match=message):
        guarantee(**arguments)


@pytest.mark.parametrize("populations", [200, pytest.param(3000, marks=pytest.mark.slow)])
def test_coverage_where_the_truth_is_known(populations):
    """Two normal classes, eight samples each, one shot: the truth from 200,000 fresh episodes.

    A bound misses where the wealth reaches 1/delta at the truth itself.
    """
    rng, delta = np.random.default_rng(0), 0.2
    shift = np.array([[0.0, 0.0], [1.5, 0.0]])
    support, query = shift + rng.normal(size=(2, 200_000, 2, 2))
    distances = np.sum((query[:, :, None] - support[:, None]) ** 2, axis=3)
    truth = np.mean([distances[:, 0, 0] >= distances[:, 0, 1], distances[:, 1, 1] >= distances[:, 1, 0]])
    labels = np.repeat(np.arange(2), 8)
    missed = np.zeros(2)
    for key in jax.random.split(jax.random.key(0), populations):
        features = jnp.asarray(shift[labels] + rng.normal(size=(16, 2)), jnp.float32)
        errors = module.block_errors(
            features, jnp.asarray(labels), np.array([1, 1]), 4, nearest_center, jax.random.split(key, 2)
        ).mean(axis=2, dtype=np.float64)
        for side, (x, mean) in enumerate([(errors, truth), (1 - errors, 1 - truth)]):
            missed[side] += betting._log_mean_wealth(x, betting._stakes(x, delta, 0.5), mean)[0] >= -np.log(delta)
    assert np.all(missed / populations <= delta)
