import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize, stats
from sklearn.covariance import ledoit_wolf

from dnc.probes.transferability import gbc, h_score, logme, sfda, transferability_scores, transrate
from tests.samples import clusters

K = 3
SCORES = {
    "logme": logme,
    "h_score": h_score,
    "transrate": transrate,
    "transrate, unscaled": lambda *sample: transrate(*sample, scaled=False),
    "gbc": gbc,
    "gbc, diagonal": lambda *sample: gbc(*sample, spherical=False),
    "sfda": sfda,
}
every_score = pytest.mark.parametrize("name", SCORES)
every_shape = pytest.mark.parametrize("shape", [(40, 6), (15, 30)], ids=["tall", "wide"])


def sample(shape=(40, 6), scale=1.0):
    n, d = shape
    features, labels = clusters(n=n, k=K, d=d)
    return scale * np.float64(features), labels


def split(features, labels):
    return [features[labels == c] for c in range(labels.max() + 1)]


def covariance(z):
    r = z - z.mean(axis=0)
    return r.T @ r / len(z)


# LogME


def maximal_evidence(features, y):
    """By a general optimizer, of the explicit [n, n] density."""
    n = len(y)

    def negative(logarithms):
        alpha, beta = np.exp(np.clip(logarithms, -30, 30))
        matrix = features @ features.T / alpha + np.eye(n) / beta
        sign, logdet = np.linalg.slogdet(matrix)
        assert sign > 0
        return (n * np.log(2 * np.pi) + logdet + y @ np.linalg.solve(matrix, y)) / (2 * n)

    starts = [(alpha, beta) for alpha in (-2, 2, 6) for beta in (0, 3)]
    options = {"xatol": 1e-8, "fatol": 1e-13, "maxiter": 5000}
    found = [optimize.minimize(negative, start, method="Nelder-Mead", options=options) for start in starts]
    return -min(result.fun for result in found)


@pytest.mark.parametrize("scale", [0.01, 100])
@every_shape
def test_logme_is_the_maximum_of_the_explicit_density(shape, scale):
    features, labels = sample(shape, scale)
    if shape == (40, 6):
        features[:, 5] = features[:, 4]  # rank 5
    expected = np.mean([maximal_evidence(features / scale, np.float64(labels == c)) for c in range(K)])
    assert logme(features, labels, K) == pytest.approx(expected, rel=1e-8)


def test_logme_of_zeros_is_the_evidence_of_noise_alone():
    """The best beta is n over the sum of y^2: here 2 of 6 in each class, so 1/beta = 1/3."""
    expected = stats.norm(0, np.sqrt(1 / 3)).logpdf([1, 1, 0, 0, 0, 0]).mean()
    assert logme(np.zeros((6, 2)), np.array([0, 1, 2, 0, 1, 2]), 3) == pytest.approx(expected)


def test_logme_of_features_that_determine_the_labels_is_finite_and_large():
    features, labels = sample()
    assert logme(features, labels, K) < 0 < 9 < logme(np.eye(K)[labels], labels, K) < 15


# H-score


@every_shape
def test_h_score_from_explicit_matrices(shape):
    features, labels = sample(shape)
    n, d = shape
    z = features - features.mean(axis=0)
    sigma = covariance(features)
    target = np.trace(sigma) / d * np.eye(d)
    noise = sum(np.sum((np.outer(row, row) - sigma) ** 2) for row in z) / n**2
    shrinkage = min(noise / np.sum((sigma - target) ** 2), 1)
    assert shrinkage == pytest.approx(ledoit_wolf(features)[1])
    assert 0 < shrinkage < 1
    shrunk = (1 - shrinkage) * sigma + shrinkage * target
    between = sum(len(x) / n * np.outer(m, m) for x in split(z, labels) for m in [x.mean(axis=0)])
    expected = np.trace(np.linalg.solve(shrunk, (1 - shrinkage) * between))
    assert h_score(features, labels, K) == pytest.approx(expected, rel=1e-9)


