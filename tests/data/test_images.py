import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from dnc.data.images import ImageTraining
from dnc.data.multitask.dataset import MultitaskImages
from dnc.data.pipeline import ReadOptions, TrainingData, batches
from dnc.data.sources.arrays import ArrayImages, load_digits
from dnc.data.sources.broken import BrokenFiles
from dnc.data.sources.decode import BrokenImageError, center_crop, stretched
from dnc.data.sources.folder import FolderImages
from dnc.data.tokenizer import decode
from dnc.data.views.recipes import choose_views
from dnc.features.files import read_features
from dnc.training.build import make_data, make_reading

NOTHING = choose_views(crop_scale=(1.0, 1.0), flip=0.0, jitter_probability=0.0, gray=0.0)


def arrays(n: int = 12, side: int = 8, classes: int = 2) -> ArrayImages:
    images = np.random.default_rng(n).integers(0, 256, (n, side, side, 3), np.uint8)
    return ArrayImages(images, {"class": np.arange(n) % classes}, {"class": [str(c) for c in range(classes)]})


def photo(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_photos(root: pathlib.Path, each: int, classes: tuple[str, ...] = ("cat", "dog", "eel")) -> pathlib.Path:
    """Photographs of many sizes, modes and formats."""
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(each):
            image = photo(rng, *rng.integers(40, 90, 2).tolist())
            mode, suffix = [("RGB", "jpg"), ("RGBA", "png"), ("L", "png"), ("P", "gif"), ("CMYK", "jpg")][i % 5]
            image.convert(mode).save(root / name / f"{i:02d}.{suffix}")
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> FolderImages:
    return FolderImages(write_photos(tmp_path_factory.mktemp("photos"), 5))


def test_images_of_the_right_size_come_as_they_are():
    data = ImageTraining(arrays(), arrays(6), NOTHING)
    assert isinstance(data, TrainingData)
    example = data.source()[3]
    np.testing.assert_array_equal(example["image"], arrays().images[3])
    assert (example["index"], example["size"].tolist(), example["labels"]) == (3, [8, 8], {"class": 1})
    images, labels = data.held_out()
    np.testing.assert_array_equal(images, arrays(6).images)
    np.testing.assert_array_equal(labels["class"], arrays(6).labels["class"])


def test_photos_are_stretched_for_training_and_cropped_for_measuring(photos):
    data = ImageTraining(photos, photos, NOTHING, image_size=28)
    example = data.source()[7]
    original = photos.image(7)
    assert example["size"].tolist() == list(original.shape[:2])
    assert example["image"].shape == (32, 32, 3)  # 28 x 256 / 224
    np.testing.assert_array_equal(example["image"], stretched(Image.fromarray(original), 32))
    images, labels = data.held_out()
    np.testing.assert_array_equal(images[7], center_crop(Image.fromarray(original), 28))
    np.testing.assert_array_equal(labels["class"], photos.labels["class"])


def test_views_have_the_size_that_the_network_sees(photos, key):
    data = ImageTraining(photos, photos, NOTHING, image_size=28)
    _, batch = next(batches(data.source(), 4, seed=0))
    views = jax.jit(data.make_views)(batch, key)["views"]
    assert views.shape == (2, 4, 28, 28, 3)
    assert np.all(np.isfinite(views))


def test_training_images_are_a_fixed_balanced_subset_of_the_training_set():
    data = ImageTraining(arrays(30, classes=3), arrays(6, classes=3), NOTHING)
    images, labels = data.training_images(9)
    np.testing.assert_array_equal(np.bincount(labels["class"]), 3)
    np.testing.assert_array_equal(images, data.training_images(9)[0])
    rows = [int(np.flatnonzero(np.all(data.train.images == image, axis=(1, 2, 3)))[0]) for image in images]
    np.testing.assert_array_equal(data.train.labels["class"][rows], labels["class"])


@pytest.mark.parametrize("views", ["render", "augment"])
def test_training_images_of_the_multitask_images(views):
    data = MultitaskImages(num_examples=500, image_size=8, views=views)
    images, labels = data.training_images(24)
    assert images.shape == (24, 8, 8, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, data.training_images(24)[0])
    assert {task: values.shape for task, values in labels.items()} == dict.fromkeys(data.class_names, (24,))


def test_held_out_examples_are_balanced_and_always_the_same():
    data = ImageTraining(arrays(), arrays(40, classes=2), NOTHING, held_out_examples=10)
    images, labels = data.held_out()
    np.testing.assert_array_equal(np.bincount(labels["class"]), 5)
    np.testing.assert_array_equal(images, data.held_out()[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test": arrays(6, classes=3)}, "training and held-out images have different classes in class"),
        ({"test": ArrayImages(arrays().images, {}, {})}, "different classes in class"),
        ({"test": ArrayImages(arrays().images, {"class": np.zeros(12, int)}, {"class": ["0", "1"]})}, "such as '1'"),
        ({"held_out_examples": 1}, "1 classes of task 'class' have no held-out image"),
        ({"held_out_examples": 100}, "held_out_examples=100: there are 12"),
        ({"image_size": 0}, "image_size=0"),
        ({"canvas": -3}, "canvas=-3"),
        (
            {"image_size": 16, "augmentation": choose_views(recipe="simclr")},
            r"image_size=16, but the augmentation makes views of 224 pixels: set augmentation\.size=16",
        ),
        ({"image_size": 30_000}, r"12 held-out images of 30000 px take 30.2 GiB: set data\.held_out_examples"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_image_is_decoded(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageTraining(**({"train": arrays(), "test": arrays(), "augmentation": NOTHING} | arguments))


def test_photos_need_a_size(photos):
    with pytest.raises(ValueError, match=r"set data\.image_size"):
        ImageTraining(photos, photos, NOTHING)


def test_images_without_labels_train(key):
    unlabeled = ArrayImages(arrays().images, {}, {})
    data = ImageTraining(unlabeled, arrays(), NOTHING)
    assert data.class_names == {"class": ["0", "1"]}
    _, batch = next(batches(data.source(), 4, seed=0))
    made = jax.jit(data.make_views)(batch, key)
    assert made["labels"] == {}
    assert made["views"].shape == (2, 4, 8, 8, 3)
    assert data.training_images(5)[1] == {}
    assert ImageTraining(unlabeled, unlabeled, NOTHING).held_out()[1] == {}


def break_some(root: pathlib.Path) -> list[str]:
    """Breaks the first image of each class, and the second of one, in different ways; returns their names."""
    broken = {"cat/00.jpg": b"", "dog/00.jpg": b"text", "cat/01.png": b"\x89PNG\r\n\x1a\n", "eel/00.jpg": None}
    for name, content in broken.items():
        path = root / name
        path.write_bytes(path.read_bytes()[:200] if content is None else content)
    return sorted(broken)


def test_a_broken_file_is_replaced_by_the_next_in_training_and_left_out_of_measuring(tmp_path, capsys):
    root = write_photos(tmp_path / "photos", 4)
    broken = break_some(root)
    source = FolderImages(root)
    data = ImageTraining(source, source, NOTHING, image_size=16, broken=BrokenFiles(0.5))
    names = [source.name(i) for i in range(len(source))]
    for _ in range(2):
        for bad, instead in {
            "cat/00.jpg": "cat/02.png",
            "cat/01.png": "cat/02.png",
            "eel/00.jpg": "eel/01.png",
        }.items():
            example, expected = data.source()[names.index(bad)], data.source()[names.index(instead)]
            np.testing.assert_array_equal(example["image"], expected["image"])
            assert example["labels"] == expected["labels"]
            assert example["index"] == names.index(bad)
    images, labels = data.held_out()
    assert len(images) == 12 - 4
    np.testing.assert_array_equal(np.bincount(labels["class"]), [2, 3, 3])
    list(zip(range(6), batches(data.source(), 4, seed=0), strict=False))
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.split(": ")[1] for line in lines) == broken
    assert len(data.broken) == 4


def test_broken_files_can_end_the_work(tmp_path):
    root = write_photos(tmp_path / "photos", 2)
    break_some(root)
    source = FolderImages(root)
    data = ImageTraining(source, source, NOTHING, image_size=16, broken=BrokenFiles(0))
    with pytest.raises(BrokenImageError, match=r"cat/0\d"):
        data.held_out()


@pytest.mark.parametrize("read", [lambda data: data.held_out(), lambda data: [data.source()[row] for row in (0, 1, 4)]])
def test_more_broken_files_than_allowed_end_the_work(tmp_path, read):
    root = write_photos(tmp_path / "photos", 4)
    break_some(root)
    source = FolderImages(root)
    data = ImageTraining(source, source, NOTHING, image_size=16, broken=BrokenFiles(0.1))
    with pytest.raises(BrokenImageError, match=r"of (12|24) images cannot be decoded, which is more than 0\.1 of them"):
        read(data)


@pytest.mark.parametrize("read", [lambda data: data.held_out(), lambda data: next(batches(data.source(), 4, seed=0))])
def test_images_that_vanish_end_the_work_and_are_named(tmp_path, read):
    """They are not broken: what stands in for broken images would hide that half of the set is gone."""
    source = FolderImages(write_photos(tmp_path / "photos", 4))
    data = ImageTraining(source, source, NOTHING, image_size=16, broken=BrokenFiles(1))
    shutil.rmtree(tmp_path / "photos")
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*photos/\w+/\d+\.\w+"):
        read(data)


def test_a_folder_of_broken_files_is_an_error(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    source = FolderImages(tmp_path)
    data = ImageTraining(source, source, NOTHING, image_size=16, broken=BrokenFiles(1))
    with pytest.raises(BrokenImageError, match="none of the 2 training images can be read"):
        data.source()[0]
    with pytest.raises(BrokenImageError, match=r"none of 2 images can be read, such as a\.png"):
        data.held_out()


def first_batches(data: ImageTraining, reading: ReadOptions, start: int = 0, rows: np.ndarray | None = None) -> list:
    return [batch for _, batch in zip(range(5), batches(data.source(), 4, 7, start, rows, reading), strict=False)]


@pytest.mark.parametrize("reading", [ReadOptions(threads=3), ReadOptions(threads=16, prefetch=1), ReadOptions()])
def test_batches_do_not_depend_on_the_threads_that_read_them(photos, reading):
    data = ImageTraining(photos, photos, NOTHING, image_size=16)
    expected = first_batches(data, ReadOptions(threads=1))
    jax.tree.map(np.testing.assert_array_equal, first_batches(data, reading), expected)
    jax.tree.map(np.testing.assert_array_equal, first_batches(data, reading, start=2)[:3], expected[2:])
    half = np.array([1, 3])
    for (_, some), (_, every) in zip(first_batches(data, reading, rows=half), expected, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[half]), some, every)


@pytest.mark.slow
def test_batches_do_not_depend_on_the_processes_that_read_them(tmp_path):
    """In a program of its own, as worker processes start by importing it; broken files are named once by all."""
    root = write_photos(tmp_path / "photos", 4)
    broken = break_some(root)
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, numpy as np, jax\n"
        "from absl import app\n"
        "from dnc.data.views.augment import Views\n"
        "from dnc.data.sources.broken import BrokenFiles\n"
        "from dnc.data.sources.folder import FolderImages\n"
        "from dnc.data.images import ImageTraining\n"
        "from dnc.data.pipeline import ReadOptions, batches\n"
        "def main(argv):\n"
        "    source = FolderImages(argv[1])\n"
        "    data = ImageTraining(source, source, Views(), image_size=16, broken=BrokenFiles(0.5))\n"
        "    read = lambda reading: [x for _, x in zip(range(9), batches(data.source(), 4, 7, 1, None, reading))]\n"
        "    one, several = read(ReadOptions()), read(ReadOptions(workers=2))\n"
        "    jax.tree.map(np.testing.assert_array_equal, several, one)\n"
        "    print('equal')\n"
        "if __name__ == '__main__':\n"
        "    app.run(main)\n"
    )
    done = subprocess.run([sys.executable, program, root], capture_output=True, text=True, check=False)
    assert done.stdout == "equal\n", done.stderr
    named = [line.split(": ")[1] for line in done.stderr.splitlines() if line.startswith("broken image")]
    assert sorted(named) == broken


def test_reading_is_checked():
    with pytest.raises(ValueError, match=r"reading\.workers=-1"):
        ReadOptions(workers=-1)
    assert make_reading(ConfigDict({"name": "digits"})) == ReadOptions()
    assert make_reading(ConfigDict({"reading": {"threads": 3}})) == ReadOptions(threads=3)
    with pytest.raises(ValueError, match=r"data\.reading sets .thread., .* did you mean 'threads'"):
        make_reading(ConfigDict({"reading": {"thread": 3}}))


def data_config(**entries) -> ConfigDict:
    return ConfigDict({"augmentation": {}, **entries})


def test_a_config_names_the_data(tmp_path):
    root = write_photos(tmp_path / "photos", 4)
    np.savez(tmp_path / "set.npz", images=arrays().images, labels=arrays().labels["class"])
    data = make_data(data_config(name="folder", train=str(root), test_per_class=1, image_size=16, held_out_examples=3))
    assert (len(data.source()), len(data.held_out()[0])) == (9, 3)
    data = make_data(data_config(name="folder", train=str(root), test=str(root), train_tasks=[], image_size=16))
    assert (data.source()[0]["labels"], list(data.class_names)) == ({}, ["class"])
    data = make_data(data_config(name="npz", train=str(tmp_path / "set.npz"), test_per_class=2))
    assert (len(data.source()), len(data.held_out()[0])) == (8, 4)
    data = make_data(data_config(name="digits", test_per_class=60))
    np.testing.assert_array_equal(data.held_out()[0], load_digits()["test"].images)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"name": "foldr"}, "data.name='foldr'.*did you mean 'folder'"),
        ({"name": "multitask", "image_sise": 3}, "sets .image_sise., .*did you mean 'image_size'"),
        ({"name": "folder", "trian": "x"}, "sets .trian., .*did you mean 'train'"),
        ({"name": "digits", "broken": "ignore"}, "broken='ignore'"),
        ({"name": "tfds", "dataset": "cifar10", "data_dir": "/nowhere"}, "not prepared"),
        ({"name": "folder", "train": "/nowhere", "test_per_class": 1}, "data.train: '/nowhere' is not a folder"),
    ],
)
def test_a_config_that_does_not_fit_names_the_entry(entries, message):
    with pytest.raises((OSError, ValueError), match=message):
        make_data(data_config(**entries))


