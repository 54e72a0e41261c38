"""Feature files: read exactly, and refused by name, with what to do, where they cannot be."""

import contextlib
import json
import pathlib
import struct
import zipfile

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from dnc.features.files import read_features

X = np.random.default_rng(0).normal(size=(12, 3))
Y = np.arange(12) % 3


@pytest.fixture
def path(tmp_path):
    return lambda name: tmp_path / name


def test_safetensors_are_read_in_their_own_dtype(path):
    ids = np.array([2**40 + 1, 2**40 + 2, 2**63 - 1], np.int64)[Y]
    save_file({"features": torch.tensor(X + 1e9), "labels": torch.tensor(ids)}, path("x.safetensors"))
    file = read_features(path("x.safetensors"))
    np.testing.assert_array_equal(file.features, X + 1e9)
    np.testing.assert_array_equal(file.labels, ids)


def test_safetensors_of_bfloat16_are_read_and_of_float8_refused(path):
    tensors = {"features": torch.tensor(X).bfloat16(), "labels": torch.tensor(Y).to(torch.uint64)}
    save_file(tensors, path("x.safetensors"))
    file = read_features(path("x.safetensors"))
    assert file.features.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(file.features.astype(np.float32), tensors["features"].float())
    save_file(tensors | {"features": torch.tensor(X).to(torch.float8_e4m3fn)}, path("x.safetensors"))
    with pytest.raises(ValueError, match=r"x\.safetensors is not .* type F8_E4M3: save it as float32"):
        read_features(path("x.safetensors"))


