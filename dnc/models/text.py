"""The text Transformers of CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023)."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from dnc.models.precision import at_least_float32
from dnc.models.transformer import Block, BlockSettings, apply_blocks, learned_tokens
from dnc.types import Array, Float, Int


class TextTransformer(nnx.Module):
    """Tokens [b, t] to features [b, d], `at_least_float32`. All texts have the same number of tokens, padding included.

    causal: as in CLIP, a token attends to itself and those before it, and the feature is that of the end token, the
      vocabulary's last; padding after it changes nothing. Otherwise, as in SigLIP, every token attends to all, padding
      too, and the feature is that of the last position, which is padding in all but the longest texts.
    vocabulary: number of tokens; a number beyond it gives nan. context_length: t. width, depth (in blocks), heads.
    activation, epsilon, init, attention, dtype: see `BlockSettings`; of the published models, CLIP's are "quick_gelu"
      and 1e-5, SigLIP's "gelu_tanh" and 1e-6. remat: as in `ViT`.
    """

    def __init__(
        self,
        vocabulary: int,
        context_length: int,
        width: int = 512,
        depth: int = 12,
        heads: int = 8,
        *,
        causal: bool,
        mlp_ratio: float = 4.0,
        activation: str = "gelu",
        epsilon: float = 1e-6,
        init: str = "normal",
        attention: str | None = None,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        settings = BlockSettings(
            width,
            heads,
            mlp_ratio=mlp_ratio,
            activation=activation,
            causal=causal,
            epsilon=epsilon,
            init=init,
            attention=attention,
            dtype=dtype,
        )
        if vocabulary < 1 or context_length < 1 or depth < 1:
            raise ValueError(f"{vocabulary=}, {context_length=}, {depth=}: give at least 1 of each")
        self.embedding = learned_tokens(vocabulary, width, rngs)
        self.positions = learned_tokens(context_length, width, rngs)
        self.blocks = nnx.List([Block(settings, rngs=rngs) for _ in range(depth)])
        self.norm = settings.norm(rngs)
        self.causal, self.end = causal, vocabulary - 1
        self.features, self.dtype, self.remat = width, dtype, remat

    def __call__(self, tokens: Int[Array, "b t"]) -> Float[Array, "b d"]:
        """The feature that `causal` chooses; without an end token, that of the first."""
        x = self.hidden(tokens)
        if not self.causal:
            return x[:, -1]
        end = jnp.argmax(tokens == self.end, axis=1)
        return jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]

    def hidden(self, tokens: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        """Every token after the last block and the final normalization."""
        if tokens.shape[1] != len(self.positions):
            raise ValueError(
                f"texts of {tokens.shape[1]} tokens: this Transformer has positions for {len(self.positions)}; "
                "give both the same context_length"
            )
        x = jnp.take(self.embedding[...], tokens, axis=0) + self.positions[None]
        x = apply_blocks(self.blocks, x.astype(self.dtype), remat=self.remat)
        return at_least_float32(self.norm(x))
