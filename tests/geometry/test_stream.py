import itertools

import numpy as np
import pytest

from dnc.geometry.measure import pair_geometry
from dnc.geometry.stream import ArrayBatches, stream_pair_geometry
from tests.geometry.test_pairs import assert_matches_oracle
from tests.samples import clusters, off_diagonal

K, N, D = 4, 700, 16


def sample(offset=0.0):
    return clusters(n=N, k=K, d=D, offset=offset)


@pytest.mark.parametrize(("offset", "rows"), [(0.0, 64), (1e4, 100), (1e4, 1000)])
def test_batches_match_the_float64_loop(offset, rows):
    features, labels = sample(offset)
    assert_matches_oracle(stream_pair_geometry(ArrayBatches(features, labels, rows), K), features, labels)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_memory_map_equals_the_array(tmp_path, dtype):
    features, labels = sample()
    np.save(tmp_path / "features.npy", features.astype(dtype))
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert_matches_oracle(stream_pair_geometry(ArrayBatches(mapped, labels, 100), K), mapped, labels)


@pytest.mark.parametrize("overlap", ["none", "trace", "cauchy_schwarz", "exact"])
def test_every_overlap_equals_that_of_the_array(overlap):
    features, labels = sample()
    streamed = stream_pair_geometry(ArrayBatches(features, labels, 100), K, overlap=overlap)
    expected = pair_geometry(features, labels, K, overlap=overlap)
    np.testing.assert_allclose(
        off_diagonal(streamed.directional_cdnv), off_diagonal(expected.directional_cdnv), rtol=1e-5
    )
    if overlap == "none":
        assert streamed.margin_terms is expected.margin_terms is None
    else:
        terms, wanted = streamed.margin_terms, expected.margin_terms
        assert terms.overlap == wanted.overlap == overlap
        np.testing.assert_allclose(terms.covariance_overlap, wanted.covariance_overlap, rtol=1e-5)


def test_a_function_that_makes_generators_of_unequal_batches():
    features, labels = sample()
    cuts = [0, 10, 500, 501, N]

    def batches():
        yield from ((features[a:b], labels[a:b]) for a, b in itertools.pairwise(cuts))

    done = []
    geometry = stream_pair_geometry(batches, K, progress=lambda stage, rows: done.append((stage, rows)))
    assert_matches_oracle(geometry, features, labels)
    assert done == [(stage, rows) for stage in ("means", "pairs") for rows in cuts[1:]]


def test_readings_that_cannot_be_repeated_are_refused():
    features, labels = sample()
    with pytest.raises(TypeError, match="two passes"):
        stream_pair_geometry(iter([(features, labels)]), K)
    with pytest.raises(ValueError, match="needs ArrayBatches"):
        stream_pair_geometry([(features, labels)], K, overlap="cauchy_schwarz")
    readings = iter([[(features, labels)], [(features[:-1], labels[:-1])]])
    with pytest.raises(ValueError, match="second reading"):
        stream_pair_geometry(lambda: next(readings), K)


def broken(row=N, label=N, gone=0, size=1.0):
    features, labels = sample()
    features[row : row + 1], labels[label : label + 1], labels[labels == gone] = np.nan, K, 0
    return features * np.float32(size), labels


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (broken(row=250), r"after row 200: features hold 16 NaN or Inf values in 1 of 100 rows \(first rows: 50\)"),
        (broken(label=350), r"after row 300 has labels 0\.\.4, not in 0\.\.3"),
        (broken(gone=2), "every class needs at least 2 samples: class '2' has 0"),
        (broken(size=1e15), "overflow float32: divide the features"),
        ((np.zeros((0, 3), np.float32), np.zeros(0, np.int32)), "nothing to measure"),
        ((np.zeros((9, 3), np.float32), np.zeros((9, 2), np.int32)[:5, 0]), "features .* and 5 labels"),
    ],
)
def test_bad_batches_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        stream_pair_geometry(ArrayBatches(*arrays, rows=100), K)
