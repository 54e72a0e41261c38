"""Whether geometry and certificates keep their digits whatever precision JAX computes products with by default.

python -m experiments.benchmarks.precision --output=experiments/results/benchmarks     # 2 minutes

Accelerators compute float32 products with fewer bits unless a program asks for more (TF32 on NVIDIA GPUs). The geometry
of made clusters is compared with a loop in float64, under each default that JAX has. A bare product that asks for
nothing is the control: its error shows that the default takes effect on this device.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dnc.certificates import certificate
from dnc.geometry.measure import pair_geometry
from experiments import common

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)

N, K, D, SHOTS = 6000, 6, 384, (1, 5, 20, 100)
DEFAULTS = (None, "bfloat16", "tensorfloat32", "highest")
OFFSETS = {"at 0": 0.0, "at 1,000 deviations": 1e3}


def main() -> None:
    device = common.accelerator() or "CPU"
    rows: list[dict[str, Any]] = []
    for place, offset in OFFSETS.items():
        x, y = features_of(offset)
        expected = reference(x, y)
        for default in DEFAULTS:
            with jax.default_matmul_precision(default):
                measured = measure(x, y)
                control = np.asarray(jnp.dot(x - offset, (x[:K] - offset).T), np.float64)
            exact = (x - offset).astype(np.float64) @ (x[:K] - offset).T.astype(np.float64)
            errors = {name: error(measured[name], value) for name, value in expected.items()}
            rows.append(
                {"device": device, "features": place, "default": default or "JAX's own", "bare product": 0.0}
                | {"bare product": float(np.linalg.norm(control - exact) / np.linalg.norm(exact))}
                | errors
            )
            print(rows[-1], flush=True)
    record: dict[str, Any] = common.machine(jax=jax.__version__) | {"rows": rows}
    lines = [f"{record['machine']}, {record['date']}; n = {N:,}, k = {K}, d = {D}; largest relative errors.", ""]
    cells = ([f"{v:.1e}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows)
    common.save(_OUTPUT.value, common.beside("precision"), record, lines + common.table(list(rows[0]), cells))


def features_of(offset: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(N) % K).astype(np.int32)
    noise = (rng.exponential(size=(N, D)) - 1) * rng.uniform(0.05, 1.5, (K, D))[labels]
    return (rng.normal(size=(K, D))[labels] + noise + offset).astype(np.float32), labels


def measure(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    geometry = pair_geometry(x, y, K, overlap="exact")
    terms = geometry.margin_terms
    assert terms is not None
    values = {
        "CDNV": geometry.cdnv,
        "directional CDNV": geometry.directional_cdnv,
        "fourth moments": geometry.fourth_moment,
        "third moments": terms.third_moment,
        "overlaps": terms.covariance_overlap,
        "exact Cantelli": certificate("exact_cantelli", geometry, SHOTS).per_pair,
    }
    return {name: np.asarray(value) for name, value in values.items()}


def reference(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """The same in float64; the certificate is computed in float32 of float64's geometry, so it is left out."""
    classes = [x[y == c].astype(np.float64) for c in range(K)]
    means = [z.mean(axis=0) for z in classes]
    residuals = [z - mean for z, mean in zip(classes, means, strict=True)]
    squares = [(r**2).sum(axis=1) for r in residuals]
    third = [(r * s[:, None]).mean(axis=0) for r, s in zip(residuals, squares, strict=True)]
    sigma = [r.T @ r / len(r) for r in residuals]
    result = {name: np.full((K, K), np.nan) for name in ("CDNV", "directional CDNV", "third moments", "overlaps")}
    for i in range(K):
        for j in range(K):
            axis = means[i] - means[j]
            result["overlaps"][i, j] = np.sum(sigma[i] * sigma[j])
            result["third moments"][i, j] = axis @ third[j]
            if i != j:
                square = axis @ axis
                result["CDNV"][i, j] = (squares[i].mean() + squares[j].mean()) / square
                result["directional CDNV"][i, j] = axis @ sigma[i] @ axis / square**2
    return result | {"fourth moments": np.array([(s**2).mean() for s in squares])}


def error(value: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest value: third moments are of either sign."""
    return float(np.nanmax(np.abs(value - expected)) / np.nanmax(np.abs(expected)))


if __name__ == "__main__":
    common.main(main)
