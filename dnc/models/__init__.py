"""Encoders, by name, heads, and a Transformer for text."""

from dnc import distribution

with distribution.extra("pretrained"):
    from dnc.models.encoder import Encoder
    from dnc.models.heads import Projector, PrototypeHead
    from dnc.models.resnet import ResNet
    from dnc.models.text import TextTransformer
    from dnc.models.vit import PRESETS, Tokens, ViT

MODELS: dict[str, type[Encoder]] = {"resnet": ResNet, "vit": ViT, **dict.fromkeys(PRESETS, ViT)}

__all__ = [
    "MODELS",
    "PRESETS",
    "Encoder",
    "Projector",
    "PrototypeHead",
    "ResNet",
    "TextTransformer",
    "Tokens",
    "ViT",
]
