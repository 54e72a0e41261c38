"""ResNets (He et al. 2016) with named stems; bottlenecks stride in the 3x3 convolution, as torchvision's do (v1.5)."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from dnc import errors
from dnc.models.convolution import conv_general_dilated
from dnc.models.encoder import Encoder
from dnc.models.normalization import batch_norm
from dnc.models.precision import at_least_float32
from dnc.types import Array, Float

he_fan_out = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ConvNorm(nnx.Module):
    """A convolution without bias, padded symmetrically like PyTorch's, then batch normalization."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel: int,
        stride: int = 1,
        *,
        zero_scale: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.conv = nnx.Conv(
            in_features,
            out_features,
            (kernel, kernel),
            strides=(stride, stride),
            padding=((kernel // 2, kernel // 2),) * 2,  # "SAME" pads bottom and right alone when the stride is 2
            use_bias=False,  # the normalization subtracts any bias
            kernel_init=he_fan_out,
            conv_general_dilated=conv_general_dilated,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = batch_norm(out_features, zero_scale=zero_scale, dtype=dtype, rngs=rngs)
        self.dtype = dtype

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 c2"]:
        return self.norm(self.conv(x), use_running_average=not train).astype(self.dtype)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions beside a shortcut (ResNet-10, -18 and -34)."""

    expansion: ClassVar[int] = 1

    def __init__(
        self,
        in_features: int,
        width: int,
        stride: int,
        *,
        zero_init_residual: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.first = ConvNorm(in_features, width, 3, stride, dtype=dtype, rngs=rngs)
        self.second = ConvNorm(width, width, 3, zero_scale=zero_init_residual, dtype=dtype, rngs=rngs)
        self.shortcut = _shortcut(in_features, width * self.expansion, stride, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 c2"]:
        y = nnx.relu(self.first(x, train=train))
        y = self.second(y, train=train)
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x, train=train)))


class Bottleneck(nnx.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions beside a shortcut (ResNet-50 and deeper)."""

    expansion: ClassVar[int] = 4

    def __init__(
        self,
        in_features: int,
        width: int,
        stride: int,
        *,
        zero_init_residual: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        out_features = width * self.expansion
        self.first = ConvNorm(in_features, width, 1, dtype=dtype, rngs=rngs)
        self.second = ConvNorm(width, width, 3, stride, dtype=dtype, rngs=rngs)
        self.third = ConvNorm(width, out_features, 1, zero_scale=zero_init_residual, dtype=dtype, rngs=rngs)
        self.shortcut = _shortcut(in_features, out_features, stride, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 c2"]:
        y = nnx.relu(self.first(x, train=train))
        y = nnx.relu(self.second(y, train=train))
        y = self.third(y, train=train)
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x, train=train)))


def _run(block: BasicBlock | Bottleneck, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 c2"]:
    return block(x, train=train)


def _pooled(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    return at_least_float32(x).mean(axis=(1, 2))


def _shortcut(in_features: int, out_features: int, stride: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> ConvNorm | None:
    if stride == 1 and in_features == out_features:
        return None
    return ConvNorm(in_features, out_features, 1, stride, dtype=dtype, rngs=rngs)


ARCHITECTURES: dict[int, tuple[type[BasicBlock] | type[Bottleneck], Sequence[int]]] = {
    10: (BasicBlock, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}

STEMS: dict[str, tuple[int, int, bool]] = {  # kernel, stride, max-pool after it
    "cifar": (3, 1, False),
    "cifar_s2": (3, 2, False),
    "imagenet": (7, 2, True),
}


class ResNet(Encoder):
    """Images to globally average-pooled features.

    depth: 10, 18, 34 (basic blocks), 50 or 101 (bottlenecks).
    stem: "cifar" = 3x3, stride 1; "cifar_s2" = 3x3, stride 2; "imagenet" = 7x7, stride 2, then 3x3 max-pool, stride 2.
    width: channels of the first stage (64 in the paper); the features number 8 * width, for bottlenecks 32 * width.
    zero_init_residual: start the last normalization scale of every residual branch at zero.
    dtype: type of convolutions and activations. Parameters are float32, normalization and the pooled
      features at least.
    remat: keep only the input of every block and compute its inside again for the gradient: less memory, more work.
    """

    def __init__(
        self,
        depth: int = 18,
        stem: str = "cifar",
        width: int = 64,
        *,
        channels: int = 3,
        zero_init_residual: bool = False,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        if depth not in ARCHITECTURES:
            raise errors.unknown("depth", depth, ARCHITECTURES)
        if stem not in STEMS:
            raise errors.unknown("stem", stem, STEMS)
        if width < 1:
            raise ValueError(f"width={width}: the first stage needs at least one channel")
        block, stages = ARCHITECTURES[depth]
        kernel, stride, self.pool = STEMS[stem]
        self.stem = ConvNorm(channels, width, kernel, stride, dtype=dtype, rngs=rngs)
        blocks, in_features = [], width
        for stage, length in enumerate(stages):
            for i in range(length):
                stage_width, block_stride = width * 2**stage, 2 if stage > 0 and i == 0 else 1
                blocks.append(
                    block(
                        in_features,
                        stage_width,
                        block_stride,
                        zero_init_residual=zero_init_residual,
                        dtype=dtype,
                        rngs=rngs,
                    )
                )
                in_features = stage_width * block.expansion
        self.blocks = nnx.List(blocks)
        self.features = in_features
        self.dtype = dtype
        self.remat = remat

    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b d"]:
        """Features, at least in float32. `train=True` normalizes with the batch and updates the running statistics."""
        return _pooled([*self._maps(images, train)][-1])

    def layers(self, images: Float[Array, "b h w c"]) -> dict[str, Float[Array, "b _"]]:
        """Global averages after the stem and after every block, the last of which is the encoder's feature."""
        names = ["stem", *(f"block{number:02}" for number in range(1, len(self.blocks) + 1))]
        return {f"{name}.pooled": _pooled(x) for name, x in zip(names, self._maps(images, train=False), strict=True)}

    def _maps(self, images: Float[Array, "b h w c"], train: bool) -> Iterator[Float[Array, "b h2 w2 c2"]]:
        """What the stem and each block make of the images."""
        x = nnx.relu(self.stem(images.astype(self.dtype), train=train))
        if self.pool:
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]
        yield x
        run = nnx.remat(_run, static_argnums=2) if self.remat else _run
        for block in self.blocks:
            x = run(block, x, train)
            yield x
