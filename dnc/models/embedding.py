"""Features of images from a trained encoder: deterministic, in batches of one compiled size."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from dnc.distributed import replicated, shard_batch
from dnc.types import Array, Float, UInt8

Embed = Callable[[nnx.State, nnx.State, np.ndarray], np.ndarray]


def make_embedder(graphdef: nnx.GraphDef, standardise: Callable, mesh: Mesh, batch_size: int = 576) -> Embed:
    """A function (params, rest, images uint8 [n, h, w, 3]) -> features float32 [n, d] of a network's encoder.

    The last batch is padded with repeated images and cut again, so that one program serves any n. Statistics of
    normalisation layers are the running ones: a feature does not depend on the other images.
    """
    batch_size = max(batch_size // mesh.size, 1) * mesh.size

    @jax.jit
    def embed_batch(params: nnx.State, rest: nnx.State, images: UInt8[Array, "b h w c"]) -> Float[Array, "b d"]:
        network = nnx.merge(graphdef, params, rest, copy=True)
        features = network.encoder(standardise(images.astype(jnp.float32) / 255.0), train=False)
        return jax.lax.with_sharding_constraint(features, replicated(mesh))

    def embed(params: nnx.State, rest: nnx.State, images: np.ndarray) -> np.ndarray:
        blocks: Sequence[np.ndarray] = [
            images[start : start + batch_size] for start in range(0, len(images), batch_size)
        ]
        features = []
        for block in blocks:
            padded = np.concatenate([block, np.repeat(block[-1:], batch_size - len(block), axis=0)])
            features.append(np.asarray(embed_batch(params, rest, shard_batch(mesh, padded)))[: len(block)])
        return np.concatenate(features)

    return embed
