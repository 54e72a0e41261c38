"""Outlines of the multitask shapes: polygons of equal area, and their signed distance.

Every shape is a polygon, so that one signed-distance formula draws all of them and a new shape is a new row of
vertices. Areas are equal (that of the unit circle): otherwise an object's size would reveal its shape.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dnc.types import Array, Float

MAX_VERTICES = 32


def _radial(count: int, radii: tuple[float, ...]) -> np.ndarray:
    """Vertices at equal angles, their radii cycling through `radii`; the first points up."""
    angles = np.pi / 2 + 2 * np.pi * np.arange(count) / count
    return np.resize(radii, count)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _cross(arm: float) -> np.ndarray:
    """A plus sign whose arms are 2 * arm wide and reach to 1."""
    quarter = np.array([[arm, 1.0], [arm, arm], [1.0, arm]])
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    return np.concatenate([quarter[::-1] @ np.linalg.matrix_power(turn, q).T for q in range(4)])


def _heart() -> np.ndarray:
    t = 2 * np.pi * np.arange(MAX_VERTICES) / MAX_VERTICES
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, y], axis=-1)


def _normalized(vertices: np.ndarray) -> np.ndarray:
    """Centroid at the origin, area pi, padded to MAX_VERTICES by repeating the last vertex."""
    x, y = vertices.T
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y  # shoelace formula
    area = cross.sum() / 2
    centroid = ((vertices + np.roll(vertices, -1, axis=0)) * cross[:, None]).sum(axis=0) / (6 * area)
    vertices = (vertices - centroid) * np.sqrt(np.pi / abs(area))
    padding = np.repeat(vertices[-1:], MAX_VERTICES - len(vertices), axis=0)
    return np.concatenate([vertices, padding]).astype(np.float32)


OUTLINES = {
    "circle": _normalized(_radial(MAX_VERTICES, (1.0,))),
    "square": _normalized(_radial(4, (1.0,))),
    "triangle": _normalized(_radial(3, (1.0,))),
    "star": _normalized(_radial(10, (1.0, 0.5))),
    "cross": _normalized(_cross(0.36)),
    "heart": _normalized(_heart()),
}


def signed_distance(points: Float[Array, "*b 2"], vertices: Float[Array, "v 2"]) -> Float[Array, "*b"]:
    """Signed Euclidean distance from points to a simple polygon: negative inside, in the units of the points.

    The distance is the minimum over edges of the distance to the segment; the sign flips at each edge that a ray from
    the point crosses (even-odd rule). Repeated vertices are allowed.
    """
    x, y = points[..., 0], points[..., 1]

    # One edge at a time: the [points, edges] table of a vectorized form is memory-bound, 60 times slower on CPU.
    def visit(carry: tuple, ends: tuple) -> tuple[tuple, None]:
        nearest_squared, inside = carry
        (ax, ay), (bx, by) = ends
        edge_x, edge_y, off_x, off_y = bx - ax, by - ay, x - ax, y - ay
        along = (off_x * edge_x + off_y * edge_y) / jnp.maximum(edge_x**2 + edge_y**2, 1e-12)
        along = jnp.clip(along, 0.0, 1.0)
        distance_squared = (off_x - along * edge_x) ** 2 + (off_y - along * edge_y) ** 2
        start_above, end_above = off_y < 0.0, off_y < edge_y
        crossed = (start_above != end_above) & ((edge_x * off_y < edge_y * off_x) == end_above)
        return (jnp.minimum(nearest_squared, distance_squared), inside ^ crossed), None

    start = (jnp.full(x.shape, jnp.inf, x.dtype), jnp.zeros(x.shape, bool))
    (squared, inside), _ = jax.lax.scan(visit, start, (vertices, jnp.roll(vertices, -1, axis=0)))
    distance = jnp.sqrt(squared)
    return jnp.where(inside, -distance, distance)
