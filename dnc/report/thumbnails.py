"""Small pictures of the hardest samples: as one sheet per task in a run's folder, and one by one on the page."""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from etils import epath
from PIL import Image, PngImagePlugin

from dnc import files
from dnc.record import HardSample, Record
from dnc.report import style
from dnc.report.contact_sheet import contact_sheet

Picture: TypeAlias = np.ndarray | Image.Image  # an array is uint8, [h, w], [h, w, 1] or [h, w, 3]
Thumbnails: TypeAlias = Mapping[str, Mapping[int, Image.Image]]  # of a task's samples, by their row

SIDE = 112  # pixels of the longer side
MOST = 12  # samples that a page shows of a task
_GAP = 2
_ROWS = "dnc rows"  # the sheet's samples, as a text of its PNG
_MAX_BYTES = 1_500_000  # of all pictures of a page
_DAMAGED = (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError)


def thumbnail(picture: Picture) -> Image.Image:
    """At most `SIDE` pixels high and wide; a tiny picture is enlarged by a whole factor, without smoothing."""
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture)
    image = picture.convert("RGB")
    factor = SIDE // max(image.size)
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((SIDE, SIDE))
    return image


def of_samples(record: Record, picture: Callable[[HardSample], Picture | None]) -> Thumbnails:
    """Of the hardest samples for which there is a picture; tasks are named as `Record.shown` does."""
    return {
        shown: {
            sample.row: thumbnail(found) for sample in task.hardest[:MOST] if (found := picture(sample)) is not None
        }
        for shown, task in zip(record.shown().tasks, record.tasks.values(), strict=True)
    }


def save_sheets(record: Record, images: np.ndarray, folder: epath.Path) -> None:
    """Write hardest_TASK.png, the hardest samples of a task in a row, the hardest first; images uint8 [n, h, w, 3]."""
    for task, path in zip(record.tasks.values(), _paths(record, folder), strict=True):
        rows = [sample.row for sample in task.hardest[:MOST]]
        if not rows:
            continue
        tiles = np.stack([np.asarray(thumbnail(images[row])) for row in rows])
        text = PngImagePlugin.PngInfo()
        text.add_text(_ROWS, json.dumps(rows))
        with files.replacing(path) as scratch, scratch.open("wb") as file:
            contact_sheet(tiles, len(rows), scale=1, gap=_GAP).save(file, format="PNG", pnginfo=text)


def load_sheets(record: Record, folder: Path) -> Thumbnails:
    """What `save_sheets` wrote; a sheet that is missing, damaged or of other samples is left out."""
    paths = zip(record.shown().tasks, record.tasks.values(), _paths(record, epath.Path(folder)), strict=True)
    return {name: _cut(path, [sample.row for sample in task.hardest[:MOST]]) for name, task, path in paths}


def data_uris(thumbnails: Thumbnails, tasks: Mapping[str, Sequence[HardSample]]) -> dict[str, list[str | None]]:
    """For each task's samples a picture as a data URI, or None; [] for a task without any, or of too many bytes."""
    result, left = {}, _MAX_BYTES
    for name, samples in tasks.items():
        pictures = thumbnails.get(name, {})
        uris = [_data_uri(pictures[sample.row]) if sample.row in pictures else None for sample in samples]
        weight = sum(len(uri) for uri in uris if uri)
        result[name] = uris if 0 < weight <= left else []
        left -= weight if result[name] else 0
    return result


def _paths(record: Record, folder: epath.Path) -> list[epath.Path]:
    return [folder / f"hardest_{name}.png" for name in style.file_names(list(record.shown().tasks)).values()]


def _cut(path: epath.Path, rows: Sequence[int]) -> dict[int, Image.Image]:
    if not rows or not path.is_file():
        return {}
    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=["PNG"]) as sheet:
            sheet.load()
            if json.loads(sheet.info.get(_ROWS, "[]")) != list(rows):
                return {}
            width = (sheet.width + _GAP) // len(rows)
            boxes = [(width * place, 0, width * (place + 1) - _GAP, sheet.height) for place in range(len(rows))]
            return {row: sheet.convert("RGB").crop(box) for row, box in zip(rows, boxes, strict=True)}
    except _DAMAGED:
        return {}


def _data_uri(image: Image.Image) -> str:
    """PNG where that is small, as of enlarged pixels; else JPEG."""
    kinds = {"png": {"optimize": True}, "jpeg": {"quality": 85}}
    encoded = {}
    for kind, options in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        encoded[kind] = base64.b64encode(buffer.getvalue()).decode("ascii")
    kind = "png" if len(encoded["png"]) <= 1.5 * len(encoded["jpeg"]) else "jpeg"
    return f"data:image/{kind};base64,{encoded[kind]}"
