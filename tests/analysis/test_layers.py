"""Layers and tokens side by side: the numbers are those of each analysis, and the page shows them."""

import json

import jax
import numpy as np
import pytest

import dnc
from dnc.probes.linear import linear_probe
from tests.samples import clusters


@pytest.fixture(scope="module")
def layers():
    features, labels = clusters(n=160, k=3, d=6, balanced=True)
    noise = np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
    scales = {"block01.cls": 8.0, "block01.<mean>": 8.0, "block02.cls": 1.0, "block02.<mean>": 0.0}
    return dnc.compare_layers(
        {
            name: dnc.analyze(features + scale * noise, {"<i>kind</i>": labels, "half": labels % 2}, shots=[1, 5, 10])
            for name, scale in scales.items()
        }
    )


def test_measures_are_those_of_the_analyses(layers):
    rows = layers.measures()
    assert len(rows) == 4 * 2 * 3
    row = rows[(rows["encoder"] == "block02.cls") & (rows["task"] == "half") & (rows["shots"] == 5)].iloc[0]
    analysis = layers.analyses["block02.cls"]
    task = analysis.tasks["half"]
    assert (row["layer"], row["token"], row["dimension"]) == ("block02", "cls", 6)
    assert row["mean_directional_cdnv"] == pytest.approx(np.nanmean(task.directional_cdnv))
    assert row["mean_cdnv"] == pytest.approx(np.nanmean(task.cdnv))
    assert row["predicted"] == pytest.approx(float(task.predicted_error([5]).mean[0]))
    first, second = task.halves(0)
    fitted = linear_probe(jax.random.key(0), first.features, first.labels, second.features, second.labels, 2)
    assert row["linear_accuracy"] == pytest.approx(float(fitted.offline_test_accuracy))


def test_less_noise_is_better_in_every_number(layers):
    rows = layers.measures()
    cls = rows[(rows["task"] == "<i>kind</i>") & (rows["shots"] == 5) & (rows["token"] == "cls")].set_index("layer")
    assert cls.loc["block02", "mean_directional_cdnv"] < cls.loc["block01", "mean_directional_cdnv"]
    assert cls.loc["block02", "predicted"] < cls.loc["block01", "predicted"]
    assert cls.loc["block02", "linear_accuracy"] > cls.loc["block01", "linear_accuracy"]


def test_the_page_shows_every_set_and_says_ties(layers, tmp_path):
    page = layers.to_html(tmp_path / "out").read_text()
    assert "<mean>" not in page
    assert "<i>kind</i>" not in page
    assert page.count("block01.&lt;mean&gt;") >= 2
    record = json.loads((tmp_path / "out/layers.json").read_text())
    assert record["sets"] == ["block01.cls", "block01.<mean>", "block02.cls", "block02.<mean>"]
    tied = [
        row for row in record["rows"] if row["task"] == "half" and row["shots"] == 5 and "block01" in row["encoder"]
    ]
    assert tied[0]["place"] == tied[1]["place"]  # the same features twice
    assert {path.name for path in (tmp_path / "out/figures").iterdir()} == {
        f"{kind}_{task}.{suffix}"
        for kind in ("variance", "error", "linear")
        for task in ("i_kind_i", "half")
        for suffix in ("svg", "png")
    }


def test_the_summary_is_of_the_middle_number_of_shots(layers):
    lines = layers.summary().splitlines()
    assert len(lines) == 1 + 4 * 2
    assert all(" 5 " in line for line in lines[1:])


def test_classes_of_three_samples_have_no_linear_accuracy():
    features, labels = clusters(n=9, k=3, d=4, balanced=True)
    one = dnc.analyze(features, labels, shots=[1])
    rows = dnc.compare_layers({"a.cls": one, "b.cls": one}).measures()
    assert rows["linear_accuracy"].isna().all()
