"""Features of any images from any encoder: over all devices, and into files that survive an interruption."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from PIL import Image
from tqdm import tqdm

from dnc import distributed, files
from dnc.data.sources.base import ImageSource
from dnc.data.sources.broken import BrokenFiles
from dnc.data.sources.decode import BrokenImageError
from dnc.models.pretrained.load import Pretrained
from dnc.types import Array, Float, UInt8

GLOBAL_BATCH = 576  # images, over all devices
RECORD = "embedding.json"  # beside the shards: what they are the features of
DTYPES = ("float32", "float16")
OTHER_FILES = (".csv", ".h5", ".hdf5", ".json", ".npy", ".parquet", ".pt", ".safetensors", ".zarr")

Fetch = Callable[[int], UInt8[np.ndarray, "h w 3"] | None]
Encode = Callable[[UInt8[Array, "b h w 3"]], Float[Array, "b d"]]


@dataclasses.dataclass(frozen=True)
class ImageEncoder:
    """What turns the images of a source into features.

    prepare: one image as the encoder takes it, on the host; `size` is its height and width.
    encode: a jitted program whose result every device holds whole. A feature depends on its own image alone.
    identity: what tells these features from those of another encoder; recorded with them.
    """

    prepare: Callable[[ImageSource, int], UInt8[np.ndarray, "h w 3"]]
    encode: Encode
    size: tuple[int, int]
    identity: Mapping[str, Any]


def published_encoder(pretrained: Pretrained, mesh: Mesh) -> ImageEncoder:
    """A published encoder, with its own preparation of images; see `dnc.load_pretrained`."""
    graphdef, state = nnx.split(pretrained.encoder)
    state = jax.device_put(state, distributed.state_sharding(mesh, state))

    def prepare(source: ImageSource, row: int) -> UInt8[np.ndarray, "h w 3"]:
        return pretrained.preprocessing.image(Image.fromarray(source.image(row)))

    @functools.partial(jax.jit, out_shardings=distributed.replicated(mesh))
    def encode(state: nnx.State, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b d"]:
        encoder = nnx.merge(graphdef, state, copy=True)
        return encoder(pretrained.preprocessing.standardize(images), train=False)

    precision = str(jnp.dtype(pretrained.encoder.dtype))
    identity = {
        "pretrained": pretrained.name,
        "files": _digest(map(_of_file, pretrained.files)),
        "features": pretrained.features,
        "precision": precision,
    }
    return ImageEncoder(prepare, functools.partial(encode, state), pretrained.preprocessing.size, identity)


@dataclasses.dataclass(frozen=True)
class Embedded:
    """What `embed` wrote: files, readable images of all, and the features' dimension."""

    files: tuple[pathlib.Path, ...]
    readable: int
    images: int
    dimension: int


def features_of(
    encode: Encode,
    fetch: Fetch,
    rows: Sequence[int] | np.ndarray,
    size: tuple[int, int],
    mesh: Mesh,
    progress: Callable[[int], object] = lambda count: None,
) -> tuple[Float[np.ndarray, "n d"], np.ndarray]:
    """Features float32 [n, d] of the rows that `fetch` gives an image for (it gives None for others), and those rows.

    Batches are read by all cores while the devices are busy with the one before. The last is padded with black images
    and cut again, so that one program serves any number. Every process passes all rows, reads its share, and gets all
    features. progress: called with the number of rows done.
    """
    batch_size = max(GLOBAL_BATCH // mesh.size, 1) * mesh.size
    mine = distributed.local_rows(mesh, batch_size)
    whole = jax.jit(lambda x: x, out_shardings=distributed.replicated(mesh))
    features: list[np.ndarray] = []
    kept: list[np.ndarray] = []

    def collect(block: np.ndarray, made: Array, readable: Array) -> None:
        shown = np.asarray(readable)[: len(block)]
        features.append(np.asarray(made, np.float32)[: len(block)][shown])
        kept.append(block[shown])
        progress(len(block))

    with ThreadPoolExecutor(distributed.available_cores()) as pool:
        waiting: tuple[np.ndarray, Array, Array] | None = None
        for start in range(0, len(rows), batch_size):
            block = np.asarray(rows[start : start + batch_size])
            batch = _read(pool, fetch, block, mine, size)
            images, readable = distributed.shard_batch(mesh, batch)
            started = block, encode(images), whole(readable)
            if waiting is not None:
                collect(*waiting)
            waiting = started
        if waiting is not None:
            collect(*waiting)
    return np.concatenate(features), np.concatenate(kept)


def _read(
    pool: ThreadPoolExecutor, fetch: Fetch, block: np.ndarray, mine: np.ndarray, size: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "b h w 3"], np.ndarray]:
    """This process's part of a batch, and which of it are images."""
    images, readable = np.zeros((len(mine), *size, 3), np.uint8), np.zeros(len(mine), bool)

    def fill(place: int) -> None:
        image = fetch(int(block[mine[place]]))
        if image is not None:
            images[place], readable[place] = image, True

    list(pool.map(fill, np.flatnonzero(mine < len(block)).tolist()))
    return images, readable


