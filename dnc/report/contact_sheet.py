"""A contact sheet: one small picture of what the encoder sees."""

from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from PIL import Image

from dnc import files


def contact_sheet(images: np.ndarray, columns: int, scale: int = 2, gap: int = 2) -> Image.Image:
    """uint8 images [n, h, w, 3] in rows of `columns`, each enlarged `scale` times without smoothing."""
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    n, height, width, _ = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for position, image in enumerate(images):
        top, left = (position // columns) * (height + gap), (position % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return Image.fromarray(sheet)


def save_contact_sheet(
    images: np.ndarray,
    labels: Mapping[str, np.ndarray],
    class_names: Mapping[str, Sequence[str]],
    path: epath.Path,
    columns: int = 12,
) -> None:
    """Evenly many images of every class of every labeling, in the order of labelings and classes."""
    chosen = []
    generator = np.random.default_rng(0)
    for task, names in class_names.items():
        for index in range(len(names)):
            members = np.flatnonzero(labels[task] == index)
            chosen.extend(generator.choice(members, size=columns // 2, replace=len(members) < columns // 2))
    with files.replacing(path) as scratch, scratch.open("wb") as file:
        contact_sheet(images[np.array(chosen)], columns).save(file, format="PNG")