def test_h_score_on_a_line_is_the_share_of_variance_between_classes():
    """Means 0 and 4, variance 1 in each class: 4 between, 5 in all, and one dimension is not shrunk."""
    assert h_score(np.array([[-1.0], [1], [3], [5]]), np.array([0, 0, 1, 1]), 2) == pytest.approx(0.8)


def test_h_score_leaves_out_directions_without_variance():
    line = np.array([[-1.0], [1], [3], [5]])
    twice = np.hstack([line, line[[0, 1, 1, 0]]])
    constant = np.hstack([twice, np.full((4, 1), 0.1)])
    assert 0 < h_score(constant, np.array([0, 0, 1, 1]), 2) <= 1


# TransRate


def rate(z, epsilon):
    return np.linalg.slogdet(np.eye(z.shape[1]) + z.T @ z / (len(z) * epsilon))[1] / 2


@pytest.mark.parametrize("epsilon", [1e-4, 0.1])
@pytest.mark.parametrize("scaled", [True, False])
@every_shape
def test_transrate_is_a_difference_of_coding_rates(shape, scaled, epsilon):
    features, labels = sample(shape, scale=3)
    z = features - features.mean(axis=0)
    z /= np.sqrt(np.trace(covariance(z))) if scaled else 1
    expected = rate(z, epsilon) - sum(len(x) / len(z) * rate(x, epsilon) for x in split(z, labels))
    assert transrate(features, labels, K, epsilon=epsilon, scaled=scaled) == pytest.approx(expected, rel=1e-9)


def test_transrate_of_classes_on_two_axes():
    """Z = (+-1, 0) in one class and (0, +-1) in the other: R = log(1 + 1/(2 e)), of each class log(1 + 1/e) / 2."""
    corners = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    expected = np.log(1 + 1 / 0.02) - np.log(1 + 1 / 0.01) / 2
    assert transrate(corners, np.array([0, 0, 1, 1]), 2, epsilon=0.01) == pytest.approx(expected)


def test_transrate_of_two_collapsed_classes_is_zero():
    """The mean of all samples, not the class's, is taken off: both classes are as long as all samples."""
    assert transrate(np.array([[1.0], [1], [5], [5]]), np.array([0, 0, 1, 1]), 2) == pytest.approx(0, abs=1e-12)


# GBC


@pytest.mark.parametrize("spherical", [True, False])
def test_gbc_on_a_line_is_the_integral_of_two_densities(spherical):
    classes = [np.array([0.0, 1, 2, 5]), np.array([3.0, 3.5, 4.5])]
    densities = [stats.norm(x.mean(), x.std()).pdf for x in classes]
    overlap, _ = integrate.quad(lambda x: np.sqrt(densities[0](x) * densities[1](x)), -30, 30, epsabs=1e-12)
    features, labels = np.concatenate(classes)[:, None], np.array([0, 0, 0, 0, 1, 1, 1])
    assert gbc(features, labels, 2, spherical=spherical) == pytest.approx(-2 * overlap, rel=1e-8)


def bhattacharyya(mean, other_mean, covariance, other_covariance):
    pooled, difference = (covariance + other_covariance) / 2, mean - other_mean
    determinants = [np.linalg.slogdet(matrix)[1] for matrix in (pooled, covariance, other_covariance)]
    mahalanobis = difference @ np.linalg.solve(pooled, difference)
    return mahalanobis / 8 + (determinants[0] - determinants[1] / 2 - determinants[2] / 2) / 2


