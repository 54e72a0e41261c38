"""The networks of `experiments.benchmarks.training` in PyTorch: same layers, same numbers of parameters."""

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """ResNet's basic block."""

    def __init__(self, in_features: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_features, width, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.shortcut = None
        if stride > 1 or in_features != width:
            self.shortcut = nn.Sequential(nn.Conv2d(in_features, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.first_norm(self.first(x)), inplace=True)
        y = self.second_norm(self.second(y))
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)), inplace=True)


class ResNet18(nn.Module):
    """ResNet-18 with a 3x3 stem of the given stride; images [b, 3, h, w] to features [b, 8 width]."""

    redundant = 0

    def __init__(self, width: int, stem_stride: int) -> None:
        super().__init__()
        self.features = 8 * width
        layers = [nn.Conv2d(3, width, 3, stem_stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        in_features = width
        for stage in range(4):
            for i in range(2):
                layers.append(Block(in_features, width * 2**stage, 2 if stage > 0 and i == 0 else 1))
                in_features = width * 2**stage
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images).mean(dim=(2, 3))


def nt_xent(z: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent of embeddings [2 b, p], the two views of an example side by side."""
    z = functional.normalize(z, dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return functional.cross_entropy(logits, torch.arange(len(z)) ^ 1)
