import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

import dnc
from dnc.distributed import make_mesh
from dnc.features.files import read_features
from dnc.geometry.captured import captured_energy
from dnc.geometry.moments import ClassMoments
from dnc.geometry.pairs import mean_over_pairs
from dnc.geometry.shots import check_shots
from dnc.geometry.spectrum import lidar
from tests import oracles
from tests.samples import clusters, factorial, off_diagonal

SHOTS = (1, 5)
SAMPLE = FEATURES, LABELS = clusters(n=240, k=3, d=8)
FACTORIAL = factorial(levels=(3, 3), renders=20, d=8)
analyze = functools.partial(dnc.analyze, shots=SHOTS, repeats=3)  # one shape and one number of shots compile once


@pytest.fixture(scope="module")
def single():
    return analyze(*SAMPLE, class_names=["ant", "<bee>", "cat"], name="toy", step=7)


@pytest.fixture(scope="module")
def multitask():
    return analyze(*FACTORIAL)


def assert_collapse_is_that_of(result, features, labels):
    expected = oracles.pair_geometry(features, labels)
    for name in ("cdnv", "directional_cdnv"):
        np.testing.assert_allclose(off_diagonal(getattr(result, name)), off_diagonal(expected[name]), rtol=1e-5)


def test_collapse_matches_oracle(single):
    assert_collapse_is_that_of(single, *SAMPLE)
    assert np.isnan(np.diagonal(single.cdnv)).all()


@pytest.mark.parametrize(("n", "k", "d"), [(96, 12, 3), (24, 4, 60)], ids=["k > d", "n < d"])
def test_more_classes_than_dimensions_and_fewer_samples_than_dimensions(n, k, d):
    features, labels = clusters(seed=3, n=n, k=k, d=d)
    result = dnc.analyze(features, labels, shots=[1, 2], repeats=2)
    assert_collapse_is_that_of(result, features, labels)
    for name in ("exact_cantelli", "exact_joint"):
        per_class = result.certificate(name).per_class
        assert ((per_class >= 0) & (per_class <= 1)).all()


def test_duplicated_rows_change_no_moment():
    features, labels = clusters(seed=4, n=120, k=3, d=8)
    once, twice = analyze(features, labels), analyze(np.repeat(features, 2, axis=0), np.repeat(labels, 2))
    np.testing.assert_allclose(off_diagonal(twice.directional_cdnv), off_diagonal(once.directional_cdnv), rtol=1e-5)
    for name in ("luthra2025", "exact_cantelli", "exact_joint"):
        np.testing.assert_allclose(twice.certificate(name).per_class, once.certificate(name).per_class, rtol=1e-4)


def test_json_follows_the_schema(single, tmp_path):
    path = tmp_path / "deep" / "run.json"
    single.save(path)
    found = json.loads(path.read_text())
    assert [p.name for p in path.parent.iterdir()] == ["run.json"]  # no temporary file is left
    head = {"schema": "dnc.analysis/1", "name": "toy", "step": 7, "epoch": None, "samples": 240, "dimension": 8}
    assert head.items() <= found.items()
    assert (found["normalized"], found["seed"], found["axes"], found["interference"]) == (False, 0, {}, {})
    task = found["tasks"]["labels"]
    assert task["classes"] == ["ant", "<bee>", "cat"]
    assert sum(task["counts"]) == 240
    assert task["cdnv"][0][0] is None
    assert task["summary"]["cdnv"] == pytest.approx(np.nanmean(single.cdnv), rel=1e-5)
    assert (task["shots"], task["repeats"]) == ([1, 5], 3)
    assert set(task["error"]) == {"mean", "std", "per_class", "two_class"}
    assert np.shape(task["error"]["per_class"]) == (2, 3)
    assert set(task["certificates"]) == set(dnc.CERTIFICATES)
    for bound in task["certificates"].values():
        assert set(bound) == {"bound", "two_class", "per_class", "is_certificate", "valid"}
        assert np.shape(bound["per_class"]) == (2, 3)
        assert np.shape(bound["two_class"]) == np.shape(bound["valid"]) == (2,)
    assert set(task["decomposition"]) == {"pairs", "axis", "top1", "top10", "top100", "trace"}


