import numpy as np
import pytest

from dnc.geometry.spectrum import alpha_req, effective_rank, lidar, participation_ratio, rankme, singular_values


def entropy_rank(weights):
    p = np.asarray(weights, np.float64) / np.sum(weights)
    p = p[p > 0]
    return np.exp(-(p * np.log(p)).sum())


def sample(n=200, d=12, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.exponential(size=(n, d)) * np.geomspace(1, 0.01, d) + 3).astype(np.float32)


@pytest.mark.parametrize("shape", [(200, 12), (8, 20)])
def test_match_float64_definitions(shape):
    x = sample(*shape)
    raw = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    wide = x.astype(np.float64) - x.astype(np.float64).mean(axis=0)
    eigenvalues = np.linalg.svd(wide, compute_uv=False) ** 2
    assert rankme(x) == pytest.approx(entropy_rank(raw), rel=1e-5)
    assert effective_rank(x) == pytest.approx(entropy_rank(eigenvalues), rel=1e-5)
    assert participation_ratio(x) == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rel=1e-5)


def with_spectrum(values, n=400):
    """Features whose centered singular values are exactly these."""
    rng = np.random.default_rng(3)
    d = len(values)
    basis = np.linalg.qr(np.column_stack([np.ones(n), rng.normal(size=(n, d))]))[0][:, 1:]
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (basis * values @ rotation).astype(np.float32)


def test_equal_eigenvalues_have_full_rank_and_one_direction_rank_one():
    for measure in (effective_rank, participation_ratio):
        assert measure(with_spectrum(np.full(7, 2.0))) == pytest.approx(7, rel=1e-5)
    assert rankme(np.outer(np.arange(1, 9), [1.0, 2.0, 3.0]).astype(np.float32)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_req_recovers_a_power_law(alpha):
    x = with_spectrum(np.arange(1, 33) ** (-alpha / 2))
    assert alpha_req(x) == pytest.approx(alpha, rel=1e-4)
    assert alpha_req(x, first=3, last=20) == pytest.approx(alpha, rel=1e-4)


def test_alpha_req_ignores_directions_without_variance_and_needs_two_ranks():
    x = with_spectrum(np.r_[np.arange(1, 17) ** -0.5, np.zeros(5)])
    assert alpha_req(x) == pytest.approx(1, rel=1e-3)
    assert np.isnan(alpha_req(sample(), first=2, last=2))


@pytest.mark.parametrize("measure", [rankme, effective_rank, participation_ratio, alpha_req])
def test_rotation_and_scale_change_nothing(measure):
    x = sample(seed=4)
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(12, 12)))[0]
    assert measure((100 * x @ rotation).astype(np.float32)) == pytest.approx(float(measure(x)), rel=1e-3)


def test_small_singular_values_survive_an_offset():
    x = with_spectrum(np.array([1.0, 1e-3]))
    np.testing.assert_allclose(singular_values(x + np.float32(4)), [1, 1e-3], rtol=1e-2)


def lidar_oracle(views):
    n, q, d = views.shape
    x = views.astype(np.float64)
    means = x.mean(axis=1)
    r = (x - means[:, None]).reshape(-1, d)
    within = r.T @ r / (n * q)
    within += 1e-4 * np.trace(within) / d * np.eye(d)
    between = np.cov(means.T, bias=True)
    values, vectors = np.linalg.eigh(within)
    root = vectors / np.sqrt(values) @ vectors.T
    return entropy_rank(np.linalg.eigvalsh(root @ between @ root))


def test_lidar_matches_explicit_matrices():
    rng = np.random.default_rng(6)
    centers = rng.normal(size=(60, 1, 8)) * np.geomspace(3, 0.1, 8)
    views = (centers + rng.normal(size=(60, 5, 8)) * np.geomspace(0.1, 1, 8)).astype(np.float32)
    assert lidar(views) == pytest.approx(lidar_oracle(views), rel=1e-4)
    assert lidar(10 * views + 5) == pytest.approx(lidar_oracle(views), rel=1e-3)
