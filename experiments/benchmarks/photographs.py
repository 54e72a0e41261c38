"""Photographs for benchmarks, from what scikit-learn carries."""

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


def photographs(size: int, count: int = 128) -> np.ndarray:
    """uint8 [count, size, size, 3]: cuttings of two photographs, 427 x 640, at random places and scales."""
    rng = np.random.default_rng(0)
    originals = [Image.fromarray(image) for image in load_sample_images().images]
    cuttings = []
    for index in range(count):
        side = int(rng.integers(200, 427))
        left, top = int(rng.integers(640 - side)), int(rng.integers(427 - side))
        cut = originals[index % 2].resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        cuttings.append(np.asarray(cut))
    return np.stack(cuttings)
