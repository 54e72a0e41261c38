"""The benchmark of transferability scores, on made-up candidates: measured end to end, judged on known numbers."""

import json
import math
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import app
from scipy import stats
from sklearn.linear_model import LogisticRegression

from dnc.few_shot.draws import draw_support
from experiments import ranking
from tests.samples import clusters
from tests.scripts import imported

transferability = imported("experiments.transferability")

K, D, TRAIN, TEST = 3, 6, 60, 45


def split(n, seed):
    """Labels and noise of a split, and one direction per class."""
    rng = np.random.default_rng(seed)
    return (np.arange(n) % K).astype(np.int32), rng.normal(size=(n, D)).astype(np.float32)


@pytest.fixture
def candidates(tmp_path):
    """Two data sets; two networks whose features separate the classes the better, the later the step."""
    entries = []
    for data in ("first", "second"):
        (labels, noise), (test_labels, test_noise) = split(TRAIN, 0), split(TEST, 1)
        for network, spread in (("narrow", 1.0), ("wide", 1.6)):
            for step in (1, 3):
                entry = {"data": data, "network": network, "name": f"{network} step {step}", "key": "z"}
                key = "label" if network == "narrow" else "labels"
                for part, y, x in (("train", labels, noise), ("test", test_labels, test_noise)):
                    path = tmp_path / f"{data}_{network}_{step}_{part}.npz"
                    z = step * np.eye(K, D, dtype=np.float32)[y] + spread * x
                    np.savez(path, z=z, **{key: y + 7})
                    entry[part] = str(path)
                entries.append(entry)
    path = tmp_path / "candidates.json"
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(transferability, "SAMPLES", (5,))
    monkeypatch.setattr(transferability, "SHOTS", (1, 5))


def test_end_to_end_and_again(candidates, small, tmp_path, monkeypatch):
    output = tmp_path / "output"
    transferability.run(str(candidates), str(output), 2, 30, 5)
    record = json.loads((output / "transferability.json").read_text())
    scores = {row["score"] for row in record["ranking"]}
    assert {"LogME", "GBC", "RankMe", "log directional CDNV", "predicted error", "number of features"} < scores
    assert len(scores) == 15
    targets = {"nearest center, m = 1", "nearest center, m = 5", "logistic, m = 1", "logistic, m = 5", "linear probe"}
    found = {(row["data"], row["n"], row["target"]) for row in record["ranking"]}
    assert found == {(d, n, t) for d in (ranking.OVERALL, "first", "second") for n in ("5", "all") for t in targets}
    tau = {row["score"]: row["tau"] for row in record["ranking"] if row["n"] == "all" and row["data"] == "first"}
    assert tau["predicted error"][0] == pytest.approx(1)
    assert tau["number of features"] == [None, None, None]
    gaps = [row["error"][0] for row in record["prediction"]]
    assert all(0 <= gap < 0.2 for gap in gaps)
    assert "number of features" in (output / "transferability.md").read_text()
    ElementTree.fromstring((output / "transferability.svg").read_text())

    monkeypatch.setattr(transferability, "measure", lambda *_: pytest.fail("a candidate was measured again"))
    transferability.run(str(candidates), str(output), 2, 30, 5)
    again = json.loads((output / "transferability.json").read_text())
    assert again["ranking"] == record["ranking"]


def test_subsamples_depend_on_labels_alone():
    labels, noise = split(TRAIN, 0)
    first, second = (transferability._first(transferability.Labeled(x, labels), 4) for x in (noise, -noise))
    np.testing.assert_array_equal(first.x, -second.x)
    np.testing.assert_array_equal(np.bincount(first.y), [4] * K)


