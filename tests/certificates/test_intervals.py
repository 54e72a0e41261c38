import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dnc.certificates.exact import exact_cantelli
from dnc.certificates.intervals import dealt, jackknife
from dnc.geometry.measure import pair_geometry
from dnc.geometry.pairs import mean_over_pairs
from tests.samples import clusters


def collapse(geometry):
    return {"directional": mean_over_pairs(geometry.directional_cdnv), "cdnv": mean_over_pairs(geometry.cdnv)}


def cantelli(geometry):
    return exact_cantelli(geometry, jnp.array([5.0, 50.0])).bound


def test_every_class_is_dealt_out_evenly(key):
    _, labels = clusters(seed=0, n=200, k=4, d=3)
    group = np.asarray(dealt(key, labels, 4, 7))
    for c in range(4):
        sizes = np.bincount(group[labels == c], minlength=7)
        assert sizes.max() - sizes.min() <= 1
    assert np.any(np.diff(group[labels == 0]) != 1)  # shuffled


def test_is_the_jackknife_of_the_samples_left(key):
    features, labels = clusters(seed=0, n=200, k=4, d=3)
    interval = jackknife(key, features, labels, 4, collapse, groups=3)
    group = np.asarray(dealt(key, labels, 4, 3))
    whole = collapse(pair_geometry(features, labels, 4))
    without = [collapse(pair_geometry(features[group != g], labels[group != g], 4)) for g in range(3)]
    for name, value in whole.items():
        left = np.array([float(values[name]) for values in without])
        estimate, deviation = 3 * value - 2 * left.mean(), np.sqrt(2 / 3 * np.sum((left - left.mean()) ** 2))
        np.testing.assert_allclose(interval.estimate[name], estimate, rtol=1e-4)
        np.testing.assert_allclose(interval.deviation[name], deviation, rtol=1e-3)
        half = stats.t.ppf(0.975, 2) * deviation
        np.testing.assert_allclose(interval.high[name] - interval.low[name], 2 * half, rtol=1e-3)


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
        interval = jackknife(jax.random.key(seed), *sample(60), 3, statistic)
        low, high = (end[leaf] if leaf else end for end in (interval.low, interval.high))
        hits.append((low <= truth) & (truth <= high))
    assert 0.85 <= np.mean(hits) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("size", "gap", "least"), [(30, 2.0, 0.9), (200, 1.0, 0.93)])
def test_intervals_cover_collapse_measures_of_small_samples(size, gap, least):
    """d = 128, clouds of standard deviation 1/2 around five equidistant means: plug-in values are off by 1.3 to 1.6."""
    rng = np.random.default_rng(0)
    labels, means = np.arange(5 * size) % 5, gap / np.sqrt(2) * np.eye(5, 128)
    true = {"cdnv": 2 * 128 * 0.25 / gap**2, "directional": 0.25 / gap**2}

    def corrected(geometry):
        return jax.tree.map(jnp.log, collapse(geometry.with_corrected_distances()))

    hits = []
    for seed in range(100):
        features = (means[labels] + rng.normal(size=(5 * size, 128)) / 2).astype(np.float32)
        interval = jackknife(jax.random.key(seed), features, labels, 5, corrected, overlap="exact")
        hits.append([interval.low[name] <= np.log(value) <= interval.high[name] for name, value in true.items()])
    assert np.all(np.mean(hits, axis=0) >= least)


def test_more_samples_narrow_the_interval(key):
    sample = population()
    few, many = (jackknife(key, *sample(size), 3, collapse) for size in (60, 960))
    assert many.high["cdnv"] - many.low["cdnv"] < (few.high["cdnv"] - few.low["cdnv"]) / 2