def test_decomposition_is_in_the_features_own_units(single):
    split = single.task.decomposition
    expected = oracles.variance_split(*SAMPLE, split.pairs)
    np.testing.assert_allclose(np.stack([split.axis, split.trace], 1), expected[:, [0, 4]], rtol=1e-5)


def test_certificate_and_error_take_other_shots(single):
    bound = single.certificate("exact_cantelli", shots=[2])
    assert bound.bound.shape == (1,)
    assert bound.per_pair.shape == (1, 3, 3)
    assert single.few_shot_error(shots=[2], repeats=2).mean.shape == (1,)
    assert single.few_shot_error() is single.few_shot_error()  # measured once


def test_two_class_error_averages_over_ordered_pairs(single):
    error = single.few_shot_error()
    np.testing.assert_allclose(
        single.to_dict()["tasks"]["labels"]["error"]["two_class"], mean_over_pairs(error.per_pair), rtol=1e-6
    )


def test_result_depends_on_neither_scale_nor_offset_nor_container(single):
    moved = analyze(jnp.asarray(1024 * FEATURES), LABELS.tolist())
    np.testing.assert_allclose(off_diagonal(single.cdnv), off_diagonal(moved.cdnv), rtol=1e-6)
    np.testing.assert_array_equal(single.few_shot_error().mean, moved.few_shot_error().mean)


@pytest.mark.parametrize("n", [240, 237], ids=["divides", "padded"])
def test_eight_devices_measure_what_one_does(n):
    features, labels = FEATURES[:n], LABELS[:n]
    one, eight = (analyze(features, labels, mesh=mesh) for mesh in (None, make_mesh()))
    assert len(jax.devices()) == 8
    ours, expected = (dataclasses.replace(found.task.geometry, queries=None) for found in (eight, one))  # see below
    for (path, a), b in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(
            a, b, rtol=2e-5, atol=1e-5 * np.nanmax(np.abs(b)), err_msg=jax.tree_util.keystr(path)
        )
    for name in ("exact_cantelli", "exact_joint", "exact_conditional"):
        np.testing.assert_allclose(eight.certificate(name).bound, one.certificate(name).bound, rtol=1e-5)
    np.testing.assert_array_equal(eight.few_shot_error().mean, one.few_shot_error().mean)


def test_normalize_is_recorded_and_projects_rows_to_the_sphere():
    result = analyze(*SAMPLE, normalize=True)
    assert result.normalized
    assert_collapse_is_that_of(result, FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True), LABELS)


def test_multitask_axes_and_interference(multitask):
    found = multitask.to_dict()
    assert list(found["axes"]) == ["factor0|factor1"]
    summary = found["axes"]["factor0|factor1"]
    assert set(summary) == {"cosine", "bound", "violations"}
    assert summary["violations"] == 0  # balanced and independent: the bound holds exactly
    assert summary["cosine"]["q25"] <= summary["cosine"]["median"] <= summary["cosine"]["max"]
    features, labels = FACTORIAL
    shares = oracles.interference(features, labels["factor0"], [labels["factor1"]])
    assert found["interference"]["factor0"]["factor1"] == pytest.approx(shares.mean(), rel=1e-4)


def test_energy_is_that_of_principal_components_and_in_the_end_captured_energy(multitask):
    features, labels = FACTORIAL
    moments = ClassMoments.from_batch(np.asarray(features, np.float32), np.asarray(labels["factor0"], np.int32), 3)
    energy = multitask.energy["factor0"]
    assert list(energy)[:3] == [1, 2, 4]
    assert list(energy.values()) == sorted(energy.values())
    assert energy[max(energy)] == pytest.approx(captured_energy(moments).whole, abs=0.05)


def test_energy_survives_any_scale_and_equal_features():
    features, labels = SAMPLE
    expected = analyze(features, labels).energy["labels"]
    for scale in (1e-30, 1e30):
        scaled = dnc.analyze(np.float32(scale) * features, labels, shots=[1], repeats=2).energy["labels"]
        assert scaled == pytest.approx(expected, rel=1e-4)


def test_several_labelings_need_a_choice(multitask):
    with pytest.raises(AttributeError, match=r"choose one, as in .tasks\['factor0'\]"):
        _ = multitask.cdnv
    assert multitask.tasks["factor1"].cdnv.shape == (3, 3)


