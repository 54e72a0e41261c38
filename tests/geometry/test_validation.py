import jax.numpy as jnp
import numpy as np
import pytest

from dnc.geometry import validation
from dnc.geometry.measure import pair_geometry
from tests import oracles
from tests.samples import clusters, off_diagonal


def test_valid_input_passes():
    validation.validate(*clusters(n=100))


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((4, 2)), [0, 0, 1], "features have 4 rows but labels has 3"),
        (np.zeros((4, 2)), [0, 0, 0, 0], "one class"),
        (np.zeros((4, 2)), [0, 0, 0, 1], "at least 2 samples: class '1' has 1"),
        (np.zeros((4, 2)), [0, 0, 2, 2], "class '1' has 0"),
        (np.zeros((4, 2)), [-1, -1, 0, 0], "got -1"),
        (np.zeros((4, 2)), [0.0, 0, 1, 1], "one-dimensional integers, got float64"),
        (np.zeros((4,)), [0, 0, 1, 1], r"shape \[n, d\], got \(4,\)"),
        (np.zeros((0, 2)), [], "must not be empty"),
        (np.zeros((4, 2), object), [0, 0, 1, 1], "real numbers, got dtype object"),
        (np.zeros((4, 2), complex), [0, 0, 1, 1], "real numbers, got dtype complex128"),
        ([["a", "b"]] * 4, [0, 0, 1, 1], "real numbers"),
    ],
)
def test_bad_input_names_argument_and_value(features, labels, message):
    labels = np.asarray(labels, int if len(labels) == 0 else None)
    with pytest.raises((ValueError, TypeError), match=message):
        validation.validate(features, labels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_features_are_counted_and_located(value):
    features, labels = clusters(n=100)
    features[[7, 30], 3] = value
    features[30, 4] = value
    with pytest.raises(ValueError, match=r"3 NaN or Inf values in 2 of 100 rows \(first rows: 7, 30\)"):
        validation.validate(features, labels)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([3, 1, 3, 1], ["1", "3"]),
        ([-5, 7, -5, 7], ["-5", "7"]),
        (np.array([3, 1, 3, 1], np.uint8), ["1", "3"]),
        ([True, False, True, False], ["0", "1"]),
        ([2.0, 1.0, 2.0, 1.0], ["1", "2"]),
        (["dog", "cat", "dog", "cat"], ["cat", "dog"]),
        (np.array(["dog", "cat", "dog", "cat"], object), ["cat", "dog"]),
        (np.array([b"dog", b"cat", b"dog", b"cat"]), ["cat", "dog"]),
        (jnp.array([9, 8, 9, 8]), ["8", "9"]),
    ],
)
def test_labels_of_any_kind_map_to_codes_and_keep_names(labels, names):
    codes, classes = validation.encode_labels(labels)
    assert classes == names
    assert codes.dtype == np.int32
    assert sorted(set(codes.tolist())) == [0, 1]
    assert codes[0] == codes[2] != codes[1] == codes[3]


def test_class_names_index_integers_and_order_strings():
    codes, names = validation.encode_labels([2, 0, 2], ["ant", "bee", "cat"])
    assert names == ["ant", "cat"]  # bee has no samples
    np.testing.assert_array_equal(codes, [1, 0, 1])
    codes, names = validation.encode_labels(["b", "a"], ["b", "a"])
    assert names == ["b", "a"]
    np.testing.assert_array_equal(codes, [0, 1])


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 3], ["a", "b"], r"must index class_names \(0..1\), got 0..3"),
        (["a", "z"], ["a", "b"], "hold \\['z'\\], which are not in class_names"),
        ([0, 1], ["a", "a"], "repeat a name"),
        ([0.5, 1.0], None, "float64 with fractions or Inf"),
        ([np.nan, 1.0, np.nan], None, r"2 missing values .* in 2 of 3 rows \(first rows: 0, 2\)"),
        ([[0], [1]], None, r"one-dimensional array, got shape \(2, 1\): give labels\[:, 0\]"),
        ([], None, "non-empty"),
        (np.array([0, "a"], object), None, "objects of type \\['int', 'str'\\]"),
        ([1j, 2j], None, "got dtype complex128"),
    ],
)
def test_bad_labels_are_refused(labels, names, message):
    with pytest.raises((ValueError, TypeError), match=message):
        validation.encode_labels(labels, names)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(np.float16, 1.0)] + [(dtype, scale) for dtype in (np.float32, np.float64) for scale in (1e-20, 1.0, 1e20)],
)
def test_standardized_features_have_the_same_ratios_at_any_scale(dtype, scale):
    features, labels = clusters(seed=1, n=200, k=3, d=8)
    features = (scale * features.astype(np.float64)).astype(dtype)
    standard, unit = validation.standardize(features)
    geometry = pair_geometry(standard, labels, 3)
    expected = oracles.pair_geometry(features.astype(np.float64) / scale, labels)
    for name in ("cdnv", "directional_cdnv", "theta"):
        actual = off_diagonal(getattr(geometry, name))
        np.testing.assert_allclose(actual, off_diagonal(expected[name]), rtol=1e-5, err_msg=name)
    distance = np.asarray(geometry.squared_distance, np.float64) * (unit / scale) ** 2
    np.testing.assert_allclose(distance, expected["squared_distance"], rtol=1e-5)


def test_standardized_float64_features_survive_an_offset_of_a_million():
    features, labels = clusters(seed=2, n=200, k=3, d=8)
    features = features.astype(np.float64) + 1e6
    geometry = pair_geometry(validation.standardize(features)[0], labels, 3)
    expected = oracles.pair_geometry(features, labels)["directional_cdnv"]
    np.testing.assert_allclose(off_diagonal(geometry.directional_cdnv), off_diagonal(expected), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_normalized_rows_have_norm_one(scale):
    features, _ = clusters(seed=3, n=50, k=2, d=4, scale=scale)
    standard, unit = validation.standardize(validation.unit_rows(features))
    rows = features.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(unit * standard, rows - rows.mean(axis=0), atol=1e-6)
    features[11] = 0
    with pytest.raises(ValueError, match="row 11 is all zeros"):
        validation.unit_rows(features)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "bfloat16"])
def test_other_number_types_are_features_too(dtype):
    array = validation.as_features(jnp.arange(8).reshape(4, 2).astype(dtype))
    standard, unit = validation.standardize(array)
    np.testing.assert_allclose(unit * standard, np.arange(8).reshape(4, 2) - [3.0, 4.0])
    np.testing.assert_array_equal(validation.standardize(array * 0)[0], np.zeros((4, 2)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
def test_scaled_and_centered_features_are_those_of_float64_whatever_is_made_at_once(dtype, monkeypatch):
    features = np.random.default_rng(0).normal(300, 20, size=(30, 4)).astype(dtype)
    expected = features.astype(np.float64) / np.abs(features.astype(np.float64)).max()
    centered = expected - expected.mean(axis=0)
    for rows in (7, 4096):
        monkeypatch.setattr(validation, "_ROWS_AT_ONCE", rows)
        scaled, found = validation.scaled_and_centered(features)
        np.testing.assert_allclose(scaled, expected, rtol=1e-6)
        np.testing.assert_allclose(found, centered / np.abs(centered).max(), rtol=1e-5, atol=1e-7)
