import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from dnc.probes import knn
from dnc.probes.knn import knn_accuracy, knn_leave_one_out
from tests.samples import clusters

K, SIZES = 4, (1, 5, 20)


def splits(n=180, q=90, d=6, **options):
    features, labels = clusters(n=n + q, k=K, d=d, **options)
    return features[:n], labels[:n], features[n:], labels[n:]


def oracle(bank, bank_labels, queries, neighbors, temperature, own_rows=None):
    """Weighted cosine votes in float64, one query at a time. Returns the winners."""
    bank, queries = (np.float64(x) / np.linalg.norm(np.float64(x), axis=1, keepdims=True) for x in (bank, queries))
    winners = []
    for index, query in enumerate(queries):
        similarity = bank @ query
        if own_rows is not None:
            similarity[own_rows[index]] = -np.inf
        nearest = np.argsort(-similarity, kind="stable")[:neighbors]
        votes = np.zeros(K)
        for row in nearest:
            votes[bank_labels[row]] += np.exp(similarity[row] / temperature)
        winners.append(votes.argmax())
    return np.array(winners)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_weighted_votes_match_a_float64_loop(temperature):
    train, labels, test, test_labels = splits()
    actual = knn_accuracy(train, labels, test, test_labels, K, SIZES, temperature=temperature)
    for index, k in enumerate(SIZES):
        correct = oracle(train, labels, test, k, temperature) == test_labels
        assert float(actual.accuracy[index]) == pytest.approx(correct.mean())
        expected = [correct[test_labels == c].mean() for c in range(K)]
        np.testing.assert_allclose(actual.per_class[index], expected, atol=1e-6)
    assert actual.neighbors == SIZES


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_majority_votes_are_scikit_learns(metric):
    train, labels, test, test_labels = splits()
    actual = knn_accuracy(train, labels, test, test_labels, K, SIZES, metric=metric, temperature=None)
    models = [KNeighborsClassifier(k, metric=metric).fit(np.float64(train), labels) for k in SIZES]
    expected = [model.score(np.float64(test), test_labels) for model in models]
    np.testing.assert_allclose(actual.accuracy, expected, atol=1e-6)


def test_left_out_samples_do_not_vote_for_themselves():
    features, labels, *_ = splits()
    actual = knn_leave_one_out(features, labels, K, SIZES)
    for index, k in enumerate(SIZES):
        correct = oracle(features, labels, features, k, 0.07, own_rows=np.arange(len(labels))) == labels
        assert float(actual.accuracy[index]) == pytest.approx(correct.mean())
    with_itself = knn_accuracy(features, labels, features, labels, K, (1,))
    assert with_itself.accuracy[0] == 1 > actual.accuracy[0]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_blocks_equal_one_block(metric, monkeypatch):
    train, labels, test, test_labels = splits()
    arguments = (train, labels, test, test_labels, K, SIZES)
    expected = knn_accuracy(*arguments, metric=metric, temperature=None)
    monkeypatch.setattr(knn, "_BANK_ROWS", 13)  # fewer than the 20 neighbors
    monkeypatch.setattr(knn, "_QUERY_ROWS", 32)
    knn._votes_are_correct.clear_cache()
    actual = knn_accuracy(*arguments, metric=metric, temperature=None)
    knn._votes_are_correct.clear_cache()
    np.testing.assert_array_equal(actual.per_class, expected.per_class)


@pytest.mark.parametrize("rows", [3, 100])
def test_of_equally_near_samples_the_earlier_vote(rows, monkeypatch):
    """Every training sample is the same point; with k = 5 the first five vote, 3 of class 1 against 2 of class 0."""
    monkeypatch.setattr(knn, "_BANK_ROWS", rows)
    knn._votes_are_correct.clear_cache()
    labels = np.array([1, 0, 1, 0, 1, 0, 0, 0, 0, 0], np.int32)
    points = np.ones((10, 2), np.float32)
    actual = knn_accuracy(points, labels, points[:2], np.array([1, 0], np.int32), 2, (4, 5), temperature=None)
    knn._votes_are_correct.clear_cache()
    np.testing.assert_array_equal(actual.per_class, [[1, 0], [0, 1]])  # 2 against 2: the smaller class number


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_translation_or_scale_do_not_matter(metric):
    train, labels, test, test_labels = splits()
    scale, offset = (1e15, 0.0) if metric == "cosine" else (1.0, 300.0)
    run = lambda a, b: knn_accuracy(a, labels, b, test_labels, K, SIZES, metric=metric, temperature=None)  # noqa: E731
    moved = run(*(np.float32(scale * np.float64(x) + offset) for x in (train, test)))
    np.testing.assert_allclose(moved.accuracy, run(train, test).accuracy, atol=0.012)


def test_a_tiny_temperature_is_the_nearest_neighbor():
    train, labels, test, test_labels = splits()
    nearest = knn_accuracy(train, labels, test, test_labels, K, (1,))
    sharp = knn_accuracy(train, labels, test, test_labels, K, (20,), temperature=1e-6)
    np.testing.assert_array_equal(sharp.accuracy, nearest.accuracy)


def test_errors_name_the_argument():
    names = ("train_features", "train_labels", "test_features", "test_labels")
    train, labels, test, test_labels = splits()
    row = np.arange(180)[:, None]
    for changes, message in (
        ({"neighbors": [181]}, r"neighbors=\[181\] must lie between 1 and the 180 samples"),
        ({"metric": "manhattan"}, r"metric='manhattan' is not known: choose one of \['cosine', 'euclidean'\]"),
        ({"metric": "euclidean"}, "set temperature=None"),
        ({"temperature": 0.0}, r"temperature=0\.0 must be positive"),
        ({"test_features": np.where(row[:90] == 2, 0, test)}, "test_features row 2 is all zeros"),
        ({"train_features": np.where(row == 2, np.inf, train)}, "train_features hold 6 values"),
        ({"train_labels": np.maximum(labels, 1)}, "class 0 has 0 samples in train_labels"),
    ):
        arguments = dict(zip(names, (train, labels, test, test_labels), strict=True)) | {"neighbors": SIZES} | changes
        with pytest.raises(ValueError, match=message):
            knn_accuracy(**arguments, num_classes=K)
    with pytest.raises(ValueError, match=r"neighbors=\[180\] must lie between 1 and the 179 samples"):
        knn_leave_one_out(train, labels, K, [180])


def test_zeros_are_points_like_others_in_euclidean_distance():
    bank = np.array([[0.0, 0.0], [3.0, 0.0]], np.float32)
    actual = knn_accuracy(
        bank, np.array([0, 1]), bank * 0.9, np.array([0, 1]), 2, (1,), metric="euclidean", temperature=None
    )
    np.testing.assert_array_equal(actual.accuracy, jnp.ones(1))