def test_equal_shapes_compile_nothing_new(multitask):
    multitask.to_dict()
    compiled = []

    def listen(event, seconds, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(kwargs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        analyze(*factorial(seed=9, levels=(3, 3), renders=20, d=8)).to_dict()
        assert compiled == []
        jax.jit(lambda x: x + 1)(1)
        assert len(compiled) == 1
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_pandas_has_a_row_per_task_and_shot(multitask):
    table = multitask.to_pandas()
    assert table[["task", "shots"]].values.tolist() == [[t, m] for t in ("factor0", "factor1") for m in SHOTS]
    assert set(dnc.CERTIFICATES) < set(table.columns)
    assert (table["error"] <= 1).all()


def test_default_shots_are_those_that_fit():
    features, labels = clusters(seed=3, n=40, k=2, d=3, balanced=True)
    assert dnc.analyze(features, labels).task.shots == (1, 5, 10)


def test_coincident_means_become_null_in_json():
    half = np.random.default_rng(0).normal(size=(120, 8))
    features = np.concatenate([half, -half])  # every class is symmetric about zero
    found = analyze(features, np.arange(240) % 3).to_dict()["tasks"]["labels"]
    assert found["summary"] == {"cdnv": None, "directional_cdnv": None}
    assert found["certificates"]["exact_cantelli"]["bound"] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shots": [30]}, "needs 31 samples of every class, but class '0' of labels has 30"),
        ({"shots": []}, "non-empty sequence of positive integers"),
        ({"shots": [0]}, "non-empty sequence of positive integers"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"labels": {}}, "empty dict"),
        ({"labels": np.zeros(59, int)}, "features have 60 rows but labels has 59"),
        ({"labels": {"a": np.arange(60) % 2, "b": np.zeros(60, int)}}, "one class"),
        ({"class_names": {"color": ["a", "b"]}}, r"class_names name labelings \['color'\]"),
        ({"features": np.full((60, 2), np.nan)}, "120 NaN or Inf values"),
    ],
)
def test_bad_arguments_raise_before_any_work(changes, message):
    features, labels = clusters(seed=4, n=60, k=2, d=4, balanced=True)
    arguments = {"features": features, "labels": labels, **changes}
    with pytest.raises(ValueError, match=message):
        dnc.analyze(**arguments)


def test_unknown_certificate_lists_the_names(single):
    with pytest.raises(ValueError, match="certificate='exact' is not known: did you mean 'exact_"):
        single.certificate("exact")


def test_public_names_resolve():
    for name in dnc.__all__:
        assert getattr(dnc, name) is not None
        assert name in dir(dnc)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = dnc.nonsense


def write(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file(arrays, path)
    else:
        pd.DataFrame({key: list(value) for key, value in arrays.items()}).to_parquet(path)
    return path


def assert_holds_the_sample(file):
    np.testing.assert_array_equal(file.features, FEATURES)
    np.testing.assert_array_equal(file.labels, LABELS)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".parquet"])
def test_feature_files_of_every_format_read_back(tmp_path, suffix):
    assert_holds_the_sample(read_features(write(tmp_path / f"one{suffix}", features=FEATURES, labels=LABELS)))
    columns = {"labels_color": LABELS, "labels_shape": 2 - LABELS}
    many = read_features(write(tmp_path / f"many{suffix}", features=FEATURES, **columns))
    assert list(many.labels) == ["color", "shape"]
    np.testing.assert_array_equal(many.labels["shape"], 2 - LABELS)


def test_npy_pair_reads_back(tmp_path):
    np.save(tmp_path / "x.npy", FEATURES)
    np.save(tmp_path / "y.npy", LABELS)
    assert_holds_the_sample(read_features(tmp_path / "x.npy", tmp_path / "y.npy"))
    with pytest.raises(ValueError, match="go together"):
        read_features(tmp_path / "x.npy")