@pytest.mark.parametrize("held_out", [{}, {"test": "set.npz", "test_per_class": 1}])
def test_held_out_images_are_given_in_one_way(tmp_path, monkeypatch, held_out):
    monkeypatch.chdir(tmp_path)
    np.savez("set.npz", images=arrays().images, labels=arrays().labels["class"])
    with pytest.raises(ValueError, match="one of the two"):
        make_data(data_config(name="npz", train="set.npz", **held_out))


@pytest.mark.slow
def test_500_mixed_and_broken_files_go_through_training_embedding_and_analysis(tmp_path):
    """Each command names every bad file that it meets once."""
    root = write_photos(tmp_path / "photos", 167)
    broken = break_some(root)
    for path in sorted(root.glob("*/*9.*")):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
        broken.append(str(path.relative_to(root)))
    assert len(list(root.glob("*/*"))) == 501
    assert len(broken) > 50
    config = tmp_path / "config.py"
    config.write_text(
        "from experiments.reliability import config as small\n"
        "def get_config():\n"
        "    config = small.get_config()\n"
        f"    config.data = dict(name='folder', train={str(root)!r}, test_per_class=40, image_size=16,\n"
        "                       broken=0.2, augmentation=dict())\n"
        "    config.train.duration = dict(epochs=1)\n"
        "    config.schedule.warmup = dict(steps=1)\n"
        "    config.measure.collapse.shots = (1, 2)\n"
        "    return config\n"
    )

    def command(*arguments: str) -> subprocess.CompletedProcess:
        done = subprocess.run([sys.executable, "-m", "dnc", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    def named(done: subprocess.CompletedProcess) -> list[str]:
        return [line.split(": ")[1] for line in done.stderr.splitlines() if line.startswith("broken image")]

    run = tmp_path / "run"
    assert set(named(trained := command("train", f"--config={config}", f"--workdir={run}"))) <= set(broken)
    assert len(named(trained)) == len(set(named(trained)))
    last = max((run / "measurements").glob("step_*.json"))
    held_out = json.loads(last.read_text())
    assert held_out["left_out"] > 0
    assert held_out["samples"] + held_out["left_out"] == 120
    assert f"{held_out['left_out']} images that cannot be decoded left out" in (run / "report/index.html").read_text()
    output = tmp_path / "features"
    embedded = command(
        "embed",
        f"--workdir={run}",
        f"--images={root}",
        f"--output={output}",
        "--dtype=float16",
        "--shard_size=200",
        "--broken=0.2",
    )
    assert sorted(named(embedded)) == sorted(broken)
    assert f"{len(broken)} of 501 images could not be decoded and are left out" in embedded.stdout
    files = read_features(output)
    assert files.features.shape[0] == 501 - len(broken) == len(files.labels["class"])
    command("analyze", f"--features={output}", f"--output={tmp_path / 'report'}")
    measured = json.loads((tmp_path / "report" / "analysis.json").read_text())
    assert measured["samples"] == 501 - len(broken)
    assert measured["tasks"]["class"]["classes"] == ["cat", "dog", "eel"]


def test_captions_become_the_tokens_of_their_images(tmp_path, key):
    """Also of the image that stands in for a broken one; held-out images need none."""
    write_photos(tmp_path / "train", 2)
    write_photos(tmp_path / "test", 2)
    paths = sorted(path.relative_to(tmp_path / "train").as_posix() for path in (tmp_path / "train").rglob("*.*"))
    (tmp_path / "train" / paths[1]).write_bytes(b"broken")
    rows = [f"{path},the picture {number}" for number, path in enumerate(paths)]
    (tmp_path / "table.csv").write_text("\n".join(["path,text", *rows]))
    files = {"train": "train", "test": "test", "train_table": "table.csv"}
    where = {entry: str(tmp_path / name) for entry, name in files.items()}
    options = {"captions": "text", "train_tasks": (), "image_size": 8, "context_length": 16, "broken": 0.2}
    data = make_data(data_config(name="folder", **where, **options))
    tokens = [decode(data.source()[number]["tokens"]) for number in range(3)]
    assert tokens == ["the picture 0", "the picture 2", "the picture 2"]
    _, batch = next(batches(data.source(), 4, seed=0))
    views = jax.jit(data.make_views)(batch, key)
    np.testing.assert_array_equal(views["tokens"], batch["tokens"])
    assert views["tokens"].shape == (4, 16)
    assert "tokens" not in ImageTraining(arrays(), arrays(6), NOTHING).source()[0]
