"""Features of any images from any encoder: over all devices, and into files that survive an interruption."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
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
from dnc.features import sets
from dnc.features.shards import claimed, contents, digest, discard, finish, stored_shape
from dnc.models.pretrained.load import Pretrained
from dnc.types import Array, Float, UInt8

GLOBAL_BATCH = 576  # images, over all devices
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
    sets: where `encode` gives several feature sets side by side, their names and widths; see `dnc.features.sets`.
    """

    prepare: Callable[[ImageSource, int], UInt8[np.ndarray, "h w 3"]]
    encode: Encode
    size: tuple[int, int]
    identity: Mapping[str, Any]
    sets: Mapping[str, int] = dataclasses.field(default_factory=dict)


def published_encoder(pretrained: Pretrained, mesh: Mesh, chosen: sets.Choice | None = None) -> ImageEncoder:
    """A published encoder, with its own preparation of images; see `dnc.load_pretrained`.

    chosen: which of its layers and tokens to take; its own feature alone by default.
    """
    graphdef, state = nnx.split(pretrained.encoder)
    state = jax.device_put(state, distributed.state_sharding(mesh, state))

    def prepare(source: ImageSource, row: int) -> UInt8[np.ndarray, "h w 3"]:
        return pretrained.preprocessing.image(Image.fromarray(source.image(row)))

    def layers(state: nnx.State, images: UInt8[Array, "b h w 3"]) -> dict[str, Float[Array, "b _"]]:
        encoder = nnx.merge(graphdef, state, copy=True)
        standard = pretrained.preprocessing.standardize(images)
        return {"features": encoder(standard, train=False)} if chosen is None else chosen.of(encoder.layers(standard))

    @functools.partial(jax.jit, out_shardings=distributed.replicated(mesh))
    def encode(state: nnx.State, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b d"]:
        return sets.side_by_side(layers(state, images))

    precision = str(jnp.dtype(pretrained.encoder.dtype))
    identity = {
        "pretrained": pretrained.name,
        "files": digest(map(_of_file, pretrained.files)),
        "features": pretrained.features,
        "precision": precision,
    }
    widths = {} if chosen is None else sets.widths(functools.partial(layers, state), pretrained.preprocessing.size)
    if chosen is not None:
        identity["features"] = ", ".join(widths)
    return ImageEncoder(prepare, functools.partial(encode, state), pretrained.preprocessing.size, identity, widths)


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
      after the last whole shard; where nothing is missing, it only replaces labels that have changed, and arrays of
      other names stay.
    Arrays of a shard: `features` [n, d], `ids` [n], and for each labeling `labels_TASK` [n] and `class_names_TASK` [k].
    What the features are of is recorded: as JSON beside shards, or as the array `embedding` of a file.
    title: the images' name in the record. dtype: of the stored features.

    Images that cannot be decoded are left out, each named once. Raises BrokenImageError where they are more than
    `broken` allows, and OSError where images cannot be read or features not be written; whole shards are kept. Raises
    ValueError where the output holds anything but features of the same images and encoder, for a class of fewer than
    two images, where no image can be decoded, and for a feature that is not finite or that float16 cannot hold; and
    BlockingIOError where another process writes to the output.
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

    _check_classes(source)
    record = dict(
        encoder=dict(encoder.identity),
        images=title,
        count=len(source),
        names=digest([json.dumps([source.name(row) for row in range(len(source))]).encode()]),
        image_files=source.fingerprint() if distributed.is_lead() else "",
        dtype=dtype,
        shard_size=shard_size,
    )
    starts = range(0, len(source), shard_size)
    names = [f"features-{index:05d}-of-{len(starts):05d}.npz" for index in range(len(starts))]
    with claimed(output, record, names) as folder, tqdm(total=len(source), unit=" images", disable=None) as bar:
        shards = [folder / name for name in names]
        made = shards if folder == output else [output]
        if (
            folder != output
            and (whole := stored_shape(output, np.arange(len(source)), source, encoder.sets)) is not None
        ):
            discard(shards)  # of a process that was killed as it ended
            return Embedded(tuple(made), whole[0], len(source), whole[1])
        broken_images = dimension = 0
        for start, shard in zip(starts, shards, strict=True):
            rows = np.arange(start, min(start + shard_size, len(source)))
            shape = stored_shape(shard, rows, source, encoder.sets)
            if shape is None:
                features, readable = features_of(encoder.encode, fetch, rows, encoder.size, mesh, bar.update)
                ledger.check(broken_images + len(rows) - len(readable), len(source))
                shape = features.shape
                if distributed.is_lead():
                    stored = _stored(features, readable, source, dtype)
                    files.write_npz(shard, contents(stored, readable, source, encoder.sets))
                    if bar.disable:
                        print(f"{rows[-1] + 1} of {len(source)} images", file=sys.stderr, flush=True)
            else:
                bar.update(len(rows))
            distributed.wait_for_all(shard.name)
            broken_images += len(rows) - shape[0]
            dimension = shape[1]
        if broken_images == len(source):
            discard(shards)
            raise ValueError(f"none of the {len(source)} images of {title} can be read")
        skipped = dict(images=broken_images, share=broken_images / len(source))
        finish(output, shards, record | dict(broken=skipped))
        distributed.wait_for_all("embedding ends")
        return Embedded(tuple(made), len(source) - broken_images, len(source), dimension)


def _check_classes(source: ImageSource) -> None:
    """Refuses what could not be analyzed afterwards, before anything is embedded."""
    few = {
        task: [name for name, count in zip(names, counts, strict=True) if count < 2]
        for task, names in source.class_names.items()
        for counts in [np.bincount(source.labels[task], minlength=len(names))]
    }
    fit = [task for task in few if not few[task]]
    for task, names in few.items():
        if names:
            flag = f"--tasks={','.join(fit)}" if fit else "--nolabels"
            raise ValueError(
                f"{len(names)} of the {len(source.class_names[task])} classes of task {task!r} have fewer than two "
                f"images, such as {names[0]!r}, and could not be analyzed: add images, or leave that labeling out "
                f"({flag})"
            )


def _of_file(path: pathlib.Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


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