def test_npz_class_names_and_parquet_strings_are_kept(tmp_path):
    names = np.array(["cat", "dog", "fox"])
    file = read_features(write(tmp_path / "x.npz", features=FEATURES, labels_animal=LABELS, class_names_animal=names))
    assert file.class_names == {"animal": ["cat", "dog", "fox"]}
    file = read_features(write(tmp_path / "x.parquet", features=FEATURES, labels=names[LABELS]))
    assert file.labels.tolist() == names[LABELS].tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": LABELS}, "holds no 'features': it has labels int"),
        ({"X": FEATURES, "y": LABELS}, r"holds no 'features': it has X float32 \[240, 8\], y int"),
        ({"features": FEATURES}, "holds no 'labels' or 'labels_NAME'"),
        ({"features": FEATURES, "labels": LABELS, "labels_a": LABELS}, "holds both 'labels' and 'labels_a'"),
        ({"features": FEATURES.astype(object), "labels": LABELS}, "pickled content is refused"),
    ],
)
def test_incomplete_npz_is_refused(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        read_features(write(tmp_path / "x.npz", **arrays))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".parquet"])
def test_truncated_files_are_refused_by_name(tmp_path, suffix):
    path = write(tmp_path / f"x{suffix}", features=FEATURES, labels=LABELS)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"x{suffix} is not a readable"):
        read_features(path)


