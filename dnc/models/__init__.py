"""Encoders and heads."""

from dnc.models.encoder import Encoder
from dnc.models.heads import Projector
from dnc.models.resnet import ResNet

__all__ = ["Encoder", "Projector", "ResNet"]
