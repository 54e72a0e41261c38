"""Encoders, by name, and heads."""

from collections.abc import Callable
from functools import partial

from dnc.models.encoder import Encoder
from dnc.models.heads import Projector
from dnc.models.resnet import ResNet
from dnc.models.vit import PRESETS, Tokens, ViT

MODELS: dict[str, Callable[..., Encoder]] = {
    "resnet": ResNet,
    "vit": ViT,
    **{name: partial(ViT, **sizes) for name, sizes in PRESETS.items()},
}

__all__ = ["MODELS", "Encoder", "Projector", "ResNet", "Tokens", "ViT"]