def test_missing_unknown_and_ragged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.npz does not exist"):
        read_features(tmp_path / "gone.npz")
    with pytest.raises(FileNotFoundError, match="holds no npz"):
        read_features(tmp_path)
    (tmp_path / "x.csv").touch()
    with pytest.raises(ValueError, match=r"unknown format: use one of \.npz"):
        read_features(tmp_path / "x.csv")
    pd.DataFrame({"features": [[1.0, 2.0], [1.0]], "labels": [0, 1]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="equally long lists"):
        read_features(tmp_path / "x.parquet")


def test_superclasses_are_measured_beside_the_classes():
    result = analyze(*SAMPLE, superclasses={"0": "even", "1": "odd", "2": "even"})
    assert set(result.tasks) == {"labels", "superclass"}
    assert result.tasks["superclass"].classes == ("even", "odd")
    expected = analyze(FEATURES, LABELS % 2)
    np.testing.assert_allclose(off_diagonal(result.tasks["superclass"].cdnv), off_diagonal(expected.cdnv), rtol=1e-6)
    (axes,) = result.axes.values()
    assert axes.violations == 0  # nested labels are not independent: no bound, no violation
    assert np.isnan(axes.bound["median"])


def test_superclasses_must_map_every_class():
    with pytest.raises(ValueError, match=r"no entry for classes \['2'\]"):
        analyze(*SAMPLE, superclasses={"0": "even", "1": "odd"})
    with pytest.raises(ValueError, match="one labeling"):
        analyze(FEATURES, {"a": LABELS, "b": LABELS}, superclasses={"0": "even"})


@pytest.mark.slow
def test_intervals_enclose_most_estimates():
    result = analyze(*SAMPLE, replicates=10)
    intervals = result.task.intervals
    assert {"mean_cdnv", "mean_directional_cdnv", "exact_cantelli", "exact_conditional"} <= set(intervals)
    for name, one in intervals.items():
        assert np.all(one.low <= one.high), name
    np.testing.assert_allclose(intervals["mean_cdnv"].estimate, mean_over_pairs(result.cdnv), rtol=0.1)
    assert set(result.to_dict()["tasks"]["labels"]["intervals"]["mean_cdnv"]) == {"low", "high"}
    assert analyze(*SAMPLE).task.intervals == {}


def test_halves_share_no_sample_and_all_classes(single):
    first, second = single.task.halves(seed=1)
    rows = [{tuple(row) for row in np.asarray(half.features)} for half in (first, second)]
    assert not rows[0] & rows[1]
    assert len(rows[0] | rows[1]) == len(FEATURES)
    for a, b, whole in zip(first.counts, second.counts, single.task.counts, strict=True):
        assert a + b == whole
        assert abs(a - b) <= 1
    assert first.certificate("exact_cantelli").bound.shape == second.few_shot_error().mean.shape


def test_halves_need_four_samples():
    task = dnc.analyze(FEATURES[:5], np.array([0, 0, 1, 1, 1]), shots=[1], repeats=1).task
    with pytest.raises(ValueError, match="class '0' has 2 samples: halves need four"):
        task.halves()


def test_lidar_of_views_is_recorded_beside_the_other_spectra():
    views = np.random.default_rng(0).normal(size=(9, 4, 8))
    result = analyze(*SAMPLE, views=views)
    assert result.to_dict()["spectrum"]["lidar"] == float(lidar(views))
    for wrong in (views[0], views[:, :1], np.full_like(views, np.nan)):
        with pytest.raises(ValueError, match=r"views of shape .*: give finite features \[n, q, d\]"):
            analyze(*SAMPLE, views=wrong)


def test_spectrum_and_neural_collapse_are_recorded(single):
    record = single.to_dict()
    assert 1 <= record["spectrum"]["rankme"] <= 8
    assert record["tasks"]["labels"]["neural_collapse"]["within_class_variability"] > 0
    scaled = analyze(np.float64(FEATURES) * 1e200, LABELS).to_dict()
    np.testing.assert_allclose(scaled["spectrum"]["rankme"], record["spectrum"]["rankme"], rtol=1e-4)


def test_a_folder_of_shards_is_one_set(tmp_path):
    for index, part in enumerate((slice(0, 100), slice(100, None))):
        np.savez(tmp_path / f"shard_{index}.npz", features=FEATURES[part], labels=LABELS[part])
    assert_holds_the_sample(read_features(tmp_path))
    np.savez(tmp_path / "shard_2.npz", features=FEATURES[:, :2], labels=LABELS)
    with pytest.raises(ValueError, match=r"shard_2.npz holds other arrays"):
        read_features(tmp_path)


def test_close_classes_among_far_ones_are_refused():
    rng = np.random.default_rng(0)
    labels, features = np.arange(120) % 4, rng.normal(size=(120, 20))
    features[labels == 1, 0] += 3
    far = np.array([0, 0, 1, -1])[labels, None]
    near = analyze(features + 1e6 * far, labels, shots=[10])
    alone = analyze(features[labels < 2], labels[labels < 2], shots=[10])
    np.testing.assert_allclose(near.directional_cdnv[0, 1], alone.directional_cdnv[0, 1], rtol=1e-3)
    with pytest.raises(ValueError, match="'0' and '1' lie 2e-10 of the features' spread apart"):
        analyze(features + 10**10.25 * far, labels, shots=[10]).cdnv  # noqa: B018


@pytest.mark.parametrize("offset", [1e6, 1e8, 1e12])
def test_classes_too_far_from_the_mean_for_float32_are_refused(offset):
    rng = np.random.default_rng(0)
    labels, features = np.arange(120) % 3, 0.1 * rng.normal(size=(120, 8))
    features[labels == 1, 0] += 1
    near = analyze(features, labels).directional_cdnv[0, 1]
    features[labels == 2] += 1e3
    np.testing.assert_allclose(analyze(features, labels).directional_cdnv[0, 1], near, rtol=0.01)
    features[labels == 2] += offset
    with pytest.raises(ValueError, match=r"classes '0' and '1' of labels lie 0.99 apart and .*e\+\d+ from the mean"):
        analyze(features, labels)
    features[labels == 1] = features[labels == 0]
    assert analyze(features, labels).directional_cdnv[0, 1] == np.inf


def test_the_spectrum_of_centered_features_does_not_depend_on_an_offset():
    features, labels = SAMPLE
    near, far = (analyze(features + np.float64(offset), labels).spectrum for offset in (0, 1e9))
    for name in ("effective_rank", "participation_ratio", "alpha_req"):
        np.testing.assert_allclose(far[name], near[name], rtol=1e-4)


def test_the_largest_float64_have_a_result():
    features = 1.7e308 * np.random.default_rng(0).uniform(-1, 1, size=FEATURES.shape)
    assert np.isfinite(analyze(features, LABELS).directional_cdnv[0, 1])


def test_one_labeling_has_no_axes(single, monkeypatch):
    monkeypatch.setattr("dnc.geometry.axes.decision_axes", None)  # k^2 / 2 axes would be measured for nothing
    assert analyze(*SAMPLE, repeats=1).axes == {}


def test_few_samples_carry_a_warning_and_corrected_values():
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    features = rng.normal(size=(120, 200)) * 0.3
    features[np.arange(120), labels] += 3
    task, population = analyze(features, labels).task, 200 * 0.09 * 2 / 18
    assert np.nanmean(task.cdnv) < population / 1.03
    np.testing.assert_allclose(np.nanmean(task.corrected.cdnv), population, rtol=0.03)
    few = analyze(features[:24], labels[:24], repeats=1)
    (warning,) = few.record.tasks["labels"].warnings
    assert "few samples for the dimension, 8 in the smallest class: CDNV" in warning
    assert "once corrected" in warning
    assert warning in few.summary()


def test_what_a_certificate_was_made_of_and_which_is_missing_is_recorded(monkeypatch):
    task = analyze(*SAMPLE, repeats=1).task
    assert (task.record().overlap, task.record().missing) == ("exact", {})
    monkeypatch.setattr("dnc.analysis.task._QUERY_OPERATIONS", 1)
    left_out = analyze(*SAMPLE, repeats=1)
    warnings = left_out.task.record().warnings
    assert [warning.split(":")[0] for warning in warnings] == [
        "exact_conditional is left out",
        "predicted is left out",
    ]
    assert "operations" in warnings[0]
    assert "certificate('exact_conditional') computes it" in warnings[0]
    computed = left_out.certificate("exact_conditional").bound
    np.testing.assert_allclose(computed, task.certificate("exact_conditional").bound)
    kept = left_out.task.record()
    assert kept.missing == {}
    np.testing.assert_allclose(kept.certificates["exact_conditional"].bound, computed)
    monkeypatch.setattr("dnc.geometry.measure.LARGEST_COVARIANCES", 1)
    monkeypatch.setattr("dnc.geometry.measure.OVERLAP_OPERATIONS", 1)
    assert "upper bound" in analyze(*SAMPLE, repeats=1).summary()


def test_debugging_flags_that_stop_at_nan_are_refused():
    with jax.debug_nans(True), pytest.raises(ValueError, match=r"jax_debug_nans .* is on, but nan .* turn it off"):
        analyze(*SAMPLE)


def test_one_number_of_shots_is_refused_with_what_to_write():
    with pytest.raises(ValueError, match=r"shots=5 must be a sequence of positive integers, such as \[1, 5\]"):
        check_shots(5)


@pytest.mark.slow
def test_float64_by_default_changes_no_number(single):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # the tests' own promotion is strict
        actual = analyze(*SAMPLE, class_names=["ant", "<bee>", "cat"], name="toy", step=7, replicates=2)
        table = actual.to_pandas()
    columns = ["mean_cdnv", "mean_directional_cdnv", "exact_cantelli", "exact_joint", "exact_conditional", "rankme"]
    pd.testing.assert_frame_equal(table[columns], single.to_pandas()[columns], rtol=1e-4)


def test_labels_of_a_data_frame_become_labelings_as_the_refusal_says():
    frame = pd.DataFrame(FACTORIAL[1])
    with pytest.raises(ValueError, match=r"of a pandas DataFrame, dict\(frame\.items\(\)\)"):
        analyze(FACTORIAL[0], frame)
    assert set(analyze(FACTORIAL[0], dict(frame.items())).tasks) == set(FACTORIAL[1])


def test_notebooks_show_a_short_form_and_measure_nothing():
    features, labels = clusters(n=60, k=3, d=4, balanced=True)
    result = dnc.analyze(features, {"<b>color</b>": labels, "shape\x1b": labels % 2}, shots=[1, 5])
    assert repr(result) == "<Analysis of 60 x 4 features: <b>color</b> (3 classes), shape\ufffd (2 classes)>"
    assert len(repr(result.tasks["<b>color</b>"])) < 100
    page = result._repr_html_()
    assert "<th>&lt;b&gt;color&lt;/b&gt;</th><td>3</td><td>20 to 20</td><td>1, 5</td>" in page
    assert "shape\ufffd" in page
    assert "record" not in vars(result)
    assert all("geometry" not in vars(task) for task in result.tasks.values())


def test_a_record_without_the_guarantee_lacks_nothing_else(single):
    without = analyze(*SAMPLE, class_names=["ant", "<bee>", "cat"], name="toy", step=7, guarantees=False).to_dict()
    every = single.to_dict()
    assert without["tasks"]["labels"].pop("guarantee") is None
    assert every["tasks"]["labels"].pop("guarantee")["upper"]
    assert without == every
