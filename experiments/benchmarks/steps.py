"""How many sequential steps the loops of geometry take."""

import numpy as np

from dnc.geometry import blocks, sizes, symmetric


def sequential_steps(counts: np.ndarray, d: int, overlap: str, at_once: sizes.Sizes) -> dict[str, int]:
    """Iterations of geometry's loops on one device: over rows twice, rows of each class, columns of their products."""
    size = blocks.block_size(int(counts.sum()), len(counts))
    used = -(-counts // size)
    of_class = int(np.sum(-(-used // max(1, at_once.product_rows // size))))
    return {
        "steps of sums": 2 * -(-int(used.sum()) // max(1, at_once.rows // size)),
        "steps of second moments": of_class if overlap != "none" else 0,
        "steps of Gram": -(-stored_entries(d) // min(at_once.columns, stored_entries(d))) if overlap == "exact" else 0,
    }


def stored_entries(d: int) -> int:
    """Entries of a symmetric matrix that are formed."""
    return sum((b - a) * (d - a) for a, b in symmetric.edges(d))
