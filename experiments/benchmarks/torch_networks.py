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


class Bottleneck(nn.Module):
    """ResNet-50's block; the 3x3 convolution strides."""

    def __init__(self, in_features: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.body = nn.Sequential(
            *(nn.Conv2d(in_features, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            *(nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            *(nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)),
        )
        self.shortcut = None
        if stride > 1 or in_features != out:
            self.shortcut = nn.Sequential(nn.Conv2d(in_features, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.body(x) + (x if self.shortcut is None else self.shortcut(x)), inplace=True)


class ResNet50(nn.Module):
    """ResNet-50 with ImageNet's stem; images [b, 3, h, w] to features [b, 2048]."""

    redundant = 0
    features = 2048

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(3, 2, 1))
        in_features = 64
        for stage, length in enumerate((3, 4, 6, 3)):
            for i in range(length):
                layers.append(Bottleneck(in_features, 64 * 2**stage, 2 if stage > 0 and i == 0 else 1))
                in_features = 256 * 2**stage
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images).mean(dim=(2, 3))


def nt_xent(z: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent of embeddings [2 b, p], the two views of an example side by side."""
    z = functional.normalize(z, dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return functional.cross_entropy(logits, torch.arange(len(z), device=z.device) ^ 1)
