import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc.few_shot import measured as ncc
from dnc.few_shot.measured import few_shot_error
from dnc.geometry import sizes
from tests import oracles_certificates as oracles

SHOTS = (1, 3, 10)


def clusters(seed: int, k: int = 4, n: int = 30, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(k * n)
    features = (1.5 * rng.normal(size=(k, 1, d)) + rng.normal(size=(k, n, d))).reshape(k * n, d)
    return features[order].astype(np.float32), np.repeat(np.arange(k), n)[order]


def test_matches_a_loop_over_the_same_supports():
    features, labels = clusters(seed=0)
    key = jax.random.key(3)
    actual = few_shot_error(key, features, labels, SHOTS, repeats=3, num_classes=4)
    expected = []
    for draw in jax.random.split(key, 3):
        noise = np.asarray(jax.random.uniform(draw, labels.shape))
        ranked = [np.flatnonzero(labels == c)[np.argsort(noise[labels == c])] for c in range(4)]
        expected.append([oracles.few_shot_error(features, labels, [r[:m] for r in ranked]) for m in SHOTS])
    np.testing.assert_allclose(actual.per_pair, np.mean(expected, axis=0), atol=1e-6)


def test_summaries_agree():
    features, labels = clusters(seed=1)
    actual = few_shot_error(jax.random.key(0), features, labels, SHOTS, repeats=3, num_classes=4)
    per_class, per_pair = np.asarray(actual.per_class), np.asarray(actual.per_pair)
    np.testing.assert_allclose(actual.mean, per_class.mean(axis=1), rtol=1e-5)
    assert np.all(per_pair.max(axis=2) <= per_class + 1e-6)
    assert np.all(per_class <= per_pair.sum(axis=2) + 1e-6)
    assert actual.mean[0] > actual.mean[2] > 0
    assert actual.shots == SHOTS


def test_every_sample_outside_the_support_is_a_query():
    """Two classes of three points on opposite sides, all classified correctly except one that lies among the others."""
    features = np.array([[-10.0], [-10.0], [11.0], [10.0], [10.0], [10.0]])
    labels = np.array([0, 0, 0, 1, 1, 1])
    keys = [jax.random.key(seed) for seed in range(12)]
    errors = {tuple(few_shot_error(key, features, labels, [2], 1, 2).per_class[0].tolist()) for key in keys}
    # The stray is the query (error 1), or in the support: centroid at 0.5, and -10 is nearer to it than to 10.
    assert errors == {(1.0, 0.0), (0.0, 0.0)}


def test_queries_can_be_fewer():
    """Of each class, those that follow the largest support: the same as a loop over these alone."""
    features, labels = clusters(seed=0)
    key = jax.random.key(3)
    actual = few_shot_error(key, features, labels, SHOTS, repeats=3, num_classes=4, queries=2)
    expected = []
    for draw in jax.random.split(key, 3):
        noise = np.asarray(jax.random.uniform(draw, labels.shape))
        ranked = [np.flatnonzero(labels == c)[np.argsort(noise[labels == c])] for c in range(4)]
        few = []
        for m in SHOTS:
            rows = np.concatenate([np.append(r[:m], r[max(SHOTS) : max(SHOTS) + 2]) for r in ranked])
            support = np.arange(4)[:, None] * (m + 2) + np.arange(m)
            few.append(oracles.few_shot_error(features[rows], labels[rows], list(support)))
        expected.append(few)
    np.testing.assert_allclose(actual.per_pair, np.mean(expected, axis=0), atol=1e-6)
    assert actual.queries == 2


def test_many_classes_take_fewer_queries_whatever_the_features(monkeypatch):
    features, labels = clusters(seed=0)
    monkeypatch.setattr(ncc, "_DISTANCES", 3 * 3 * 4 * 12)  # repeats, entries, classes, samples
    narrow, wide = (few_shot_error(jax.random.key(0), x, labels, SHOTS, 3, 4) for x in (features[:, :2], features))
    assert narrow.queries == wide.queries == 3


def test_ties_are_errors():
    features, labels = np.ones((8, 3), np.float32), np.repeat(np.arange(2), 4)
    actual = few_shot_error(jax.random.key(0), features, labels, [1, 3], repeats=2, num_classes=2)
    np.testing.assert_array_equal(actual.mean, [1, 1])
    np.testing.assert_array_equal(actual.std, [0, 0])


def test_support_and_query_are_disjoint():
    """Samples in a simplex: a query that was its own support would be correct, any other is tied or wrong."""
    features, labels = np.eye(12, dtype=np.float32), np.repeat(np.arange(3), 4)
    actual = few_shot_error(jax.random.key(0), features, labels, [1], repeats=4, num_classes=3)
    np.testing.assert_array_equal(actual.mean, [1])


def test_error_depends_on_the_key_alone():
    features, labels = clusters(seed=2)
    run = lambda seed: few_shot_error(jax.random.key(seed), features, labels, SHOTS, 3, 4)  # noqa: E731
    np.testing.assert_array_equal(run(0).per_pair, run(0).per_pair)
    assert np.any(run(0).per_pair != run(1).per_pair)


@pytest.mark.parametrize(("scale", "offset"), [(1e20, 0), (1e-20, 0), (1, 1e3)])
def test_scale_and_translation_do_not_matter(scale, offset):
    features, labels = clusters(seed=0)
    moved = few_shot_error(jax.random.key(0), np.float64(features) * scale + offset, labels, SHOTS, 3, 4)
    still = few_shot_error(jax.random.key(0), features, labels, SHOTS, 3, 4)
    np.testing.assert_allclose(moved.per_class, still.per_class, atol=0.02)


def test_blocks_of_samples_equal_one_block(monkeypatch):
    features, labels = clusters(seed=0)
    everyone = jnp.ones((3, 4), bool)
    shots = jnp.tile(jnp.asarray(SHOTS)[:, None], (1, 4))
    arguments = (jax.random.split(jax.random.key(0), 3), jnp.asarray(features), jnp.asarray(labels), everyone, shots)
    settings = {"largest": max(SHOTS), "queries": None}
    expected = ncc._measure(*arguments, **settings)
    few = dataclasses.replace(sizes.CPU, elements=250)  # 120 samples: blocks of 40
    monkeypatch.setattr(sizes, "CPU", few)
    actual = jax.jit(lambda *a: ncc._measure.__wrapped__(*a, **settings))(*arguments)
    jax.tree.map(lambda blocked, whole: np.testing.assert_allclose(blocked, whole, atol=1e-6), actual, expected)


def test_unequal_shots_are_the_nested_supports_of_each_class():
    """As many shots of every class give the same draws; more of one class lower its error and raise the others'."""
    features, labels = clusters(seed=0)
    found = few_shot_error(jax.random.key(0), features, labels, [2, [2, 2, 2, 2], [20, 2, 2, 2]], 40, 4)
    np.testing.assert_array_equal(found.per_class[0], found.per_class[1])
    assert found.per_class[2, 0] < found.per_class[0, 0]
    assert found.shots == (2, 2, (20, 2, 2, 2))
    with pytest.raises(ValueError, match=r"class 3 has \d+ samples, but 500 shots"):
        few_shot_error(jax.random.key(0), features, labels, [[1, 1, 1, 500]], 2, 4)


def test_unequal_classes_weigh_the_same():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 50 + [1] * 12)
    features = (labels[:, None] + rng.normal(size=(62, 3))).astype(np.float32)
    actual = few_shot_error(jax.random.key(0), features, labels, [11], repeats=5, num_classes=2)
    np.testing.assert_allclose(actual.mean, jnp.mean(actual.per_class, axis=1), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shots": [30]}, "class 0 has 30 samples, but 30 shots need at least 31"),
        ({"num_classes": 5}, "class 4 has 0 samples"),
        ({"num_classes": 3}, r"labels range over 0\.\.3"),
        ({"shots": [0, 1]}, r"shots=\[0, 1\] must be a non-empty sequence of positive integers"),
        ({"repeats": 0}, "repeats=0"),
        ({"features": np.full((120, 6), np.nan)}, "NaN"),
        ({"labels": np.repeat(["a", "b", "c", "d"], 30)}, "labels"),
    ],
)
def test_errors_name_the_argument(changes, message):
    features, labels = clusters(seed=0)
    arguments = {"features": features, "labels": labels, "shots": SHOTS, "repeats": 2, "num_classes": 4, **changes}
    with pytest.raises(TypeError if "labels" in changes else ValueError, match=message):
        few_shot_error(jax.random.key(0), **arguments)