def test_transfer_errors_are_those_of_explicit_rules():
    features, labels = clusters(n=150, k=K, d=D)
    x, y, queries, query_labels = features[:90], labels[:90], features[90:], labels[90:]
    keys, shots = jax.random.split(jax.random.key(1), 2), (1, 4)
    arrays = [jnp.asarray(array) for array in (x, y, queries, query_labels)]
    actual = transferability.transfer_errors(keys, *arrays, shots=shots, num_classes=K)
    for key, errors in zip(keys, actual, strict=True):
        support, _ = draw_support(key, jnp.asarray(y), jnp.bincount(y, length=K), max(shots))
        for m, of_rules in zip(shots, errors, strict=True):
            rows = np.asarray(support)[:, :m].ravel()
            z = np.float64(x[rows]) - x[rows].mean(axis=0)
            unit = np.sqrt(np.mean(np.sum(z**2, axis=1)))
            q = (queries - x[rows].mean(axis=0)) / unit
            logistic = LogisticRegression(C=1 / (1e-3 * len(rows)), tol=1e-8, max_iter=10_000).fit(z / unit, y[rows])
            centers = np.stack([x[rows][y[rows] == c].mean(axis=0) for c in range(K)])
            nearest = np.linalg.norm(queries[:, None] - centers, axis=2).argmin(axis=1)
            for predicted, error in zip((nearest, logistic.predict(q)), of_rules, strict=True):
                expected = np.mean([np.mean(predicted[query_labels == c] != c) for c in range(K)])
                assert float(error) == pytest.approx(expected, abs=1e-6)


def made_up(errors, scores, networks):
    return [
        {
            "data": "only",
            "network": network,
            "labels_digest": "same",
            "targets": {"nearest center, m = 5": error},
            "scores": {"all": {"score": score, "predicted error": {"1": 9.0, "5": -error - 0.01}}},
            "seconds": {"all": {"score": 1.0, "predicted error": 3.0}},
        }
        for error, score, network in zip(errors, scores, networks, strict=True)
    ]


def row_of(record, score):
    (row,) = [row for row in record["ranking"] if row["score"] == score]
    return row


def test_tau_and_regret_of_known_numbers():
    errors, scores = [0.1, 0.2, 0.3, 0.4], [3.0, 4.0, None, 1.0]
    record = ranking.evaluate(made_up(errors, scores, "abcd"), draws=200)
    row, reference = row_of(record, "score"), row_of(record, "predicted error")
    expected = stats.weightedtau([3, 4, -1e31, 1], [-0.1, -0.2, -0.3, -0.4]).statistic
    assert row["tau"][0] == pytest.approx(expected)
    assert row["regret"][0] == pytest.approx(0.1)
    assert reference["tau"][0] == pytest.approx(1)
    assert reference["regret"] == pytest.approx([0, 0, 0])
    assert row["tau_less_reference"][0] == pytest.approx(expected - 1)
    assert row["regret_less_reference"][1] == 0 < row["regret_less_reference"][2]
    assert row["tau"][1] < expected < row["tau"][2]
    (gap,) = record["prediction"]
    assert gap["error"] == pytest.approx([0.01, 0.01, 0.01])


def test_equal_first_choices_share_their_regret():
    assert ranking.tau_and_regret(np.array([2.0, 2.0, 1.0]), np.array([0.3, 0.1, 0.2]))[1] == pytest.approx(0.1)


def test_networks_are_drawn_whole():
    """Within each of two networks the score is perfect, and between them wrong: an interval that candidates would not
    have, since whichever network is drawn twice, tau is 1."""
    errors, scores = [0.1, 0.2, 0.3, 0.4], [2.0, 1.0, 4.0, 3.0]
    row = row_of(ranking.evaluate(made_up(errors, scores, "aabb"), draws=100), "score")
    assert row["tau"][0] < 0.5
    assert row["tau"][2] == pytest.approx(1)


def test_one_network_has_no_interval():
    row = row_of(ranking.evaluate(made_up([0.1, 0.2], [2.0, 1.0], "aa"), draws=5), "score")
    assert row["tau"][0] == pytest.approx(1)
    assert all(map(math.isnan, row["tau"][1:]))


def test_candidates_of_other_labels_are_refused():
    measured = made_up([0.1, 0.2], [2.0, 1.0], "ab")
    measured[1]["labels_digest"] = "other"
    with pytest.raises(app.UsageError, match="only do not have the same labels"):
        ranking.evaluate(measured, draws=5)


def test_errors_name_the_candidate(candidates, tmp_path):
    entries = json.loads(candidates.read_text())
    np.savez(tmp_path / "other.npz", z=np.ones((4, D)), labels=[7, 8, 8, 7])
    with pytest.raises(app.UsageError, match=r"other\.npz do not have the same classes"):
        transferability.splits(entries[0] | {"test": str(tmp_path / "other.npz")})
    (tmp_path / "lacking.json").write_text(json.dumps([{"data": "first", "name": "a", "train": "b", "test": "c"}]))
    with pytest.raises(app.UsageError, match=r"lacks \['network'\]"):
        transferability.run(str(tmp_path / "lacking.json"), str(tmp_path), 2, 30, 5)
