"""Families of published encoders: from the settings in `config.json`, and the file's tensors, to `ViT` or `ResNet`."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flax import nnx
from jax.typing import DTypeLike

from dnc import errors
from dnc.models.encoder import Encoder
from dnc.models.pretrained.layouts import RESNET_IGNORED, VIT_IGNORED, resnet_parameters, vit_parameters
from dnc.models.pretrained.tensors import Tensor
from dnc.models.resnet import ARCHITECTURES, ResNet
from dnc.models.vit import ViT

ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}  # theirs, ours

DEFAULTS: dict[str, Any] = dict(  # of transformers, where config.json leaves them out
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    hidden_act="gelu",
    layer_norm_eps=1e-12,
    image_size=224,
    patch_size=16,
    num_channels=3,
    qkv_bias=True,
)
DINOV2 = dict(mlp_ratio=4, layer_norm_eps=1e-6, layerscale_value=1.0, use_swiglu_ffn=False, use_mask_token=True)


@dataclasses.dataclass(frozen=True)
class Family:
    """Vision transformers that share a design.

    features: choices, each with the ViT's settings; the first is the default. defaults: of config.json, beside
    `DEFAULTS`. settings: of the ViT, whatever config.json says.
    """

    features: Mapping[str, Mapping[str, Any]]
    defaults: Mapping[str, Any]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


CLS, MEAN = dict(pool="cls"), dict(pool="mean")

FAMILIES = {
    "dinov2": Family(dict(cls=CLS, mean=MEAN), {**DINOV2, "patch_size": 14}),
    "dinov2_with_registers": Family(
        dict(cls=CLS, mean=MEAN), {**DINOV2, "num_register_tokens": 4}, dict(antialias=True)
    ),
    "vit": Family(dict(cls=CLS, mean=MEAN), {}),
    "vit_mae": Family(dict(cls=CLS, mean=MEAN), {}),
    "ijepa": Family(dict(mean=MEAN), {}, dict(class_token=False)),
    "clip": Family(
        dict(pooled=CLS, projected=CLS),
        dict(patch_size=32, hidden_act="quick_gelu", layer_norm_eps=1e-5),
        dict(pre_norm=True, patch_bias=False),
    ),
    "siglip": Family(
        dict(pooled=dict(pool="map"), mean=MEAN),
        dict(hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6),
        dict(class_token=False),
    ),
}
RESNET_FEATURES = ("pooled",)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """An encoder of shapes alone, what fills it, and which tensors may be left over."""

    encoder: Encoder
    parameters: Mapping[str, Tensor]
    ignored: Callable[[str], bool]
    family: str
    features: str


def architecture(
    config: Mapping[str, Any] | None, tensors: Mapping[str, Tensor], features: str | None, dtype: DTypeLike
) -> Architecture:
    """Of a `config.json` of transformers or timm, or of the tensors alone, which must then be a ResNet's.

    Raises ValueError if the family, its settings or the features are not known.
    """
    if config is None or config.get("architecture") in [f"resnet{depth}" for depth in ARCHITECTURES]:
        return _resnet(tensors, features, dtype)
    family = str(config.get("model_type")).removesuffix("_vision_model")
    if family == "resnet":
        if config.get("downsample_in_bottleneck") or config.get("downsample_in_first_stage"):
            raise ValueError(
                "config.json: only ResNets that stride in the 3x3 convolutions of stages 2 to 4 are supported"
            )
        return _resnet(tensors, features, dtype)
    if family not in FAMILIES:
        named = repr(config.get("model_type") or config.get("architecture"))
        known = [*sorted([*FAMILIES, "resnet"]), *(f"resnet{depth}" for depth in ARCHITECTURES)]
        raise ValueError(f"config.json is of model_type {named}, which is not supported: only {', '.join(known)} are")
    features = _chosen(features, FAMILIES[family].features, family)
    settings = {**vit_settings(family, config), **FAMILIES[family].features[features]}
    parameters = vit_parameters(tensors, settings.get("class_token", True))
    if features == "projected":
        if "projection.kernel" not in parameters:
            raise ValueError("features='projected': this checkpoint has no projection, choose features='pooled'")
        settings["projection"] = parameters["projection.kernel"].shape[1]
    encoder = nnx.eval_shape(lambda: ViT(**settings, dtype=dtype, rngs=nnx.Rngs(0)))
    return Architecture(encoder, parameters, _matches(VIT_IGNORED), family, features)


def vit_settings(family: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `ViT`."""
    known = FAMILIES[family]
    c = {**DEFAULTS, **known.defaults, **config.get("vision_config", config)}
    if c["hidden_act"] not in ACTIVATIONS:
        raise ValueError(
            f"config.json: hidden_act={c['hidden_act']!r} is not supported, only {sorted(ACTIVATIONS)} are"
        )
    return dict(
        image_size=_side("image_size", c),
        patch_size=_side("patch_size", c),
        width=c["hidden_size"],
        depth=c["num_hidden_layers"],
        heads=c["num_attention_heads"],
        channels=c["num_channels"],
        mlp_ratio=float(c.get("mlp_ratio", c["intermediate_size"] / c["hidden_size"])),
        activation="swiglu" if c.get("use_swiglu_ffn") else ACTIVATIONS[c["hidden_act"]],
        qkv_bias=c["qkv_bias"],
        layer_scale=c.get("layerscale_value"),
        mask_token=c.get("use_mask_token", False),
        registers=c.get("num_register_tokens", 0),
        epsilon=c["layer_norm_eps"],
        **known.settings,
    )


def _resnet(tensors: Mapping[str, Tensor], features: str | None, dtype: DTypeLike) -> Architecture:
    features = _chosen(features, RESNET_FEATURES, "resnet")
    parameters, depth, width = resnet_parameters(tensors)
    encoder = nnx.eval_shape(lambda: ResNet(depth, "imagenet", width, dtype=dtype, rngs=nnx.Rngs(0)))
    return Architecture(encoder, parameters, _matches(RESNET_IGNORED), "resnet", features)


def _chosen(features: str | None, choices: Iterable[str], family: str) -> str:
    if features is not None and features not in choices:
        raise errors.unknown(f"features of {family}", features, choices)
    return features or next(iter(choices))


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda path: re.match(pattern, path) is not None


def _side(name: str, config: Mapping[str, Any]) -> int:
    value = config[name]
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise ValueError(f"config.json: {name}={value} must be square")
    return sides.pop()
