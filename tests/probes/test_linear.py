import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from dnc.probes.linear import linear_probe, standardize_by_first
from dnc.probes.logistic import LinearClassifier, fit_logistic, is_correct, logistic_objective
from dnc.probes.splits import check_splits
from tests.samples import clusters

K, D = 4, 8
NAMES = ("train_features", "train_labels", "test_features", "test_labels")


def splits(n=240, q=120, **options):
    features, labels = clusters(n=n + q, k=K, d=D, **options)
    return features[:n], labels[:n], features[n:], labels[n:]


@functools.cache
def of_the_splits():
    return linear_probe(jax.random.key(0), *splits(), K)


def scikit_learn(features, labels, strength):
    model = LogisticRegression(C=1 / (strength * len(labels)), tol=1e-10, max_iter=10_000)
    return model.fit(np.float64(features), labels)


def assert_objectives_close(ours, model, arguments, rtol):
    theirs = LinearClassifier(jnp.asarray(model.coef_.T, jnp.float32), jnp.asarray(model.intercept_, jnp.float32))
    value, expected = (logistic_objective(classifier, *arguments) for classifier in (ours, theirs))
    np.testing.assert_allclose(value, expected, rtol=rtol)


fit = jax.jit(fit_logistic, static_argnames="max_iterations")


@pytest.mark.parametrize(("strength", "precision"), [(1.0, 1e-5), (1e-2, 1e-4), (1e-3, 1e-3)])
def test_the_optimum_is_scikit_learns(strength, precision):
    """Probabilities less exactly the weaker the penalty: a gradient g leaves the optimum g / strength away."""
    features, labels, queries, _ = splits()
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    arguments = jnp.asarray(x), jnp.asarray(labels), jnp.ones(len(x)), jnp.float32(strength)
    ours = fit(*arguments, LinearClassifier.zeros(D, K), tolerance=1e-6, max_iterations=500)
    model = scikit_learn(x, labels, strength)
    assert_objectives_close(ours.classifier, model, arguments, rtol=1e-6)
    z = (queries - features.mean(axis=0)) / features.std(axis=0)
    probabilities = jax.nn.softmax(ours.classifier.scores(jnp.asarray(z)))
    np.testing.assert_allclose(probabilities, model.predict_proba(np.float64(z)), atol=precision)


def test_samples_of_weight_zero_do_not_count():
    features, labels, *_ = splits()
    weights = (np.arange(len(labels)) % 3 > 0).astype(np.float32)
    some = weights > 0
    start, options = LinearClassifier.zeros(D, K), {"tolerance": 1e-5, "max_iterations": 500}
    spoiled = np.where(some[:, None], features, 1 - features)
    arguments = jnp.asarray(labels), jnp.asarray(weights), jnp.float32(0.1), start
    whole, part = (fit(jnp.asarray(x), *arguments, **options) for x in (features, spoiled))
    np.testing.assert_allclose(whole.classifier.weight, part.classifier.weight, atol=1e-4)


def test_the_probe_is_scikit_learns_with_the_chosen_strength():
    train, labels, test, test_labels = splits()
    probe = linear_probe(jax.random.key(0), train, labels, test, test_labels, K, tolerance=1e-6)
    scaler = StandardScaler().fit(np.float64(train))
    model = scikit_learn(scaler.transform(train), labels, float(probe.strength))
    assert float(probe.offline_test_accuracy) == pytest.approx(model.score(scaler.transform(test), test_labels))
    assert float(probe.offline_train_accuracy) == pytest.approx(model.score(scaler.transform(train), labels))
    predicted = model.predict(scaler.transform(test))
    per_class = [np.mean(predicted[test_labels == c] == c) for c in range(K)]
    np.testing.assert_allclose(probe.offline_test_per_class, per_class, atol=1e-6)


def test_the_strength_is_the_strongest_of_those_best_on_the_held_back_samples():
    probe = of_the_splits()
    strengths, validation = np.asarray(probe.strengths), np.asarray(probe.validation_accuracy)
    assert np.all(np.diff(strengths) < 0)
    assert probe.strength == strengths[np.argmax(validation)]
    assert len(set(validation.tolist())) > 1


@pytest.mark.parametrize("holdout", [0.2, 0.5])
def test_a_share_of_each_class_is_held_back(holdout):
    train, labels, test, test_labels = splits()
    probe = linear_probe(jax.random.key(0), train, labels, test, test_labels, K, holdout=holdout)
    correct = np.asarray(probe.validation_accuracy) * np.round(holdout * np.bincount(labels)).sum()
    np.testing.assert_allclose(correct, np.round(correct), atol=1e-4)


def test_the_test_split_takes_no_part_in_the_choice():
    train, labels, test, test_labels = splits()
    probe = of_the_splits()
    spoiled = linear_probe(jax.random.key(0), train, labels, 5 - test, (test_labels + 1) % K, K)
    np.testing.assert_array_equal(probe.validation_accuracy, spoiled.validation_accuracy)
    assert probe.offline_train_accuracy == spoiled.offline_train_accuracy
    assert probe.offline_test_accuracy > spoiled.offline_test_accuracy


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 1e3), (1e15, 0.0), (1e-15, 0.0)])
def test_translation_and_scale_do_not_matter(scale, offset):
    train, labels, test, test_labels = splits()
    moved = [np.float32(scale * np.float64(x) + offset) for x in (train, test)]
    expected = of_the_splits()
    actual = linear_probe(jax.random.key(0), moved[0], labels, moved[1], test_labels, K)
    np.testing.assert_allclose(actual.offline_test_accuracy, expected.offline_test_accuracy, atol=0.01)
    np.testing.assert_allclose(actual.validation_accuracy, expected.validation_accuracy, atol=0.025)


