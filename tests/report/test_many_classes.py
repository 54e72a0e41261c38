"""The pairs of more classes than a heatmap can show."""

import numpy as np
import pytest

from dnc.record import Record
from dnc.report import pairs
from dnc.report.run import run_of
from tests.report import synthetic

K = 130


@pytest.fixture(scope="module")
def run():
    record = synthetic.analysis({"species": tuple(f"species {c}" for c in range(K))})
    hardest = np.full((K, K), 0.01)
    hardest[70, 5], hardest[99, 70], hardest[3, 120] = 0.9, 0.8, 0.7
    np.fill_diagonal(hardest, np.nan)
    record["tasks"]["species"]["directional_cdnv"] = np.where(np.isnan(hardest), None, hardest).tolist()
    return run_of([Record.from_json(record)], "name", {})


def test_the_classes_of_the_hardest_pairs_are_shown(run):
    picture = pairs.heatmaps(run)["species"]
    assert "24 classes of species, from 0.01 to 0.9; the hardest is species 70 against species 5" in picture.alt
    chosen = pairs._of_hardest_pairs(run.last.tasks["species"].directional_cdnv).tolist()
    assert chosen[:5] == [70, 5, 99, 3, 120]
    assert len(chosen) == len({*chosen}) == 24


def test_of_all_pairs_the_distribution_is_shown(run):
    (picture,) = pairs.distributions(run).values()
    assert "directional CDNV 0.01" in picture.alt


def test_few_classes_are_shown_whole():
    run = run_of([Record.from_json(synthetic.analysis({"animal": ("cat", "dog", "fox")}))], "name", {})
    assert "3 classes of animal" in pairs.heatmaps(run)["animal"].alt
    assert pairs.distributions(run) == {}
