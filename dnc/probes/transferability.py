"""Transferability scores of others: numbers that rank encoders for a labeled data set without training any of them.

All take features [n, d] and labels 0..k-1, give one float, the higher the better, and are computed in float64. They
were proposed on different scales: compare the ranks that they give to encoders, not their values. None changes when
features are rotated or when samples or class numbers are permuted.

Features of more dimensions than samples are first written in an orthonormal basis of the space that they span, which
changes no score; r = min(n, d) below. Where papers and the code of their authors differ, the docstring says so.
"""

import functools
from dataclasses import dataclass

import numpy as np

from dnc.geometry.inputs import as_codes, as_numbers, converted
from dnc.geometry.validation import as_features, check_classes, check_finite, check_same_length, class_counts
from dnc.types import ArrayLike, Float, Int

EPSILON = 1e-4  # TransRate's distortion, squared
PRINCIPAL = 64  # dimensions that GBC keeps
_LEAST_VARIANCE = 1e-4  # of a class in GBC, relative to the mean variance per dimension of all samples
_LEAST_RESIDUAL = 1e-10  # of a target in LogME, relative to the target: else a perfect fit has infinite evidence
_LEAST_SHRINKAGE = 1e-10  # of SFDA
_ITERATIONS = 200
_RATIOS = np.logspace(-16, 12, 57)  # of LogME's alpha / beta to the largest squared singular value: where to start


@converted(features=as_numbers, labels=as_codes)
def transferability_scores(
    features: Float[ArrayLike, "n d"], labels: Int[ArrayLike, " n"], num_classes: int
) -> dict[str, float]:
    """`logme`, `h_score`, `transrate`, `gbc` and `sfda` with their defaults, by name.

    Features are checked and decomposed once: O(n d r + r^3) and what the functions state. Raises what they raise: every
    class needs two samples.
    """
    sample = _checked(features, labels, num_classes, samples_per_class=2)
    return {
        "logme": _logme(sample),
        "h_score": _h_score(sample),
        "transrate": _transrate(sample, EPSILON, scaled=True),
        "gbc": _gbc(sample, spherical=True),
        "sfda": _sfda(sample),
    }


@converted(features=as_numbers, labels=as_codes)
def logme(features: Float[ArrayLike, "n d"], labels: Int[ArrayLike, " n"], num_classes: int) -> float:
    """LogME (You et al. 2021): log evidence per sample of Bayesian linear regression on one-hot labels, in nats.

        1/k sum_c 1/n max_{alpha, beta} log N(y_c; 0, X X^T / alpha + I / beta),    y_c = 1 where the label is c, else 0

    X are the features as they are: neither centered nor with an intercept. Invariant to scale, not to translation. With
    squared singular values sigma_i and h_i = (u_i^T y)^2, u_i the left singular vectors, alpha and beta follow from the
    paper's fixed point,

        gamma = sum_i sigma_i / (t + sigma_i),    t = alpha / beta,
        alpha = gamma / ||m||^2,    beta = (n - gamma) / ||X m - y||^2,    m = (X^T X + t I)^-1 X^T y,

    started from the best t of a grid and iterated until it stands still; of all t that were met the best counts, each
    with its best beta. Residuals below 1e-10 ||y||^2 count as that, so that features which determine the labels have a
    finite score. (The authors' code starts from t = 1, stops after 11 steps, adds 1e-5 to both denominators and, for
    n < d, leaves out d - n terms of log det: what it gives then is not the evidence.)

    Cost: O(n (r + k)^2 + r^3), and O(r k) per step. Raises ValueError for features that are not finite or not [n, d],
    labels outside 0..num_classes-1 and classes without samples; TypeError for labels that are not integers.
    """
    return _logme(_checked(features, labels, num_classes))