def write_npz(path, **headers):
    """An npz file of these headers, with little behind them."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, (shape, padding) in headers.items():
            header = str({"descr": "<f8", "fortran_order": False, "shape": shape}).encode() + b"\n"
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + padding)


def test_a_header_that_claims_more_than_the_file_is_refused_before_memory_is_asked_for(path):
    claim = r"claims 80,000,000,000,000 bytes of data, of which the file can hold"
    write_npz(path("x.npz"), features=((10**12, 10), b"0" * 80), labels=((1,), b"0" * 8))
    with pytest.raises(ValueError, match=rf"x\.npz is not a readable npz file: its header {claim} 80"):
        read_features(path("x.npz"))
    with zipfile.ZipFile(path("x.npz")) as archive:
        path("x.npy").write_bytes(archive.read("features.npy"))
    np.save(path("y.npy"), Y)
    with pytest.raises(ValueError, match=rf"x\.npy is not a readable npy file: its header {claim} 80"):
        read_features(path("x.npy"), path("y.npy"))
    header = json.dumps({"x": {"dtype": "F64", "shape": [10**13], "data_offsets": [0, 8 * 10**13]}}).encode()
    path("x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match=r"x\.safetensors is not a readable"):
        read_features(path("x.safetensors"))


def test_names_that_a_file_holds_twice_are_refused(path):
    columns = {"features": pa.array(X.tolist()), "labels": pa.array(Y), "more": pa.array(Y)}
    pq.write_table(pa.table([*columns.values()], ["features", "labels", "labels"]), path("x.parquet"))
    np.savez(path("x.npz"), features=X, labels=Y)
    with zipfile.ZipFile(path("x.npz"), "a") as archive:
        content = archive.read("labels.npy")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("labels.npy", content)
    for name in ("x.parquet", "x.npz"):
        with pytest.raises(ValueError, match=f"{name} is not .*: it holds 'labels' 2 times: keep one"):
            read_features(path(name))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (struct.pack("<Q", 2**62) + b"{}", "header too large"),
        (struct.pack("<Q", 10**5) + b'{"a":' + b"[" * (10**5 - 5), "recursion limit"),
    ],
)
def test_headers_of_safetensors_are_bounded(path, header, message):
    path("x.safetensors").write_bytes(header)
    with pytest.raises(ValueError, match=rf"x\.safetensors is not a readable safetensors file: .*{message}"):
        read_features(path("x.safetensors"))


def test_flipped_bytes_of_any_member_are_refused(path):
    for write in (np.savez, np.savez_compressed):
        write(path("x.npz"), features=X, labels=Y)
        content = path("x.npz").read_bytes()
        for place in range(60, len(content) // 2, 23):
            path("x.npz").write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
            with contextlib.suppress(ValueError):  # what is not refused is what was written
                np.testing.assert_array_equal(read_features(path("x.npz")).features, X)


def test_flipped_bytes_of_parquet_pages_are_refused_where_they_have_checksums(path):
    table = pa.table({"features": X.tolist(), "labels": Y})
    pq.write_table(table, path("x.parquet"), write_page_checksum=True, compression="none", use_dictionary=False)
    content = path("x.parquet").read_bytes()
    place = content.index(np.float64(X[5, 1]).tobytes())
    path("x.parquet").write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(ValueError, match=r"x\.parquet is not a readable Parquet file: .*checksum"):
        read_features(path("x.parquet"))


def test_arrays_of_other_names_are_listed_and_read_where_they_are_named(path):
    np.savez(path("x.npz"), embeddings=X, target=Y, labels_other=Y)
    pq.write_table(pa.table({"embeddings": X.tolist(), "target": Y}), path("x.parquet"))
    save_file({"embeddings": torch.tensor(X), "target": torch.tensor(Y)}, path("x.safetensors"))
    listed = {
        "x.npz": r"embeddings float64 \[12, 3\], .*target int64 \[12\]",
        "x.parquet": "embeddings list<element: double>, target int64",
        "x.safetensors": r"embeddings F64 \[12, 3\], target I64 \[12\]",
    }
    for name, arrays in listed.items():
        with pytest.raises(ValueError, match=f"holds no 'features': it has {arrays}; .*--features_key=NAME"):
            read_features(path(name))
        with pytest.raises(ValueError, match=f"holds no 'y': it has {arrays}; .*--labels_key=NAME"):
            read_features(path(name), features_key="embeddings", labels_key="y")
        file = read_features(path(name), features_key="embeddings", labels_key="target")
        np.testing.assert_array_equal(file.features, X)
        np.testing.assert_array_equal(file.labels, Y)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array(["cat", "dog", "owl"]).take(pa.array(Y)), ["cat", "dog", "owl"]),
        (pa.array(["cat", "dog", "owl"], pa.large_string()).take(pa.array(Y)), ["cat", "dog", "owl"]),
        (pa.array(["cat", "dog", "owl"]).take(pa.array(Y)).dictionary_encode(), ["cat", "dog", "owl"]),
        (pa.array([5, 2**63, 2**64 - 1], pa.uint64()).take(pa.array(Y)), [5, 2**63, 2**64 - 1]),
    ],
)
def test_parquet_labels_keep_their_values(path, labels, expected):
    pq.write_table(pa.table({"features": X.tolist(), "labels": labels}), path("x.parquet"))
    assert read_features(path("x.parquet")).labels.tolist() == [expected[y] for y in Y]


def test_ids_are_read_where_they_name_the_rows(tmp_path):
    arrays = {"features": np.zeros((2, 3), np.float32), "labels": np.array([0, 1])}
    for index, ids in enumerate((np.array(["a", "b"]), np.array([5, 6]))):
        np.savez(tmp_path / f"{index}.npz", **arrays, ids=ids)
        assert read_features(tmp_path / f"{index}.npz").ids == [str(name) for name in ids]
    for ids in (np.array(["a"]), np.zeros((2, 2)), np.array(["a", None], object)):
        np.savez(tmp_path / "other.npz", **arrays, ids=ids)
        assert read_features(tmp_path / "other.npz").ids is None
    assert read_features(tmp_path / "1.npz", labels_key="ids").ids is None
    assert read_features(tmp_path / "1.npz").labels.tolist() == [0, 1]


def test_ids_of_parquet_and_of_shards_are_read(tmp_path):
    rows = {"features": [[0.0, 1.0], [2.0, 3.0]], "labels": [0, 1]}
    expected = (["a", "b"], ["a", "b"]), (["a", None], None), ([["a"], ["b"]], None)
    for index, (ids, found) in enumerate(expected):
        pq.write_table(pa.table({**rows, "ids": ids}), tmp_path / f"{index}.parquet")
        assert read_features(tmp_path / f"{index}.parquet").ids == found
    (tmp_path / "set").mkdir()
    for shard in range(2):
        arrays = {"features": np.full((2, 3), shard, np.float32), "labels_x": np.array([0, 1])}
        np.savez(tmp_path / "set" / f"{shard}.npz", **arrays, ids=np.array([f"{shard}a", f"{shard}b"]))
    file = read_features(tmp_path / "set")
    assert file.ids == ["0a", "0b", "1a", "1b"]
    assert file.with_tasks(["x"]).ids == file.ids


@pytest.mark.parametrize("column", ["features", "inside", "labels"])
def test_nulls_of_parquet_are_counted_and_located(path, column):
    features, labels = X.tolist(), Y.tolist()
    for row in (4, 7):
        if column == "inside":
            features[row][1] = None
        else:
            {"features": features, "labels": labels}[column][row] = None
    pq.write_table(pa.table({"features": features, "labels": labels}), path("x.parquet"))
    with pytest.raises(ValueError, match=r"column '(features|labels)' has 2 missing values \(first rows: 4, 7\)"):
        read_features(path("x.parquet"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.pt", r"x\.pt holds pickles, which are not opened: .*np\.savez"),
        ("x.h5", r"x\.h5 is an HDF5 file: save its arrays, h5py\.File\(path\)\[name\]\[:\], with np\.savez"),
        ("x.zarr", r"x\.zarr is a Zarr store: .*zarr\.open"),
    ],
)
def test_other_formats_are_refused_with_how_to_convert_them(path, name, message):
    path(name).mkdir() if name.endswith("zarr") else path(name).touch()
    with pytest.raises(ValueError, match=message):
        read_features(path(name))


def shards(folder: pathlib.Path, **files):
    for name, (features, labels) in files.items():
        np.savez(folder / f"{name}.npz", features=features, labels=labels)


def test_shards_of_several_kinds_of_labels_are_refused(tmp_path):
    shards(tmp_path, a=(X[:6], Y[:6]), b=(X[6:], Y[6:].astype(str)))
    with pytest.raises(ValueError, match=r"b\.npz holds other arrays .*'labels': 'text'.*'labels': 'integers'"):
        read_features(tmp_path)


def test_the_same_set_twice_in_a_folder_is_refused(tmp_path):
    shards(tmp_path, a=(X[:6], Y[:6]), b=(X[6:], Y[6:]), copy=(X[:6], Y[:6]))
    with pytest.raises(ValueError, match=r"copy\.npz holds the same as .*a\.npz: move one"):
        read_features(tmp_path)
    (tmp_path / "copy.npz").unlink()
    pq.write_table(pa.table({"features": X.tolist(), "labels": Y}), tmp_path / "all.parquet")
    with pytest.raises(ValueError, match=r"holds more than one set, a\.npz, all\.parquet, b\.npz: name one"):
        read_features(tmp_path)


def test_shards_of_two_sets_in_a_folder_are_refused(tmp_path):
    names = ["features-00000-of-00002", "features-00001-of-00002", "features-00000-of-00001"]
    shards(tmp_path, **{name: (X + i, Y) for i, name in enumerate(names)})
    with pytest.raises(ValueError, match=r"more than one set, features-\*-of-00001\.npz, features-\*-of-00002\.npz"):
        read_features(tmp_path)
