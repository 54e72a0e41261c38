"""Pre-norm Transformer blocks: of Vision Transformers, of text, and of the predictors that train them."""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from dnc import errors
from dnc.models.normalization import layer_norm
from dnc.types import Array, Bool, Float, Key

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "swiglu": lambda x: jax.nn.silu(x[..., : x.shape[-1] // 2]) * x[..., x.shape[-1] // 2 :],  # halves the width
}

ATTENTIONS = (None, "xla", "cudnn")

INITIALIZERS: dict[str, jax.nn.initializers.Initializer] = {
    "normal": jax.nn.initializers.normal(0.02),  # PyTorch's trunc_normal_(std=.02) cuts at 2: 100 standard deviations
    "xavier_uniform": jax.nn.initializers.xavier_uniform(),
}


@dataclasses.dataclass(frozen=True)
class BlockSettings:
    """What the blocks of one Transformer have in common.

    width: of the tokens. heads: of attention; they divide the width. mlp_ratio: the MLP's hidden width / width.
    activation: "gelu", "gelu_tanh" (SigLIP), "quick_gelu" (CLIP) or "swiglu" (DINOv2 giant).
    qkv_bias: whether queries, keys and values have biases.
    causal: whether a token attends only to itself and to those before it (CLIP's text).
    layer_scale: first value of LayerScale (Touvron et al. 2021), None for none. epsilon: of LayerNorm (CLIP: 1e-5).
    init: of all matrices, "normal" of standard deviation .02 (DINO, I-JEPA) or "xavier_uniform" (MAE, SigLIP).
    attention: None, "xla" or "cudnn", the implementation of `jax.nn.dot_product_attention`; "cudnn" is the fused kernel
      of NVIDIA GPUs for 16-bit types, None is XLA's everywhere.
    dtype: type of matrix products and activations. Parameters are float32, LayerNorm at least.
    """

    width: int
    heads: int
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    qkv_bias: bool = True
    causal: bool = False
    layer_scale: float | None = None
    epsilon: float = 1e-6
    init: str = "normal"
    attention: str | None = None
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        if self.width < 1 or self.heads < 1 or self.width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide width={self.width}: choose a divisor")
        for name, known in (("activation", ACTIVATIONS), ("attention", ATTENTIONS), ("init", INITIALIZERS)):
            if getattr(self, name) not in known:
                raise errors.unknown(name, getattr(self, name), known)

    def linear(self, in_features: int, out_features: int, *, use_bias: bool = True, rngs: nnx.Rngs) -> nnx.Linear:
        init = INITIALIZERS[self.init]
        return nnx.Linear(in_features, out_features, use_bias=use_bias, kernel_init=init, dtype=self.dtype, rngs=rngs)

    def norm(self, rngs: nnx.Rngs) -> nnx.LayerNorm:
        return layer_norm(self.width, epsilon=self.epsilon, dtype=self.dtype, rngs=rngs)


class Attention(nnx.Module):
    """Multi-head attention of tokens x to the tokens of a context: softmax(q k^T / sqrt(width / heads)) v."""

    def __init__(self, settings: BlockSettings, *, rngs: nnx.Rngs):
        width = settings.width
        self.query = settings.linear(width, width, use_bias=settings.qkv_bias, rngs=rngs)
        self.key = settings.linear(width, width, use_bias=settings.qkv_bias, rngs=rngs)
        self.value = settings.linear(width, width, use_bias=settings.qkv_bias, rngs=rngs)
        self.out = settings.linear(width, width, rngs=rngs)
        self.heads, self.causal = settings.heads, settings.causal
        self.implementation: Any = settings.attention  # one of ATTENTIONS

    def __call__(
        self, x: Float[Array, "b t d"], context: Float[Array, "b s d"], valid: Bool[Array, "b s"] | None = None
    ) -> Float[Array, "b t d"]:
        """`valid` marks the tokens of the context that are attended to; all by default."""
        q, k, v = (
            layer(tokens).reshape(*tokens.shape[:2], self.heads, -1)
            for layer, tokens in ((self.query, x), (self.key, context), (self.value, context))
        )
        with jax.numpy_dtype_promotion("standard"):  # it computes the weights in float32 whatever the type
            mask = None if valid is None else valid[:, None, None, :]
            y = jax.nn.dot_product_attention(
                q, k, v, mask=mask, is_causal=self.causal, implementation=self.implementation
            )
        return self.out(y.reshape(x.shape))


class MLP(nnx.Module):
    """Two layers with an activation between them. SwiGLU's two halves have 2/3 of the hidden width, as in DINOv2."""

    def __init__(self, settings: BlockSettings, *, rngs: nnx.Rngs):
        hidden = round(settings.width * settings.mlp_ratio)  # a ratio such as 4304/1152 (SigLIP) is not exact
        gates = settings.activation == "swiglu"
        if gates:
            hidden = (int(hidden * 2 / 3) + 7) // 8 * 8  # rounded up to a multiple of 8
        self.first = settings.linear(settings.width, 2 * hidden if gates else hidden, rngs=rngs)
        self.second = settings.linear(hidden, settings.width, rngs=rngs)
        self.activation = settings.activation

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        return self.second(ACTIVATIONS[self.activation](self.first(x)))


class Block(nnx.Module):
    """A pre-norm Transformer block: x <- x + s attention(norm(x)), then x <- x + s mlp(norm(x)), s for LayerScale."""

    def __init__(self, settings: BlockSettings, *, rngs: nnx.Rngs):
        self.norm1, self.attention = settings.norm(rngs), Attention(settings, rngs=rngs)
        self.norm2, self.mlp = settings.norm(rngs), MLP(settings, rngs=rngs)
        self.scale1, self.scale2 = _layer_scale(settings), _layer_scale(settings)

    def __call__(
        self,
        x: Float[Array, "b t d"],
        paths: Float[Array, "2 b"] | None = None,
        valid: Bool[Array, "b t"] | None = None,
    ) -> Float[Array, "b t d"]:
        """paths: multipliers of every example's branches, see `stochastic_depth`. valid: the tokens attended to."""
        first, second = (None, None) if paths is None else paths
        y = self.norm1(x)
        x = x + _scaled(self.attention(y, y, valid), self.scale1, first)
        return x + _scaled(self.mlp(self.norm2(x)), self.scale2, second)


def _run(
    block: Block, x: Float[Array, "b t d"], paths: Float[Array, "2 b"] | None, valid: Bool[Array, "b t"] | None
) -> Float[Array, "b t d"]:
    return block(x, paths, valid)


def apply_blocks(
    blocks: Iterable[Block],
    x: Float[Array, "b t d"],
    *,
    paths: Float[Array, "depth 2 b"] | None = None,
    valid: Bool[Array, "b t"] | None = None,
    remat: bool = False,
) -> Float[Array, "b t d"]:
    """One block after the other; with `remat`, their insides are computed again for the gradient."""
    run = nnx.remat(_run) if remat else _run
    for index, block in enumerate(blocks):
        x = run(block, x, None if paths is None else paths[index], valid)
    return x


def _layer_scale(settings: BlockSettings) -> nnx.Param | None:
    if settings.layer_scale is None:
        return None
    return nnx.Param(jnp.full(settings.width, settings.layer_scale, jnp.float32))


def _scaled(y: Float[Array, "b t d"], scale: nnx.Param | None, path: Float[Array, "b"] | None) -> Float[Array, "b t d"]:
    if scale is not None:
        y = y * scale[None, None].astype(y.dtype)
    return y if path is None else y * path[:, None, None].astype(y.dtype)


def stochastic_depth(key: Key[Array, ""], rate: float, depth: int, batch: int) -> Float[Array, "depth 2 b"]:
    """Multipliers of the two branches of every block for every example (Huang et al. 2016): 0 or 1/(1 - p), mean 1.

    p, the probability of 0, grows linearly from 0 in the first block to `rate` in the last.
    """
    kept = 1.0 - jnp.linspace(0.0, rate, depth)[:, None, None]
    return jnp.where(jax.random.bernoulli(key, kept, (depth, 2, batch)), 1.0 / kept, 0.0)


def learned_tokens(count: int, width: int, rngs: nnx.Rngs) -> nnx.Param:
    """Learned token vectors [count, width], normal of standard deviation .02; two axes, so that they decay."""
    return nnx.Param(jax.nn.initializers.normal(0.02)(rngs.params(), (count, width), jnp.float32))


class AttentionPool(nnx.Module):
    """A learned query's attention to all tokens, then an MLP with a residual connection (SigLIP; Lee et al. 2019)."""

    def __init__(self, settings: BlockSettings, *, rngs: nnx.Rngs):
        self.probe = learned_tokens(1, settings.width, rngs)
        self.attention = Attention(settings, rngs=rngs)
        self.norm, self.mlp = settings.norm(rngs), MLP(settings, rngs=rngs)

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b d"]:
        probe = jnp.broadcast_to(self.probe[None].astype(x.dtype), (x.shape[0], *self.probe.shape))
        y = self.attention(probe, x)
        return (y + self.mlp(self.norm(y)))[:, 0]