def test_numbering_of_classes_does_not_matter():
    train, labels, test, test_labels = splits()
    order, expected = np.array([2, 0, 3, 1], np.int32), of_the_splits()
    actual = linear_probe(jax.random.key(0), train, order[labels], test, order[test_labels], K)
    np.testing.assert_allclose(actual.offline_test_accuracy, expected.offline_test_accuracy, atol=0.01)
    np.testing.assert_allclose(actual.offline_test_per_class[order], expected.offline_test_per_class, atol=0.03)


def separable(n):
    rng = np.random.default_rng(n)
    labels = np.arange(n, dtype=np.int32) % K
    return (20 * np.eye(K, D)[labels] + rng.normal(size=(n, D))).astype(np.float32), labels


def test_separable_clusters_are_classified_perfectly():
    probe = linear_probe(jax.random.key(0), *separable(240), *separable(120), K)
    assert probe.offline_test_accuracy == probe.offline_train_accuracy == 1
    np.testing.assert_array_equal(probe.offline_test_per_class, np.ones(K))
    assert probe.strength == probe.strengths[0]  # all are perfect: the strongest


def test_the_fit_of_separable_clusters_converges_to_scikit_learns():
    features, labels = separable(240)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    arguments = jnp.asarray(features), jnp.asarray(labels), jnp.ones(240), jnp.float32(1e-6)
    ours = fit(*arguments, LinearClassifier.zeros(D, K), tolerance=1e-4, max_iterations=500)
    assert ours.gradient <= 1e-4
    assert ours.iterations < 500
    assert_objectives_close(ours.classifier, scikit_learn(features, labels, 1e-6), arguments, rtol=1e-4)


def test_a_class_without_test_samples_has_no_accuracy():
    train, labels, test, test_labels = splits()
    probe = linear_probe(jax.random.key(0), train, labels, test, np.maximum(test_labels, 1), K)
    np.testing.assert_array_equal(np.isnan(probe.offline_test_per_class), [True, False, False, False])
    assert np.isfinite(probe.offline_test_accuracy)


def test_features_constant_in_training_are_left_out():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(50, 3)).astype(np.float32), rng.normal(size=(20, 3)).astype(np.float32)
    train[:, 1] = 1234.567
    z, z_test = standardize_by_first(jnp.asarray(train), jnp.asarray(test))
    np.testing.assert_array_equal(z[:, 1], 0)
    np.testing.assert_array_equal(z_test[:, 1], 0)
    np.testing.assert_allclose(z[:, [0, 2]], StandardScaler().fit_transform(train)[:, [0, 2]], atol=1e-5)
    assert np.isfinite(z_test).all()


def test_a_tie_is_an_error():
    scores = jnp.asarray([[1.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(is_correct(scores, jnp.asarray([0, 1, 2], jnp.int32)), [0, 1, 0])


def test_errors_name_the_argument():
    arrays = dict(zip(NAMES, splits(), strict=True))
    spoiled = arrays["train_features"].copy()
    spoiled[3, 1] = np.nan
    one_class = {name: arrays[name] * 0 for name in NAMES if name.endswith("labels")}
    for changes, message in (
        ({"train_features": spoiled}, r"train_features hold 1 values that are NaN .* row 3"),
        ({"test_features": np.float64(arrays["test_features"]) * 1e300}, "test_features hold .* NaN or Inf in float32"),
        ({"num_classes": 1, **one_class}, "num_classes=1 must be at least 2"),
        ({"test_labels": arrays["test_labels"] + np.int32(1)}, r"test_labels range over 1\.\.4"),
        ({"num_classes": 5}, "class 4 has 0 samples in train_labels but needs 2"),
        ({"strengths": (0.0,)}, r"strengths=\(0\.0,\)"),
        ({"holdout": 1.0}, "holdout=1"),
    ):
        with pytest.raises(ValueError, match=message):
            linear_probe(jax.random.key(0), **{**arrays, "num_classes": K, **changes})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"test_features": np.zeros((120, 7))}, ValueError, "dimension 8 but test_features 7"),
        ({"train_features": np.zeros((240,))}, ValueError, r"train_features must have shape \[n, d\]"),
        ({"train_labels": np.zeros(239, int)}, ValueError, "train_features have 240 rows but train_labels 239"),
        ({"test_labels": np.zeros(120)}, TypeError, "test_labels must be one-dimensional integers, got float64"),
        ({"test_labels": np.zeros((120, 1), int)}, TypeError, "test_labels must be one-dimensional"),
    ],
)
def test_shapes_and_types_are_checked(changes, error, message):
    """Below the annotations, which tests check and users' calls do not."""
    with pytest.raises(error, match=message):
        check_splits(**{**dict(zip(NAMES, splits(), strict=True)), "num_classes": K, **changes})