@pytest.mark.parametrize("spherical", [True, False])
@pytest.mark.parametrize("shape", [(60, 5), (300, 80)], ids=["all components", "64 of 80"])
def test_gbc_from_explicit_gaussians(shape, spherical):
    features, labels = sample(shape)
    centered = features - features.mean(axis=0)
    components = np.linalg.svd(centered, full_matrices=False)[2][:64]
    classes = split(centered @ components.T, labels)
    variances = [x.var(axis=0) for x in classes]
    matrices = [np.diag(np.full_like(v, v.mean()) if spherical else v) for v in variances]
    expected = 0.0
    for i in range(K):
        for j in range(K):
            if i != j:
                distance = bhattacharyya(classes[i].mean(axis=0), classes[j].mean(axis=0), matrices[i], matrices[j])
                expected -= np.exp(-distance)
    assert gbc(features, labels, K, spherical=spherical) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("tiny", [0.0, 1e-12])
def test_gbc_of_a_class_with_a_tiny_variance_counts_the_least(tiny):
    """-+1 against a point at 0: variances 1 and 0, and 1/2 of all samples, of which 1e-4 is the least."""
    features = np.array([[-1.0], [1], [-tiny], [tiny]])
    pooled = (1 + 0.5e-4) / 2
    expected = -2 * np.exp(-np.log(pooled / np.sqrt(0.5e-4)) / 2)
    assert gbc(features, np.array([0, 0, 1, 1]), 2) == pytest.approx(expected)


# SFDA


def posteriors(features, labels, shrinkage=None):
    classes = split(features, labels)
    within = sum(len(x) / len(features) * covariance(x) for x in classes)
    if shrinkage is None:
        shrinkage = max(np.exp(-5 * np.linalg.eigvalsh(within)[-1]), 1e-10)
    d = features.shape[1]
    matrix = (1 - shrinkage) * within + shrinkage * np.trace(within) / d * np.eye(d)
    densities = np.stack([stats.multivariate_normal(x.mean(axis=0), matrix).logpdf(features) for x in classes], axis=1)
    joint = np.exp(densities - densities.max()) * np.array([len(x) for x in classes])
    return joint / joint.sum(axis=1, keepdims=True), shrinkage


@pytest.mark.parametrize("scale", [0.05, 0.1])
@every_shape
def test_sfda_from_explicit_gaussians(shape, scale):
    features, labels = sample(shape, scale)
    first, shrinkage = posteriors(features, labels)
    assert 1e-10 < shrinkage < 1
    moved = features.copy()
    for i, (row, label) in enumerate(zip(features, labels, strict=True)):
        share = np.exp(first[i, label]) / sum(np.exp(p) for p in first[i])
        others = [x.mean(axis=0) for c, x in enumerate(split(features, labels)) if c != label]
        moved[i] = share * row + (1 - share) * np.mean(others, axis=0)
    second, _ = posteriors(moved, labels, shrinkage)
    expected = np.mean([second[i, label] for i, label in enumerate(labels)])
    assert 1 / K < expected < 0.99
    assert sfda(features, labels, K) == pytest.approx(expected, rel=1e-7)


# All


@every_score
@every_shape
def test_rotation_and_order_do_not_matter(name, shape):
    features, labels = sample(shape, scale=0.3)
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(shape[1], shape[1])))[0]
    order, classes = rng.permutation(len(labels)), np.array([2, 0, 1])
    expected = SCORES[name](features, labels, K)
    moved = SCORES[name]((features @ rotation)[order], classes[labels[order]], K)
    assert moved == pytest.approx(expected, rel=1e-7)


@every_score
@every_shape
def test_translation_matters_to_logme_alone(name, shape):
    features, labels = sample(shape, scale=0.3)
    expected, moved = (SCORES[name](features + offset, labels, K) for offset in (0, 100))
    if name == "logme":
        assert abs(moved - expected) > 0.01
    else:
        assert moved == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-200, 0.1, 1e200])
@every_score
def test_scale_matters_to_sfda_and_to_unscaled_transrate(name, scale):
    features, labels = sample(scale=0.3)
    expected, moved = (SCORES[name](unit * features, labels, K) for unit in (1, scale))
    if name in ("sfda", "transrate, unscaled"):
        assert abs(moved - expected) > 0.005
    else:
        assert moved == pytest.approx(expected, rel=1e-9)


