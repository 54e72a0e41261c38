"""Support and query drawn independently from the sample whose moments are taken: every certificate must hold."""

import numpy as np
import pytest

from dnc.certificates import certificate
from dnc.certificates.bounds import NOT_CERTIFICATES, available
from dnc.geometry.measure import pair_geometry
from tests import oracles_certificates as oracles
from tests.samples import stacked

SHOTS = [1, 2, 5, 10, 40]
NOISES = {
    "gaussian": lambda rng, size: rng.normal(size=size),
    "skewed": lambda rng, size: rng.lognormal(sigma=1.0, size=size),
    "heavy-tailed": lambda rng, size: rng.standard_t(2.1, size=size),
    "clustered": lambda rng, size: rng.choice([-1.0, 1.0], size=size) + 0.1 * rng.normal(size=size),
    "rare outliers": lambda rng, size: 10 * (rng.random(size) < 0.03) + 0.05 * rng.normal(size=size),
}


def random_classes(rng: np.random.Generator, noise: str, k: int, n: int, d: int) -> list[np.ndarray]:
    """Classes of unequal spread and shape, from well separated to hopeless."""
    separation = 10.0 ** rng.uniform(-0.5, 1.2)
    directions = rng.normal(size=(k, d, d)) * np.geomspace(1, 10.0 ** -rng.uniform(0, 2), d)
    spread = np.exp(rng.normal(size=k) * rng.uniform(0, 1))
    return [
        (separation * rng.normal(size=d) + spread[c] * NOISES[noise](rng, (n, d)) @ directions[c]).astype(np.float32)
        for c in range(k)
    ]


def assert_certificates_hold(rng: np.random.Generator, classes: list[np.ndarray], draws: int) -> None:
    """Measured errors of classes and ordered pairs lie below every certificate, up to 5 standard errors."""
    geometry = pair_geometry(*stacked(classes), len(classes))
    certificates = [certificate(name, geometry, SHOTS) for name in set(available(geometry)) - NOT_CERTIFICATES]
    for s, m in enumerate(SHOTS):
        per_class, per_pair = oracles.sampled_errors(rng, classes, m, draws)
        for value in certificates:
            if not value.valid[s]:
                continue
            for error, bound in [(per_class, value.per_class[s]), (per_pair, value.per_pair[s])]:
                slack = 5 * np.sqrt(error * (1 - error) / draws) + 1e-6
                assert np.all(error <= bound + slack), (value.name, m, error, bound)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("seed", range(2))
def test_measured_error_is_never_above_a_certificate(noise, seed):
    rng = np.random.default_rng(seed)
    assert_certificates_hold(rng, random_classes(rng, noise, k=4, n=60, d=5), draws=2000)


@pytest.mark.slow
@pytest.mark.parametrize("k", range(2, 11))
def test_measured_error_is_never_above_a_certificate_for_many_problems(k):
    rng = np.random.default_rng(k)
    for _ in range(5):
        for noise in NOISES:
            assert_certificates_hold(rng, random_classes(rng, noise, k=k, n=60, d=5), draws=4000)


def test_cantelli_is_nearly_attained_by_the_worst_distribution():
    """Many shots, and a query class with one far outlier in 20: the error is just below the certificate."""
    outlier, rest = np.full((1, 1), 1.05), np.zeros((19, 1))
    query = np.concatenate([outlier, rest])
    query = (query - query.mean()).astype(np.float32)
    other = np.full((20, 1), 1.99 * query.max(), dtype=np.float32)
    geometry = pair_geometry(*stacked([query, other]), 2)
    bound = certificate("exact_cantelli", geometry, [10**6]).per_class[0, 0]
    assert 0.05 < bound < 0.051
