"""What every encoder offers to objectives and to evaluation."""

from flax import nnx
from jax.typing import DTypeLike

from dnc.types import Array, Float


class Encoder(nnx.Module):
    """Images [b, h, w, c] to float32 features [b, d], those that evaluation reads and heads stand on.

    features: d. dtype: the compute type; heads follow it.
    """

    features: int
    dtype: DTypeLike

    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b d"]:
        raise NotImplementedError

    def layers(self, images: Float[Array, "b h w c"]) -> dict[str, Float[Array, "b _"]]:
        """Features at every depth, in evaluation: "LAYER.TOKEN" -> [b, d], from the input to the output.

        The feature that calling the encoder gives is among those of the last layer.
        """
        return {"output.pooled": self(images, train=False)}
