"""How fast JPEG files become 256-pixel canvases: this project's reading against PyTorch's DataLoader.

python -m experiments.benchmarks.decoding --output=experiments/results/benchmarks --torch_python=PATH    # 2 minutes

Random crops of two photographs that scikit-learn carries, 300 to 500 pixels a side, are written as JPEG files to a
temporary folder. Both decode all of them into batches of 256, in turn: `dnc.data.pipeline.batches` in this process, and
in another a DataLoader with two worker processes that does what torchvision's ImageFolder and Resize do (Pillow decodes
and converts to RGB, then resizes, anti-aliased). PATH is a Python with torch and Pillow. The first pass of each, which
starts threads and processes, counts as well; the best of all passes of each is reported.
"""

import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from absl import flags
from PIL import Image
from sklearn.datasets import load_sample_images

from dnc.data.images import ImageTraining
from dnc.data.pipeline import ReadOptions, batches
from dnc.data.sources.folder import FolderImages
from dnc.data.views.augment import Views
from experiments import common

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_TORCH = flags.DEFINE_string("torch_python", None, "A Python interpreter with torch and Pillow.", required=True)
_IMAGES = flags.DEFINE_integer("images", 10_000, "JPEG files.", lower_bound=256)
_ROUNDS = flags.DEFINE_integer("rounds", 2, "Passes of each, in turn.", lower_bound=1)

CANVAS, BATCH, WORKERS = 256, 256, 2

LOADER = """
import pathlib, sys, time
import numpy, torch
from PIL import Image
from experiments import common

class Photos(torch.utils.data.Dataset):
    def __init__(self, root):
        self.paths = sorted(pathlib.Path(root).iterdir())
    def __len__(self):
        return len(self.paths)
    def __getitem__(self, index):
        with open(self.paths[index], "rb") as file:
            image = Image.open(file).convert("RGB")
        image = image.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)
        return torch.from_numpy(numpy.array(image))

root, rounds = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
loader = torch.utils.data.DataLoader(
    Photos(root), batch_size=BATCH, shuffle=True, num_workers=WORKERS, drop_last=True
)
for _ in range(rounds):
    sys.stdin.readline()
    started = time.perf_counter()
    images = sum(len(batch) for batch in loader)
    print(images / (time.perf_counter() - started), flush=True)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_photos(pathlib.Path(folder), _IMAGES.value)
        rates = measure(folder, _TORCH.value, _ROUNDS.value)
    ours, theirs = max(rates["dnc"]), max(rates["torch"])
    record = common.machine() | {"images": _IMAGES.value, "images_per_second": rates, "ratio": ours / theirs}
    common.save(_OUTPUT.value, "decoding", record)
    print(
        f"dnc {ours:.0f} images/s, DataLoader with {WORKERS} workers {theirs:.0f} images/s: {ours / theirs:.2f} times"
    )


def write_photos(folder: pathlib.Path, count: int) -> None:
    photos = [Image.fromarray(image) for image in load_sample_images().images]
    rng = np.random.default_rng(0)
    for index in range(count):
        photo = photos[index % len(photos)]
        width, height = (int(side) for side in rng.integers(300, np.minimum(501, np.array(photo.size) + 1)))
        left, top = (int(rng.integers(0, room + 1)) for room in (photo.width - width, photo.height - height))
        photo.crop((left, top, left + width, top + height)).save(folder / f"{index:06d}.jpg", quality=90)


def measure(folder: str, python: str, rounds: int) -> dict[str, list[float]]:
    """Images per second in every pass of each."""
    constants = f"CANVAS, BATCH, WORKERS = {CANVAS}, {BATCH}, {WORKERS}\n"
    command = [python, "-c", constants + LOADER, folder, str(rounds)]
    rates: dict[str, list[float]] = {"dnc": [], "torch": []}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as loader:
        assert loader.stdin is not None
        assert loader.stdout is not None
        for _ in range(rounds):
            rates["dnc"].append(ours(folder))
            loader.stdin.write("go\n")
            loader.stdin.flush()
            if not (line := loader.stdout.readline()):
                sys.exit(f"error: {python} could not run the DataLoader")
            rates["torch"].append(float(line))
    return rates


def ours(folder: str) -> float:
    source = FolderImages(folder)
    data = ImageTraining(source, source, Views(), image_size=224, canvas=CANVAS, held_out_examples=1)
    steps = len(source) // BATCH
    started = time.perf_counter()
    examples: Any = batches(data.source(), BATCH, seed=0, reading=ReadOptions(prefetch=2))
    images = sum(len(batch["image"]) for _, (_, batch) in zip(range(steps), examples, strict=False))
    seconds = time.perf_counter() - started
    examples.close()
    time.sleep(3)  # batches that were being read ahead must not slow the other one down
    return images / seconds


if __name__ == "__main__":
    common.main(main)