EPISODES = clusters(seed=1, k=5)


def test_episodes_of_all_classes_are_the_whole_task():
    whole, episodes = (few_shot_error(jax.random.key(0), *EPISODES, [1, 5], 7, 5, ways) for ways in (None, 5))
    np.testing.assert_array_equal(whole.mean, episodes.mean)
    np.testing.assert_array_equal(episodes.episodes, np.tile(np.arange(5), (7, 1)))


def test_an_episode_of_two_classes_is_the_pairs_error():
    for seed in range(5):
        error = few_shot_error(jax.random.key(seed), *EPISODES, [1, 5], 1, 5, ways=2)
        i, j = np.asarray(error.episodes[0])
        pair = (error.per_pair[:, i, j] + error.per_pair[:, j, i]) / 2
        np.testing.assert_allclose(error.mean, pair, rtol=1e-6)
        assert np.isnan(np.delete(np.asarray(error.per_class), [i, j], axis=1)).all()


def test_fewer_rivals_never_add_errors():
    for seed in range(5):
        few, all_of_them = (few_shot_error(jax.random.key(seed), *EPISODES, [3], 1, 5, ways) for ways in (3, None))
        chosen = np.asarray(few.episodes[0])
        assert len(set(chosen.tolist())) == 3
        assert np.all(few.per_class[0, chosen] <= all_of_them.per_class[0, chosen])


@pytest.mark.parametrize("ways", [1, 6])
def test_impossible_ways_are_refused(ways):
    with pytest.raises(ValueError, match="between 2 and num_classes=5"):
        few_shot_error(jax.random.key(0), *EPISODES, [3], 1, 5, ways)


@pytest.mark.parametrize("distance", [1e2, 1e4])
def test_a_far_class_makes_no_ties_of_the_others(distance):
    """Classes 3 apart, clouds of .3, and one class far away: nothing is misclassified."""
    rng = np.random.default_rng(0)
    features, labels = 0.3 * rng.normal(size=(300, 8)), np.arange(300) % 3
    features[labels == 1, 0] += 3
    features[labels == 2] += distance
    assert few_shot_error(jax.random.key(0), features, labels, [5], repeats=3, num_classes=3).mean[0] == 0
