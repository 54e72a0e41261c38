import functools
import inspect

import numpy as np
import pytest

import dnc
from dnc.analysis.comparison import Comparison, compare
from tests.samples import clusters

FEATURES, LABELS = clusters(seed=0, n=240, k=3, d=8, balanced=True)


@functools.cache
def measured(noise=0.0):
    rng = np.random.default_rng(0)
    features = FEATURES + noise * rng.normal(size=FEATURES.shape).astype(np.float32)
    return dnc.analyze(features, LABELS, shots=[1, 5], repeats=3)


@pytest.fixture(scope="module")
def three() -> Comparison:
    return compare({"a/b": measured(), "a b": measured(noise=2.0), "<i>c</i>\x1b": measured(noise=6.0)})


def test_places_are_shared_where_paired_differences_hold_zero(three):
    ranking = three.ranking()
    assert len(ranking) == 2 * 3
    errors = {name: analysis.few_shot_error() for name, analysis in three.analyses.items()}
    for shots, group in ranking.groupby("shots"):
        assert group["error"].is_monotonic_increasing
        assert group["place"].iloc[0] == 1
        best = group["encoder"].iloc[0]
        at = [1, 5].index(shots)
        for _, row in group.iterrows():
            paired = np.asarray(errors[row["encoder"]].per_repeat - errors[best].per_repeat)[:, at]
            half = 1.96 * paired.std() / np.sqrt(3)
            expected = [paired.mean(), paired.mean() - half, paired.mean() + half]
            np.testing.assert_allclose(row[["behind", "behind_low", "behind_high"]].astype(float), expected, atol=1e-6)
            assert (row["place"] == 1) == (row["behind_low"] <= 0)
    same = compare({"one": measured(), "two": measured()}).ranking()
    assert (same["place"] == 1).all()
    assert (same["behind"] == 0).all()


def test_other_samples_are_compared_without_pairing():
    other = dnc.analyze(FEATURES, np.roll(LABELS, 1), shots=[1, 5], repeats=3)
    ranking = compare({"one": measured(), "two": other}).ranking()
    assert ((ranking["behind_high"] > ranking["behind_low"]) | (ranking["behind"] == 0)).all()
    with pytest.raises(ValueError, match="different samples of labels"):
        compare({"one": measured(), "two": other}).guaranteed_differences()


def test_predictions_rank_beyond_the_sample(three):
    ranking = three.predicted_ranking([5, 1000])
    assert ranking["place"].tolist() == [1, 2, 3, 1, 2, 3]
    assert ranking.groupby("shots")["predicted"].apply(lambda values: values.is_monotonic_increasing).all()
    assert ranking["encoder"].iloc[0] == "a/b"


def test_guaranteed_differences_name_ties(three):
    found = compare({"one": measured(), "two": measured()}).guaranteed_differences([5])
    assert found["tie"].tolist() == [True]
    assert found[["difference"]].to_numpy().item() == 0
    clear = three.guaranteed_differences([1])
    worst = clear[clear["encoder"].str.startswith("<i>")].iloc[0]
    assert worst["low"] > 0
    assert not worst["tie"]


def test_rank_correlations_match_the_definition(three):
    frame, rho = three.to_pandas(), three.rank_correlations()
    for shots in (1, 5):
        rows = frame[frame["shots"] == shots]
        for measure in ("mean_cdnv", "rankme", "exact_cantelli"):
            one, other = (rows[name].rank() for name in (measure, "error"))
            if one.nunique() == 3 and other.nunique() == 3:
                d2 = float(((one - other) ** 2).sum())
                np.testing.assert_allclose(rho.loc[("labels", shots), measure], 1 - 6 * d2 / (3 * 8))
    assert np.isnan(rho.loc[("labels", 1), "luthra2026"])  # 1 for every encoder


def test_two_encoders_have_no_rank_correlation():
    rho = compare({"one": measured(), "two": measured(noise=2.0)}).rank_correlations()
    assert rho.isna().all(axis=None)


def test_folders_are_safe_and_distinct(three):
    assert list(three.folders().values()) == ["a_b", "a_b_2", "i_c_i"]


def test_folders_differ_in_more_than_case_and_from_the_pages_own_files():
    names = ("A", "a", "figures", "Index.html", "comparison.json")
    folders = Comparison(dict.fromkeys(names, measured())).folders()
    assert list(folders.values()) == ["A", "a_2", "figures_2", "Index.html_2", "comparison.json_2"]


def test_notebooks_show_what_is_compared_and_measure_nothing():
    comparison = compare({"<i>one</i>": dnc.analyze(FEATURES, LABELS), "two\x1b": dnc.analyze(FEATURES, LABELS)})
    assert repr(comparison) == (
        "<Comparison of <i>one</i>, two\ufffd: <Analysis of 240 x 8 features: labels (3 classes)>>"
    )
    page = comparison._repr_html_()
    assert "&lt;i&gt;one&lt;/i&gt;" in page
    assert "two\ufffd" in page
    assert all("record" not in vars(one) for one in comparison.analyses.values())


def test_the_page_escapes_names_and_links_reports(three, tmp_path):
    page = three.to_html(tmp_path / "out").read_text()
    assert "<i>c</i>" not in page
    assert "&lt;i&gt;c&lt;/i&gt;\ufffd" in page
    assert "\x1b" not in page + three.summary()
    for folder in three.folders().values():
        assert f'href="{folder}/index.html"' in page
        assert (tmp_path / "out" / folder / "index.html").exists()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: dnc.analyze(FEATURES, {"x": LABELS}, shots=[1, 5]), "different labelings"),
        (lambda: dnc.analyze(FEATURES, LABELS + 1, shots=[1, 5]), "different classes"),
        (lambda: dnc.analyze(FEATURES, LABELS, shots=[1]), "different shots"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, message):
    with pytest.raises(ValueError, match=message):
        compare({"one": measured(), "two": other()})


def test_analyses_without_names_are_refused():
    with pytest.raises(TypeError, match="analyses must be a dict, name -> analysis, not a list"):
        inspect.unwrap(compare)([measured(), measured()])  # past the tests' own check of annotations


def test_one_is_no_comparison():
    with pytest.raises(ValueError, match="at least two"):
        compare({"one": measured()})
