"""Arrays from anywhere: the same values as NumPy's own, or a refusal that says what to do."""

import inspect
import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
import torch

import dnc
from dnc.geometry import axes, collapse, decomposition, spectrum
from dnc.geometry.inputs import as_array, as_codes, as_numbers, converted
from dnc.geometry.validation import as_features, encode_labels
from tests.samples import assert_leaves_close, clusters

WHOLE = np.arange(12, dtype=np.float32).reshape(4, 3)
TEXT = ["cat", "dog", "cat", "owl"]


def objects(items):
    array = np.empty(len(items), object)
    array[:] = items
    return array


@pytest.mark.parametrize(
    "value",
    [
        WHOLE.astype(">f4"),
        WHOLE.astype(np.longdouble),
        WHOLE.astype(ml_dtypes.bfloat16),
        WHOLE.astype(ml_dtypes.float8_e4m3fn),
        np.ma.masked_array(WHOLE, mask=False),
        jnp.asarray(WHOLE, jnp.bfloat16),
        torch.tensor(WHOLE, requires_grad=True),
        torch.tensor(WHOLE).bfloat16(),
        torch.tensor(WHOLE).to(torch.float8_e4m3fn),
        pd.DataFrame(WHOLE),
        pd.DataFrame(WHOLE).astype({0: "Int64", 1: "Float32"}),
        pa.table({name: WHOLE[:, i] for i, name in enumerate("abc")}),
        WHOLE.tolist(),
        tuple(map(torch.tensor, WHOLE)),
        [pd.Series(row) for row in WHOLE],
    ],
    ids=lambda value: type(value).__name__,
)
def test_features_of_any_container_keep_their_values(value):
    array = as_features(value)
    assert type(array) is np.ndarray
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, WHOLE)