def embed(
    encoder: ImageEncoder,
    source: ImageSource,
    output: pathlib.Path,
    mesh: Mesh,
    *,
    title: str,
    dtype: str = "float32",
    shard_size: int = 50_000,
    broken: BrokenFiles | None = None,
) -> Embedded:
    """Writes the features of a source's images, in its order, with their labels and names, for `dnc.analyze`.

    output: a folder of shards, `features-00000-of-00003.npz` and so on, each of `shard_size` images; or a file that
      ends in .npz, whose shards wait in a folder beside it until all are there. Interrupted, the same call goes on
      after the last whole shard.
    Arrays of a shard: `features` [n, d], `ids` [n], and for each labeling `labels_TASK` [n] and `class_names_TASK` [k].
    title: the images' name in the record. dtype: of the stored features.

    Images that cannot be read are left out, each named once. Raises ValueError where the output holds features of
    something else, where no image can be read, and for a feature that is not finite or that float16 cannot hold.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: choose {' or '.join(DTYPES)}")
    if shard_size < 1:
        raise ValueError(f"shard_size={shard_size}: give 1 or more")
    if output.suffix in OTHER_FILES:
        raise ValueError(f"output={output}: features are written to a file that ends in .npz, or to a folder of shards")
    ledger = BrokenFiles() if broken is None else broken

    def fetch(row: int) -> np.ndarray | None:
        try:
            return encoder.prepare(source, row)
        except BrokenImageError as error:
            ledger.add(source.name(row), error)
            return None

    folder = output.with_name(output.name + ".parts") if output.suffix == ".npz" else output
    starts = range(0, len(source), shard_size)
    files = [folder / f"features-{index:05d}-of-{len(starts):05d}.npz" for index in range(len(starts))]
    identity = dict(encoder.identity)
    record = dict(encoder=identity, images=title, count=len(source), names_and_labels=_contents(source))
    _claim(folder, record | dict(dtype=dtype, shard_size=shard_size))

    shapes = []
    with tqdm(total=len(source), unit=" images", disable=None) as bar:
        for start, file in zip(starts, files, strict=True):
            rows = np.arange(start, min(start + shard_size, len(source)))
            shape = _shape(file)
            if shape is None:
                features, readable = features_of(encoder.encode, fetch, rows, encoder.size, mesh, bar.update)
                _write_shard(file, _stored(features, readable, source, dtype), readable, source)
                shape = features.shape
                if bar.disable and distributed.is_lead():
                    print(f"{rows[-1] + 1} of {len(source)} images", file=sys.stderr, flush=True)
            else:
                bar.update(len(rows))
            shapes.append(shape)
            distributed.wait_for_all(file.name)
    if not sum(n for n, _ in shapes):
        if distributed.is_lead():
            shutil.rmtree(folder)
        raise ValueError(f"none of the {len(source)} images of {title} can be read")
    if folder != output:
        _join(files, output)
    return Embedded(
        (output,) if folder != output else tuple(files), sum(n for n, _ in shapes), len(source), shapes[0][1]
    )


def _claim(folder: pathlib.Path, record: Mapping[str, Any]) -> None:
    """The lead records what the folder is for; all check that it is for the same."""
    path = folder / RECORD
    foreign = not path.exists() and folder.exists() and any(folder.iterdir())
    if distributed.any_process(distributed.is_lead() and foreign):  # else the others would wait for the lead
        raise ValueError(
            f"output={folder} holds other files: choose a new or empty folder, or a name that ends in .npz"
        )
    if distributed.is_lead() and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(path, record)
    distributed.wait_for_all("embedding begins")
    theirs = json.loads(path.read_text())
    if differing := [key for key, value in record.items() if theirs.get(key) != value]:
        changes = "; ".join(f"{key} was {theirs.get(key)} and is now {record[key]}" for key in differing)
        raise ValueError(f"output={folder} holds other features: {changes}. Choose a new --output.")


def _contents(source: ImageSource) -> str:
    """A digest of the images' names, labels and class names; not of their pixels."""
    names = [source.name(row) for row in range(len(source))]
    labels = {task: [np.asarray(source.labels[task]).tolist(), *names] for task, names in source.class_names.items()}
    return _digest([json.dumps([names, labels]).encode()])


def _of_file(path: pathlib.Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _digest(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _shape(file: pathlib.Path) -> tuple[int, ...] | None:
    """Of a shard's features; None where it is not there yet."""
    if not file.exists():
        return None
    with np.load(file, allow_pickle=False) as arrays:
        return arrays["features"].shape


def _stored(features: np.ndarray, rows: np.ndarray, source: ImageSource, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = features.astype(dtype)
    finite = np.isfinite(stored).all(axis=1)
    if finite.all():
        return stored
    name = source.name(int(rows[np.argmin(finite)]))
    if np.isfinite(features).all():
        raise ValueError(f"the features of {name} are beyond what float16 holds: give dtype float32")
    raise ValueError(f"the features of {name} are not finite: has the encoder's training diverged?")


def _write_shard(path: pathlib.Path, features: np.ndarray, rows: np.ndarray, source: ImageSource) -> None:
    arrays = {"features": features, "ids": np.array([source.name(int(row)) for row in rows], str)}
    for task, names in source.class_names.items():
        arrays |= {
            f"labels_{task}": np.asarray(source.labels[task])[rows],
            f"class_names_{task}": np.array(list(names)),
        }
    _write(path, arrays)


def _join(files: Sequence[pathlib.Path], output: pathlib.Path) -> None:
    """All shards as one file; then their folder goes."""
    if not distributed.is_lead():
        return
    parts = [dict(np.load(file, allow_pickle=False)) for file in files]
    same = {key: value for key, value in parts[0].items() if key.startswith("class_names_")}
    _write(output, {key: np.concatenate([part[key] for part in parts]) for key in parts[0] if key not in same} | same)
    shutil.rmtree(files[0].parent)


def _write(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    """By the lead, whole or not at all."""
    if distributed.is_lead():
        files.write_npz(path, arrays)
