"""Slow float64 references: loops over classes and pairs that read like the definitions."""

import itertools

import numpy as np


def split(features, labels):
    x, y = np.asarray(features, np.float64), np.asarray(labels)
    return [x[y == c] for c in range(y.max() + 1)]


def moments(features, labels):
    """Per class: count, mean, tr Sigma, E||r||^4, E[r ||r||^2], Sigma, with r = z - mu and 1/n."""
    result = {key: [] for key in ("count", "mean", "variance", "fourth_moment", "third_moment", "covariance")}
    for z in split(features, labels):
        r = z - z.mean(axis=0)
        square = (r**2).sum(axis=1)
        values = len(z), z.mean(axis=0), square.mean(), (square**2).mean(), (r * square[:, None]).mean(axis=0)
        for key, value in zip(result, (*values, r.T @ r / len(z)), strict=True):
            result[key].append(value)
    return {key: np.array(value) for key, value in result.items()}


def pair_geometry(features, labels):
    """`moments`, every field of PairGeometry and MarginTerms that concerns pairs, CDNV, directional CDNV, Theta."""
    classes = split(features, labels)
    m = moments(features, labels)
    k = len(classes)
    names = ("squared_distance", "directional_variance", "third_moment", "covariance_overlap")
    result = {key: np.full((k, k), np.nan) for key in (*names, "cdnv", "directional_cdnv", "theta")}
    result["axis_covariance"] = np.zeros((k, k, k))
    for i, j in itertools.product(range(k), repeat=2):
        difference = m["mean"][i] - m["mean"][j]
        square = difference @ difference
        result["squared_distance"][i, j] = square
        result["third_moment"][i, j] = difference @ m["third_moment"][j]
        result["covariance_overlap"][i, j] = np.trace(m["covariance"][i] @ m["covariance"][j])
        residual = classes[i] - m["mean"][i]
        for other in range(k):  # of all classes: a geometry keeps the neighbors' rows and columns
            along = residual @ difference * (residual @ (m["mean"][i] - m["mean"][other]))
            result["axis_covariance"][i, j, other] = along.mean()
        if square > 0:
            directional = ((classes[i] - m["mean"][i]) @ difference / np.sqrt(square)).var()
            result["directional_variance"][i, j] = directional
            result["directional_cdnv"][i, j] = directional / square
            result["cdnv"][i, j] = (m["variance"][i] + m["variance"][j]) / square
            result["theta"][i, j] = (m["fourth_moment"][i] + m["fourth_moment"][j]) / square**2
    return m | result


def variance_split(features, labels, pairs):
    """Rows (axis, top 1, top 10, top 100, trace of the rest) of each pair, by explicit projection."""
    classes = split(features, labels)
    rows = []
    for i, j in pairs:
        r = np.concatenate([classes[c] - classes[c].mean(axis=0) for c in (i, j)])
        covariance = r.T @ r / len(r)
        u = classes[j].mean(axis=0) - classes[i].mean(axis=0)
        u /= np.linalg.norm(u)
        projector = np.eye(len(u)) - np.outer(u, u)
        eigenvalues = np.sort(np.linalg.eigvalsh(projector @ covariance @ projector))[::-1]
        rows.append([u @ covariance @ u, *(eigenvalues[:top].sum() for top in (1, 10, 100)), eigenvalues.sum()])
    return np.array(rows)


def decision_axes(features, labels):
    """For each pair i < j: unit axis, distance, variance along it averaged over all classes and over the pair."""
    classes = split(features, labels)
    means = [z.mean(axis=0) for z in classes]
    units, distances, pooled, of_pair = [], [], [], []
    for i, j in itertools.combinations(range(len(classes)), 2):
        difference = means[j] - means[i]
        u = difference / np.linalg.norm(difference)
        variances = [(z @ u).var() for z in classes]
        units.append(u)
        distances.append(np.linalg.norm(difference))
        pooled.append(np.mean(variances))
        of_pair.append((variances[i] + variances[j]) / 2)
    return np.array(units), np.array(distances), np.array(pooled), np.array(of_pair)


def orthogonality_bound(first, second, first_classes, second_classes, pooled=2):
    """min( (d1/d2) sqrt(2 K2 W1), (d2/d1) sqrt(2 K1 W2) ) from `decision_axes`; pooled=3 takes the pair's variance."""
    bound = np.zeros((len(first[1]), len(second[1])))
    for a, b in itertools.product(range(len(first[1])), range(len(second[1]))):
        d1, d2 = first[1][a], second[1][b]
        w1, w2 = first[pooled][a] / d1**2, second[pooled][b] / d2**2
        bound[a, b] = min(d1 / d2 * np.sqrt(2 * second_classes * w1), d2 / d1 * np.sqrt(2 * first_classes * w2))
    return bound


def interference(features, labels, others):
    """Share of each axis's within-class variance explained by each other labeling: [p, t]."""
    x = np.asarray(features, np.float64)
    shares = []
    for u in decision_axes(features, labels)[0]:
        r = x @ u
        for c in np.unique(labels):
            r[labels == c] -= r[labels == c].mean()
        explained = []
        for other in others:
            parts = [(other == c).mean() * r[other == c].mean() ** 2 for c in np.unique(other)]
            explained.append(sum(parts) / (r**2).mean())
        shares.append(explained)
    return np.array(shares)


def decision_plane(first, second):
    """Every sample's coordinates on the decision axis and on the widest direction across it, in half distances."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    means = [sum(z) / len(z) for z in (first, second)]
    u = means[1] - means[0]
    half = np.sqrt(u @ u) / 2
    u = u / (2 * half)
    projector = np.eye(len(u)) - np.outer(u, u)
    scatter = np.zeros((len(u), len(u)))
    for z, mean in zip((first, second), means, strict=True):
        for x in z:
            scatter += np.outer(projector @ (x - mean), projector @ (x - mean))
    w = np.linalg.eigh(scatter)[1][:, -1]
    w = w if w[np.abs(w).argmax()] > 0 else -w
    middle = (means[0] + means[1]) / 2
    return [np.array([[u @ (x - middle) / half, w @ (x - middle) / half] for x in z]) for z in (first, second)]
