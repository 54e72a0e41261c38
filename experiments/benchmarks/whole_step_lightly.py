"""lightly's side of experiments/benchmarks/whole_step.py, run by an interpreter that has torch and lightly.

python experiments/benchmarks/whole_step_lightly.py images.npy batch steps < rounds

Every line read asks for a round and is answered by examples per second.
"""

import os
import sys
import time

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from lightly.loss import NTXentLoss  # pyright: ignore[reportMissingImports]
from lightly.models.modules import SimCLRProjectionHead  # pyright: ignore[reportMissingImports]
from lightly.transforms import SimCLRTransform  # pyright: ignore[reportMissingImports]
from PIL import Image
from torchvision.models import resnet18  # pyright: ignore[reportMissingImports]


class Views(torch.utils.data.Dataset):
    def __init__(self, images: np.ndarray, length: int):
        self.images, self.length = images, length
        self.transform = SimCLRTransform(input_size=images.shape[1], cj_strength=1.0, gaussian_blur=0.5)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return self.transform(Image.fromarray(self.images[index % len(self.images)]))


def main(path: str, batch: int, steps: int) -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    encoder = resnet18(weights=None)
    encoder.conv1, encoder.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    encoder.fc = torch.nn.Identity()
    network = torch.nn.Sequential(encoder, SimCLRProjectionHead(512, 512, 128))
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    loss, optimizer = NTXentLoss(temperature=0.2), torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    loader = torch.utils.data.DataLoader(
        Views(np.load(path), 10**7), batch_size=batch, num_workers=2, drop_last=True, persistent_workers=True
    )
    examples = iter(loader)
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(steps):
            first, second = next(examples)
            views = torch.cat([first, second]).contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            loss(*network(views).chunk(2)).backward()
            optimizer.step()
        print(steps * batch / (time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