@converted(features=as_numbers, labels=as_codes)
def h_score(features: Float[ArrayLike, "n d"], labels: Int[ArrayLike, " n"], num_classes: int) -> float:
    """H-score (Bao et al. 2019) with shrunk covariance (Ibrahim et al. 2021): variance between classes, whitened.

        tr( ((1 - a) Sigma + a tr(Sigma)/d I)^-1  (1 - a) B ),    B = sum_c n_c/n (mu_c - mu)(mu_c - mu)^T

    Sigma is the covariance of all samples; both divide by n (published code mixes n and n - 1, a factor n / (n - 1)).
    a is the intensity of Ledoit and Wolf (2004),

        a = min(1, b / ||Sigma - tr(Sigma)/d I||_F^2),    b = 1/n^2 sum_i || z_i z_i^T - Sigma ||_F^2,    z centered

    and 0 where Sigma is a multiple of the identity. Directions without variance are left out. Between 0 and
    min(k - 1, d), without unit; 0 for constant features. Invariant to translation and scale.

    Cost: O(n d r + r^3). Raises what `logme` raises.
    """
    return _h_score(_checked(features, labels, num_classes))


@converted(features=as_numbers, labels=as_codes)
def transrate(
    features: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    num_classes: int,
    *,
    epsilon: float = EPSILON,
    scaled: bool = True,
) -> float:
    """TransRate (Huang et al. 2022): coding rate of all features less that of the features given their class, in nats.

        R(Z) - sum_c n_c/n R(Z_c),    R(Z) = 1/2 log det(I + Z^T Z / (n epsilon)),    n the rows of Z

    Z are the features less the mean of all samples, also in Z_c. `scaled` divides them by sqrt(tr Sigma), Sigma their
    covariance (1/n), as the authors' code does to compare networks, which makes the score invariant to scale;
    scaled=False is the paper's listing, which has a larger score for larger features. (The listing also weighs classes
    alike, 1/k: the same where they are balanced.) Invariant to translation. At least 0; 0 for constant features.

    Cost: O(n d r + r^3), and O(r n_c min(r, n_c)) for each class. Raises what `logme` raises, and ValueError for an
    epsilon that is not positive.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon={epsilon} must be positive")
    return _transrate(_checked(features, labels, num_classes), epsilon, scaled)


@converted(features=as_numbers, labels=as_codes)
def gbc(
    features: Float[ArrayLike, "n d"], labels: Int[ArrayLike, " n"], num_classes: int, *, spherical: bool = True
) -> float:
    """Gaussian Bhattacharyya coefficient (Pandy et al. 2022): minus the overlap of all ordered class pairs.

        - sum_{i != j} exp(-D_ij),    S = (S_i + S_j) / 2,
        D_ij = 1/8 (mu_i - mu_j)^T S^-1 (mu_i - mu_j) + 1/2 log( det S / sqrt(det S_i det S_j) )

    On the min(64, r) first principal components of all samples. S_i is the diagonal of class i's covariance (1/n_i),
    with `spherical`, the authors' default, its mean times the identity. Variances below 1e-4 times the mean variance
    per component of all samples count as that, so that a class of equal features has a distance (the authors' code has
    1e-4 in the features' own units). Between -k (k - 1), where all classes coincide, and 0. Invariant to translation
    and scale.

    Cost: O(n d r + r^3), and O(64 k^2). Raises what `logme` raises, and ValueError for a class with one sample.
    """
    return _gbc(_checked(features, labels, num_classes, samples_per_class=2), spherical)


@converted(features=as_numbers, labels=as_codes)
def sfda(features: Float[ArrayLike, "n d"], labels: Int[ArrayLike, " n"], num_classes: int) -> float:
    """SFDA (Shao et al. 2022), self-challenging Fisher discriminant analysis: mean posterior of the own class.

        p(c | x) ~ n_c/n N(x; mu_c, S),    S = (1 - a) W + a tr(W)/d I,    a = max(exp(-5 lambda), 1e-10)

    W is the covariance within classes (1/n), lambda its largest eigenvalue. In a first pass, q_i is the share of the
    own class in a softmax of sample i's posteriors. Each sample is then moved towards the other classes, to q_i x_i +
    (1 - q_i) times the mean of their means, and the score is the mean posterior of the own class in a second pass, with
    the same a and new mu_c and W. Between 0 and 1.

    This is what the authors' code computes (their three power iterations stand for lambda there): the mean posterior,
    not the paper's mean log posterior. Invariant to translation. Not to scale: lambda is in the features' squared
    units, and features of large variance are hardly regularized.

    Cost: O(n d r + r^3 + n r k). Raises what `gbc` raises.
    """
    return _sfda(_checked(features, labels, num_classes, samples_per_class=2))


@dataclass(frozen=True)
class _Sample:
    """Features divided by `unit`, a power of two near the largest value, and what several scores need of them."""

    features: Float[np.ndarray, "n d"]
    labels: Int[np.ndarray, " n"]
    counts: Int[np.ndarray, " k"]
    unit: float

    @functools.cached_property
    def centered(self) -> Float[np.ndarray, "n r"]:
        x = self.features - self.features[:1]  # so that equal features become exactly 0
        return _in_its_span(x - x.mean(axis=0))

    @functools.cached_property
    def spectrum(self) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, "r r"]]:
        """Eigenvalues of the covariance (1/n), largest first, and eigenvectors in columns."""
        values, vectors = np.linalg.eigh(self.centered.T @ self.centered / len(self.labels))
        return np.maximum(values[::-1], 0), vectors[:, ::-1]


def _checked(features: ArrayLike, labels: ArrayLike, num_classes: int, samples_per_class: int = 1) -> _Sample:
    array, codes = as_features(features), as_codes(labels, "labels")
    check_same_length(len(array), len(codes), "labels")
    check_finite(array)
    counts = class_counts(codes, num_classes)
    check_classes(codes, [str(c) for c in range(num_classes)], minimum=samples_per_class)
    x = array.astype(np.float64)
    exponent = int(np.frexp(np.abs(x).max())[1])
    x = np.ldexp(x, -exponent)  # a power of two rounds nothing; squares neither overflow nor vanish
    return _Sample(x, codes, counts, 2.0 ** min(exponent, 500))


def _in_its_span(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n r"]:
    """The rows in an orthonormal basis of a space of min(n, d) dimensions that holds them."""
    n, d = x.shape
    return np.asarray(np.linalg.qr(x.T, mode="r")).T if d > n else x


def _class_means(x: Float[np.ndarray, "n r"], sample: _Sample) -> Float[np.ndarray, "k r"]:
    order = np.argsort(sample.labels, kind="stable")
    sums = np.add.reduceat(x[order], np.cumsum(sample.counts) - sample.counts, axis=0)
    return sums / sample.counts[:, None]


def _logme(sample: _Sample) -> float:
    x, k = _in_its_span(sample.features), len(sample.counts)
    n, r = x.shape
    both = np.hstack([x, np.eye(k)[sample.labels]])
    triangle = np.asarray(np.linalg.qr(both, mode="r"))  # [R, Q^T Y; 0, what of Y is beyond the span of X]
    left, singular, _ = np.linalg.svd(triangle[:r, :r])
    along = (left.T @ triangle[:r, r:]) ** 2  # h
    beyond = np.maximum(np.sum(triangle[r:, r:] ** 2, axis=0), _LEAST_RESIDUAL * sample.counts)
    sigma = singular[:, None] ** 2
    largest = float(sigma.max()) or 1.0

    def evidence(t: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """Per sample, with the best beta, n / (||X m - y||^2 + t ||m||^2)."""
        left_over = t / (t + sigma)
        misfit = beyond + np.sum(along * left_over, axis=0)
        return 0.5 * (np.log(n / misfit) + np.sum(np.log(left_over), axis=0) / n - 1 - np.log(2 * np.pi))

    grid = largest * _RATIOS
    values = np.array([evidence(np.full(k, t)) for t in grid])
    best, t = values.max(axis=0), grid[values.argmax(axis=0)]
    for _ in range(_ITERATIONS):
        left_over = t / (t + sigma)
        gamma = np.sum(1 - left_over, axis=0)
        norm = np.sum(along * sigma / (t + sigma) ** 2, axis=0)  # ||m||^2
        residual = beyond + np.sum(along * left_over**2, axis=0)
        others = n - r + np.sum(left_over, axis=0)  # n - gamma
        with np.errstate(divide="ignore", invalid="ignore"):
            step = gamma * residual / (others * norm)
        step = np.clip(np.where(norm > 0, step, np.inf), grid[0], grid[-1])
        best = np.maximum(best, evidence(step))
        if np.allclose(step, t, rtol=1e-8, atol=0):
            break
        t = step
    return float(best.mean())


def _h_score(sample: _Sample) -> float:
    values, vectors = sample.spectrum
    n, d = sample.features.shape
    mean, square = values.sum() / d, np.sum(values**2)
    noise = (np.mean(np.sum(sample.centered**2, axis=1) ** 2) - square) / n
    distance = square - d * mean**2
    shrinkage = min(max(noise, 0.0) / distance, 1.0) if distance > 1e-12 * square else 0.0
    between = sample.counts / n @ (_class_means(sample.centered, sample) @ vectors) ** 2
    shrunk = (1 - shrinkage) * values + shrinkage * mean
    varies = shrunk > n * np.finfo(float).eps * shrunk[0]
    return float(np.sum((1 - shrinkage) * between[varies] / shrunk[varies]))


def _transrate(sample: _Sample, epsilon: float, scaled: bool) -> float:
    values, _ = sample.spectrum
    total = values.sum()
    if total == 0:
        return 0.0
    scale = 1 / (total * epsilon) if scaled else sample.unit**2 / epsilon
    rate = np.sum(np.log1p(scale * values))
    for c, count in enumerate(sample.counts):
        z = sample.centered[sample.labels == c]
        gram = z @ z.T if len(z) < z.shape[1] else z.T @ z
        eigenvalues = np.maximum(np.linalg.eigvalsh(gram), 0) / count
        rate -= count / len(sample.labels) * np.sum(np.log1p(scale * eigenvalues))
    return float(rate / 2)


def _gbc(sample: _Sample, spherical: bool) -> float:
    values, vectors = sample.spectrum
    z = sample.centered @ vectors[:, :PRINCIPAL]
    means = _class_means(z, sample)
    variance = _class_means((z - means[sample.labels]) ** 2, sample)
    if spherical:
        variance = np.repeat(variance.mean(axis=1, keepdims=True), z.shape[1], axis=1)
    least = _LEAST_VARIANCE * values[:PRINCIPAL].mean()
    variance = np.maximum(variance, least if least > 0 else 1.0)  # all samples equal: classes coincide
    total = 0.0
    for i, (mean, own) in enumerate(zip(means, variance, strict=True)):
        pooled = (own + variance) / 2
        distance = np.sum((mean - means) ** 2 / pooled, axis=1) / 8
        distance += np.sum(np.log(pooled) - np.log(own) / 2 - np.log(variance) / 2, axis=1) / 2
        total += np.sum(np.delete(np.exp(-distance), i))
    return float(0.0 - total)


def _sfda(sample: _Sample) -> float:
    z, k = sample.centered, len(sample.counts)
    first, shrinkage = _posteriors(z, sample, None)
    own = np.arange(len(z)), sample.labels
    confidence = np.exp(first)
    share = (confidence[own] / confidence.sum(axis=1))[:, None]
    means = _class_means(z, sample)
    others = (means.sum(axis=0) - means) / (k - 1)
    second, _ = _posteriors(share * z + (1 - share) * others[sample.labels], sample, shrinkage)
    return float(second[own].mean())


def _posteriors(
    z: Float[np.ndarray, "n r"], sample: _Sample, shrinkage: float | None
) -> tuple[Float[np.ndarray, "n k"], float]:
    """Class posteriors of Gaussians with the shrunk covariance within classes, and the shrinkage, by default SFDA's."""
    means = _class_means(z, sample)
    residuals = z - means[sample.labels]
    values, vectors = np.linalg.eigh(residuals.T @ residuals / len(z))
    values = np.maximum(values, 0)
    if shrinkage is None:
        shrinkage = max(float(np.exp(-5 * values[-1] * sample.unit**2)), _LEAST_SHRINKAGE)
    within, between = (float(np.sum(part**2)) / sample.features.size for part in (residuals, means))
    ridge = shrinkage * within or _LEAST_SHRINKAGE * between or 1.0  # no variance within classes, or none at all
    deviation = np.sqrt((1 - shrinkage) * values + ridge)
    z, means = z @ vectors / deviation, means @ vectors / deviation
    scores = z @ means.T - np.sum(means**2, axis=1) / 2 + np.log(sample.counts / len(z))
    scores -= scores.max(axis=1, keepdims=True)
    posteriors = np.exp(scores)
    return posteriors / posteriors.sum(axis=1, keepdims=True), shrinkage