@every_score
def test_classes_farther_apart_score_higher(name):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % K
    noise, means = rng.normal(size=(60, 8)), np.eye(K, 8)[labels]
    scores = [SCORES[name](0.3 * (noise + distance * means), labels, K) for distance in (1, 3, 6, 10)]
    assert np.all(np.diff(scores) > 0), scores


@pytest.mark.parametrize("seed", range(5))
def test_scores_of_random_labels_keep_to_their_bounds(seed):
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(size=(30, 12)), rng.permutation(np.arange(30) % 5)
    assert 0 <= h_score(features, labels, 5) <= 4
    assert transrate(features, labels, 5) > 0
    assert -20 < gbc(features, labels, 5) < 0
    assert 0.2 < sfda(features, labels, 5) < 1


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (np.full((12, 4), 0.1), {"h_score": 0, "transrate": 0, "gbc": -6, "sfda": 1 / 3}),
        (np.full((12, 40), 0.1), {"h_score": 0, "transrate": 0, "gbc": -6, "sfda": 1 / 3}),
        (np.zeros((12, 4)), {"h_score": 0, "transrate": 0, "gbc": -6, "sfda": 1 / 3}),
        (np.eye(3)[np.arange(12) % 3], {"gbc": 0, "sfda": 1}),
        (0.1 * np.eye(3, 40)[np.arange(12) % 3], {"gbc": 0, "sfda": 1}),
    ],
    ids=["constant", "constant, wide", "zeros", "collapsed", "collapsed, wide"],
)
def test_degenerate_features_have_numbers(features, expected):
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        scores = transferability_scores(features, np.arange(12) % 3, 3)
    assert all(np.isfinite(value) for value in scores.values())
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-12)


@every_shape
def test_all_scores_at_once_are_those_one_by_one(shape):
    features, labels = sample(shape)
    names = ("logme", "h_score", "transrate", "gbc", "sfda")
    expected = {name: SCORES[name](features, labels, K) for name in names}
    scores = transferability_scores(features, labels, K)
    assert list(scores) == list(names)
    assert scores == expected
    assert all(type(value) is float for value in scores.values())


@pytest.mark.parametrize("convert", [jnp.asarray, np.ndarray.tolist, np.float16], ids=["jax", "list", "half"])
def test_what_other_probes_accept(convert):
    features, labels = sample()
    features = np.float64(np.float16(features))  # which all of them hold
    codes = labels if convert is np.float16 else convert(labels)
    assert transferability_scores(convert(features), codes, K) == transferability_scores(features, labels, K)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"features": np.full((40, 6), np.nan)}, ValueError, "features hold 240 NaN or Inf values"),
        ({"num_classes": 4}, ValueError, "class '3' has 0"),
        ({"num_classes": 2}, ValueError, r"labels range over 0\.\.2"),
        ({"num_classes": 1}, ValueError, "num_classes=1 must be at least 2"),
        ({"labels": np.linspace(0, 2, 40)}, TypeError, "labels must be one-dimensional integers"),
    ],
)
@every_score
def test_errors_name_the_argument(name, changes, error, message):
    features, labels = sample()
    arguments = {"features": features, "labels": labels, "num_classes": K} | changes
    with pytest.raises(error, match=message):
        SCORES[name](*arguments.values())


def test_one_sample_of_a_class_has_no_variance():
    features, labels = np.random.default_rng(0).normal(size=(5, 2)), np.array([0, 0, 1, 1, 2])
    for score in (gbc, sfda, transferability_scores):
        with pytest.raises(ValueError, match="every class needs at least 2 samples: class '2' has 1"):
            score(features, labels, K)
    assert all(np.isfinite(score(features, labels, K)) for score in (logme, h_score, transrate))


def test_epsilon_must_be_positive():
    with pytest.raises(ValueError, match=r"epsilon=0\.0 must be positive"):
        transrate(*sample(), K, epsilon=0.0)
