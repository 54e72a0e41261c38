"""torchvision's side of experiments/benchmarks/augment.py, run by an interpreter that has torch and torchvision.

python experiments/benchmarks/augment_torchvision.py images.npy kernel views < rounds

SimCLR's recipe of transforms v2 in a DataLoader with 2 workers of one thread each. Every line read asks for a round on
one of the backends, "pil" or "tensor", and is answered by views per second.
"""

import sys
import time

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from PIL import Image
from torchvision.transforms import v2  # pyright: ignore[reportMissingImports]

WORKERS, BATCH, WARM_UP = 2, 32, 2 * 2  # what workers prepare ahead is not timed


class TwoViews(torch.utils.data.Dataset):
    def __init__(self, images: np.ndarray, backend: str, kernel: int, batches: int):
        size = images.shape[1]
        as_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(0.08, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
                v2.RandomHorizontalFlip(),
                v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
                v2.RandomGrayscale(0.2),
                v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], p=0.5),
                *as_tensor,
            ]
        )
        if backend == "pil":
            self.images = [Image.fromarray(image) for image in images]
        else:
            self.images = [torch.from_numpy(image).permute(2, 0, 1).contiguous() for image in images]
        self.length = batches * BATCH

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int):
        image = self.images[index % len(self.images)]
        return self.transform(image), self.transform(image)


def views_per_second(images: np.ndarray, backend: str, kernel: int, views: int) -> float:
    """Over the batches after the first ones, until about `views` views."""
    batches = max(1, views // (2 * BATCH)) + WARM_UP
    data = TwoViews(images, backend, kernel, batches)
    loader = iter(torch.utils.data.DataLoader(data, BATCH, num_workers=WORKERS))
    for _ in range(WARM_UP):
        next(loader)
    started = time.perf_counter()
    count = sum(2 * len(first) for first, _ in loader)
    return count / (time.perf_counter() - started)


def main() -> None:
    images = np.load(sys.argv[1], allow_pickle=False)
    for line in sys.stdin:
        print(views_per_second(images, line.strip(), int(sys.argv[2]), int(sys.argv[3])), flush=True)


if __name__ == "__main__":
    main()
