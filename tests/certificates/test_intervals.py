import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc.certificates.exact import exact_cantelli
from dnc.certificates.intervals import bootstrap, resampled
from dnc.geometry.measure import pair_geometry
from dnc.geometry.pairs import mean_over_pairs
from tests.samples import clusters


def collapse(geometry):
    return {"directional": mean_over_pairs(geometry.directional_cdnv), "cdnv": mean_over_pairs(geometry.cdnv)}


def cantelli(geometry):
    return exact_cantelli(geometry, jnp.array([5.0, 50.0])).bound


def test_every_class_draws_its_own_number_of_samples(key):
    _, labels = clusters(seed=0, n=200, k=4, d=3)
    weights = np.asarray(jax.vmap(lambda draw: resampled(draw, labels, 4))(jax.random.split(key, 400)))
    for c in range(4):
        np.testing.assert_array_equal(weights[:, labels == c].sum(axis=1), (labels == c).sum())
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.25)  # 5 standard errors of a Poisson count
    assert np.all(weights == np.rint(weights))


def test_one_replicate_is_the_geometry_of_the_drawn_samples(key):
    features, labels = clusters(seed=0, n=200, k=4, d=3)
    interval = bootstrap(key, features, labels, 4, collapse, replicates=1)
    times = np.asarray(resampled(jax.random.split(key, 1)[0], labels, 4)).astype(int)
    drawn = collapse(pair_geometry(np.repeat(features, times, axis=0), np.repeat(labels, times), 4))
    estimate = collapse(pair_geometry(features, labels, 4))
    for name, value in drawn.items():
        np.testing.assert_allclose(interval.estimate[name], estimate[name], rtol=1e-5)
        np.testing.assert_allclose(interval.low[name], 2 * estimate[name] - value, rtol=1e-4)
        np.testing.assert_allclose(interval.high[name], interval.low[name], rtol=1e-5)


def population():
    """A function that draws features and labels of some samples of each of its three classes."""
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.5, 1.5, (3, 6))
    center = 1.5 * rng.normal(size=(3, 6))

    def sample(size):
        labels = np.arange(3 * size) % 3
        return (center[labels] + spread[labels] * rng.normal(size=(3 * size, 6))).astype(np.float32), labels

    return sample


@pytest.mark.parametrize(
    ("statistic", "leaf"), [(collapse, "directional"), pytest.param(cantelli, None, marks=pytest.mark.slow)]
)
def test_intervals_cover_the_truth(statistic, leaf):
    """Of 95% intervals over fresh samples, most hold the value of the population (a large sample)."""
    sample = population()
    truth = statistic(pair_geometry(*sample(100_000), 3))
    truth = np.asarray(truth[leaf] if leaf else truth)
    hits = []
    for seed in range(60):
        interval = bootstrap(jax.random.key(seed), *sample(60), 3, statistic, replicates=100)
        low, high = (end[leaf] if leaf else end for end in (interval.low, interval.high))
        hits.append((low <= truth) & (truth <= high))
    assert 0.85 <= np.mean(hits) <= 1.0


def test_more_samples_narrow_the_interval(key):
    sample = population()
    few, many = (bootstrap(key, *sample(size), 3, collapse, replicates=100) for size in (60, 960))
    assert many.high["cdnv"] - many.low["cdnv"] < (few.high["cdnv"] - few.low["cdnv"]) / 2
