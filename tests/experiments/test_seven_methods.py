"""What the comparison of methods says of runs, on made-up measurements."""

import json
from xml.etree import ElementTree

import pytest
from absl import app

from dnc.data.multitask.render import FACTORS
from tests.report import synthetic
from tests.scripts import imported

seven_methods = imported("experiments.seven_methods")

MODELS = {"simclr": {"depth": 18, "width": 16}, "mae": {"name": "vit", "depth": 4, "width": 96, "patch_size": 4}}


@pytest.fixture
def record(tmp_path):
    runs = {}
    for name, model in MODELS.items():
        workdir = synthetic.workdir(tmp_path / name)
        synthetic.save(
            workdir / "config.json",
            {
                "train": {"batch_size": 128},
                "objective": {"name": name},
                "optimizer": {"name": "muon"},
                "model": model,
            },
        )
        lines = [
            {"step": 500, "input_seconds_per_step": 0.01, "step_seconds_per_step": 0.09, "measurement_seconds": 99.0},
            {"step": 1500, "input_seconds_per_step": 0.0, "step_seconds_per_step": 0.07},
        ]
        (workdir / "timing.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        runs[name] = seven_methods.measured(workdir)
    return runs


def test_what_was_spent(record):
    assert record["simclr"]["steps"] == 1500
    assert record["simclr"]["examples"] == 1500 * 128
    assert record["simclr"]["minutes"] == pytest.approx((500 * 0.1 + 1000 * 0.07) / 60)


@pytest.mark.parametrize(
    ("directional", "cdnv", "expected"),
    [
        ((0.8, 0.1), (4.0, 2.0), True),
        ((0.8, 0.11), (4.0, 3.0), False),
        ((0.8, 0.05), (4.0, 0.2), False),
        ((75.0, 0.26), (90.0, 9.0), False),
        ((0.8, 0.0), (4.0, 2.0), True),
        ((0.8, None), (4.0, 2.0), False),
    ],
    ids=["eight times", "less than eight", "CDNV falls more", "still large", "to nothing", "no value"],
)
def test_directional_collapse_is_a_fall_by_eight_and_by_more_than_cdnvs_to_a_small_value(directional, cdnv, expected):
    assert seven_methods.collapses({"directional_cdnv": directional, "cdnv": cdnv}) is expected


def test_the_tables_hold_what_was_measured(record):
    last = synthetic.analysis(step=1500)["tasks"]["shape"]
    at = last["shots"].index(10)
    shape = record["simclr"]["factors"]["shape"]
    assert shape["ten_shots"]["error"]["classes"] == last["error"]["mean"][at]
    assert shape["ten_shots"]["exact_cantelli"]["two_class"] == last["certificates"]["exact_cantelli"]["two_class"][at]
    text = "\n".join(seven_methods.tables(record))
    assert f"{last['error']['mean'][at]:.3f} / {last['error']['two_class'][at]:.3f}" in text
    assert "- SimCLR collapses directionally in " in text


def test_the_tables_name_each_methods_encoder(record):
    text = "\n".join(seven_methods.tables(record))
    assert "| SimCLR | ResNet-18 of width 16 | muon |" in text
    assert "| MAE | ViT, 4 blocks of width 96, patches of 4 pixels |" in text


def run_ending_at(*directional):
    factors = {
        factor: {"directional_cdnv": (8.0, end), "cdnv": (8.0, 7.0)}
        for factor, end in zip(FACTORS, directional, strict=True)
    }
    return {"factors": factors}


def test_the_better_run_is_where_more_factors_collapse_and_then_the_lower_one():
    one, two, lower = run_ending_at(0.001, 2, 2, 2), run_ending_at(0.2, 0.2, 2, 2), run_ending_at(0.1, 0.2, 2, 2)
    records = [{"simclr": one, "mae": lower}, {"simclr": two, "mae": two, "dino": one}]
    assert seven_methods.best(records, ["simclr", "mae", "dino"]) == {
        "simclr": two,
        "mae": lower,
        "dino": one,
    }
    with pytest.raises(app.UsageError, match="no result has clip"):
        seven_methods.best(records, ["simclr", "clip"])


def test_the_figure_names_every_factor_and_method(record):
    ElementTree.fromstring(svg := seven_methods.figure(record).svg)
    assert all(name in svg for name in (*FACTORS, "SimCLR", "MAE", "directional CDNV"))