@pytest.mark.parametrize(
    ("value", "classes"),
    [
        (objects([np.int64(3), np.int64(1)]), ["1", "3"]),
        (objects([b"dog", b"caf\xc3\xa9"]), ["café", "dog"]),
        (objects([np.str_("dog"), "cat"]), ["cat", "dog"]),
        (np.array(["dog", "cat"], np.dtypes.StringDType()), ["cat", "dog"]),
        (np.array([5, 2**63 + 7, 2**64 - 1], np.uint64), ["5", str(2**63 + 7), str(2**64 - 1)]),
        ([2**63, 2**63 + 1, -1], ["-1", str(2**63), str(2**63 + 1)]),
        ([2**70, 2**70 + 1], [str(2**70), str(2**70 + 1)]),
        ([2**53, 2**53 + 1], [str(2**53), str(2**53 + 1)]),
        (np.array([3, 1], ">i8"), ["1", "3"]),
        (torch.tensor([3, 1]), ["1", "3"]),
        (pd.Series([3, 1], dtype="Int64"), ["1", "3"]),
        (pd.array(["dog", "cat"], dtype="string"), ["cat", "dog"]),
        (pd.Categorical(["dog", "cat"]), ["cat", "dog"]),
        (pd.Index(["dog", "cat"]), ["cat", "dog"]),
        (pa.chunked_array([["dog"], ["cat"]]), ["cat", "dog"]),
        (pa.array(["dog", "cat"]).dictionary_encode(), ["cat", "dog"]),
        (pa.chunked_array([pa.array(["dog", "cat"]).dictionary_encode()]), ["cat", "dog"]),
        (pa.array([2**64 - 1, 1], pa.uint64()), ["1", str(2**64 - 1)]),
        ([True, False], ["0", "1"]),
        (range(2), ["0", "1"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_labels_of_any_container_keep_their_names(value, classes):
    codes, names = encode_labels(value)
    assert names == classes
    assert sorted(codes.tolist()) == list(range(len(classes)))


HOLES = np.array([False, True, False, True])
MISSING = {
    "masked": np.ma.masked_array([1, 2, 3, 4], mask=HOLES),
    "masked text": np.ma.masked_array(TEXT, mask=HOLES),
    "nan in a list of text": ["cat", np.nan, "dog", np.nan],
    "none in a list": [1, None, 2, None],
    "masked in a list": [objects(TEXT)[0], None, "dog", np.float32(np.nan)],
    "nan among objects": objects(["cat", np.float32(np.nan), "dog", None]),
    "NA": pd.Series([1, pd.NA, 2, pd.NA], dtype="Int64"),
    "NA in a list": ["cat", pd.NA, "dog", pd.NaT],
    "NaT": pd.Series(pd.to_datetime(["2020-01-01", None, "2020-01-01", None])),
    "category": pd.Categorical(["cat", None, "dog", None]),
    "StringDType": np.array(["cat", np.nan, "dog", np.nan], np.dtypes.StringDType(na_object=np.nan)),
    "null": pa.array([1, None, 2, None]),
    "null text": pa.chunked_array([["cat", None], ["dog", None]]),
    "null in a dictionary": pa.DictionaryArray.from_arrays([0, 1, 2, 1], ["cat", None, "dog"]),
    "nan": np.array([0.0, np.nan, 1.0, np.nan]),
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_labels_are_counted_and_located(name):
    with pytest.raises(ValueError, match=r"y hold 2 missing values .* in 2 of 4 rows \(first rows: 1, 3\): drop"):
        encode_labels(MISSING[name], name="y")


@pytest.mark.parametrize(
    "value",
    [
        np.ma.masked_array(WHOLE, mask=WHOLE > 10),
        pd.DataFrame(WHOLE).mask(WHOLE > 10),
        pd.DataFrame(WHOLE).convert_dtypes().mask(WHOLE > 10),
        np.where(WHOLE > 10, None, WHOLE),
        [[None if x > 10 else x for x in row] for row in WHOLE.tolist()],
    ],
)
def test_missing_features_are_counted_and_located(value):
    with pytest.raises(ValueError, match=r"features hold 1 missing values .* in 1 of 4 rows \(first rows: 3\)"):
        as_features(value)


class OfAnotherLibrary:
    def __array__(self, dtype=None, copy=None):
        return np.ma.masked_array([-9999, 2], mask=[1, 0])


MASKED = np.ma.masked_array([1, 2], mask=[0, 1])


@pytest.mark.parametrize(
    "value", [pa.table({"a": [None, 1, 3]}), [MASKED[::-1]], [[MASKED[::-1]], [MASKED[::-1]]], OfAnotherLibrary()]
)
def test_missing_values_are_found_inside_containers(value):
    with pytest.raises(
        ValueError, match=r"features(\[0\]\[0\]|\[0\]| column 'a'|) hold 1 missing values .*\(first rows: 0\)"
    ):
        as_features(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (scipy.sparse.csr_matrix(WHOLE), r"a sparse csr_matrix: give features\.toarray\(\)"),
        (objects(list(WHOLE)), r"one ndarray per row, so give np\.stack\(list\(features\)\)"),
        (pd.Series(list(WHOLE)), r"give np\.stack\(list\(features\)\)"),
        (pa.array(WHOLE.tolist()), r"give np\.stack\(list\(features\)\)"),
        (WHOLE.astype(object), r"dtype object: give features\.astype\(np\.float64\)"),
        ([WHOLE[:2], WHOLE[2:]], r"got \(2, 2, 3\): of batches give np\.concatenate\(features\)"),
        ([WHOLE[:1], WHOLE[1:]], r"unequal rows of shapes \(1, 3\), \(3, 3\): of batches give np\.concatenate"),
        ([[1.0], [1.0, 2.0]], "unequal rows: of batches"),
        (WHOLE.astype(complex), r"dtype complex128: take np\.abs"),
        (torch.tensor(WHOLE, device="meta"), "meta device"),
        (torch.tensor(WHOLE).to_sparse(), r"sparse tensor: give features\.to_dense\(\)"),
        (WHOLE.astype(ml_dtypes.bfloat16).view("V2"), r"\.view\(ml_dtypes\.bfloat16\)"),
        (pd.DataFrame({"x": [1.0, 2.0], "name": ["a", "b"]}), r"columns that are not numbers, \['name'\]"),
        ({"x": WHOLE}, "features are a dict, not an array"),
        ("some.npz", r"'some\.npz', not an array: read files with dnc\.features\.files\.read_features"),
        (types.SimpleNamespace(__array__=1), "cannot be read|not an array"),
    ],
)
def test_other_features_are_refused_with_a_remedy(value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        as_features(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.eye(3, dtype=int), r"shape \(3, 3\): they look one-hot, so give labels\.argmax\(axis=1\)"),
        (pd.DataFrame({"a": [0, 1], "b": [3, 2]}), r"for several labelings give a dict.*dict\(frame\.items\(\)\)"),
        (np.zeros((4, 1, 1)), "give one label per row"),
        (np.array([3e19, 4e19, 1.0]), r"labels reach 40000000000000000000, but float64 .* up to 9007199254740992"),
        (np.array([2.0**24 + 2, 1], np.float32), "float32 tells integers apart only up to 16777216"),
        (np.array([b"caf\xe9", b"dog"]), r"labels hold bytes that are not UTF-8, b'caf\\xe9'"),
        ([1, "a"], r"objects of type \['int', 'str'\]"),
        ([(1, 2), (3,)], "unequal rows"),
    ],
)
def test_other_labels_are_refused_with_a_remedy(value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        encode_labels(value)


def test_labels_of_minus_one_give_a_warning_unless_they_are_one_of_two_classes():
    with pytest.warns(UserWarning, match="labels hold -1 in 2 of 5 rows, measured as a class of its own"):
        encode_labels([0, -1, 1, -1, 2])
    assert encode_labels([-1, 1, 1])[1] == ["-1", "1"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["a", "b"], "codes must be one-dimensional integers, got <U1 .*: map them with .*encode_labels"),
        ([2**31, 0], r"codes range over 0\.\.2147483648, which are not class numbers"),
        ([[0], [1]], r"give codes\[:, 0\]"),
    ],
)
def test_class_numbers_are_integers_that_fit(value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        as_codes(value, "codes")


def test_nothing_is_copied_without_need():
    assert np.shares_memory(as_array(WHOLE, "x"), WHOLE)
    assert np.shares_memory(as_numbers(torch.from_numpy(WHOLE), "x"), WHOLE)


N, K, D = 40, 3, 4
FEATURES, LABELS = clusters(n=N, k=K, d=D)
KEY = jax.random.key(0)
SPLIT = dict(train_features=FEATURES, train_labels=LABELS, test_features=FEATURES, test_labels=LABELS, num_classes=K)
SAMPLE = dict(features=FEATURES, labels=LABELS, num_classes=K)
ENTRIES = {
    "pair_geometry": (dnc.pair_geometry, SAMPLE | {"weights": np.ones(N, np.float32)}),
    "from_batch": (dnc.ClassMoments.from_batch, SAMPLE),
    "decision_axes": (axes.decision_axes, SAMPLE),
    "interference_budget": (
        lambda other_labels, **rest: axes.interference_budget(**rest, other_labels=[other_labels]),
        SAMPLE | {"other_labels": LABELS, "other_num_classes": (K,)},
    ),
    "neural_collapse": (collapse.neural_collapse, SAMPLE),
    "self_duality": (collapse.self_duality, {"means": FEATURES[:K], "classifier": FEATURES[-K:]}),
    "nearest_center": (
        collapse.nearest_center_disagreement,
        {"features": FEATURES, "means": FEATURES[:K], "predictions": LABELS},
    ),
    "variance_split": (
        decomposition.variance_split,
        {"features": FEATURES, "labels": LABELS, "pairs": np.array([[0, 1]], np.int32)},
    ),
    "label_free": (spectrum.label_free, {"features": FEATURES}),
    "singular_values": (spectrum.singular_values, {"features": FEATURES}),
    "lidar": (spectrum.lidar, {"views": FEATURES.reshape(N // 2, 2, D)}),
    "stream": (
        lambda features, labels: dnc.stream_pair_geometry(dnc.ArrayBatches(features, labels, rows=N), K),
        {"features": FEATURES, "labels": LABELS},
    ),
    "stream of batches": (
        lambda features, labels: dnc.stream_pair_geometry([(features, labels)], K),
        {"features": FEATURES, "labels": LABELS},
    ),
    "few_shot_error": (dnc.few_shot_error, SAMPLE | {"key": KEY, "shots": [1], "repeats": 2}),
    "few_shot_linear_error": (
        dnc.few_shot_linear_error,
        SAMPLE | {"key": KEY, "shots": [1], "repeats": 1, "max_iterations": 2},
    ),
    "jackknife": (
        dnc.jackknife,
        SAMPLE | {"key": KEY, "statistic": lambda geometry: geometry.variance, "groups": 2, "overlap": "none"},
    ),
    "linear_probe": (dnc.linear_probe, SPLIT | {"key": KEY, "strengths": [1.0], "max_iterations": 2}),
    "knn_accuracy": (dnc.knn_accuracy, SPLIT | {"neighbors": [3]}),
    "knn_leave_one_out": (dnc.knn_leave_one_out, SAMPLE | {"neighbors": [3]}),
}
CONTAINERS = {
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "torch": lambda x: torch.tensor(x, requires_grad=x.dtype == np.float32),
    "pandas": lambda x: pd.DataFrame(x) if x.ndim == 2 else pd.Series(x) if x.ndim == 1 else x.tolist(),
    "list": lambda x: x.tolist(),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_takes_any_container_and_gives_the_same(entry):
    function, arguments = ENTRIES[entry]
    given = {name for name, value in arguments.items() if isinstance(value, np.ndarray) and name != "pairs"}
    expected = result_of(function, arguments)
    for container in CONTAINERS.values():
        actual = result_of(function, arguments | {key: container(arguments[key]) for key in given})
        assert_leaves_close(actual, expected, rtol=1e-6)  # frames lie in memory by columns: sums round otherwise


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_refuses_missing_values(entry):
    function, arguments = ENTRIES[entry]
    for key, value in arguments.items():
        if isinstance(value, np.ndarray) and key != "pairs":
            holes = np.zeros(value.shape, bool)
            holes[1] = True
            with pytest.raises(ValueError, match=r"missing values .*first rows: 1\)"):
                function(**arguments | {key: np.ma.masked_array(value, holes)})


def result_of(function, arguments):
    result = function(**arguments)
    if not hasattr(result, "__dataclass_fields__") or jax.tree.leaves(result) != [result]:
        return result
    return vars(result)


def test_tracers_and_jax_arrays_pass_as_they_are():
    program = inspect.unwrap(dnc.pair_geometry, stop=lambda f: hasattr(f, "_cache_size"))
    traced = jax.jit(lambda x, y: dnc.pair_geometry(x, y, K))(FEATURES, LABELS)
    assert_leaves_close(traced, program(FEATURES, LABELS, K), rtol=0)
    untouched = converted(x=lambda value, name: pytest.fail("converted"))(lambda x: x)
    assert untouched(given := jnp.asarray(FEATURES)) is given
    assert untouched(None) is None
