"""How often the guarantee holds, and how tight it is, on samples of populations whose few-shot error is known.

python -m experiments.guarantee_coverage --output=experiments/results/guarantee

Two or ten classes in 16 dimensions, normal or with the heavy tails of Student's t; 20, 100 or 500 samples per class;
every m of 1, 5, 20 that leaves three blocks. Beside the guarantee stand Hoeffding's bound for U-statistics, in the form
of kl, and the percentile bootstrap of the measured error: samples are drawn anew with replacement within each class.
All are one-sided bounds at the confidence .95. The truth is the mean over 40,000 fresh supports with ten queries per
class. Writes guarantee.json and guarantee.md; an interrupted experiment continues. About 25 minutes of CPU time.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dnc.few_shot import betting
from dnc.few_shot.block_errors import nearest_center, shuffled_errors, shuffled_orders
from experiments import common

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_SAMPLES = flags.DEFINE_integer("samples", 1000, "Samples drawn of each population.", lower_bound=1)
_SHUFFLES = flags.DEFINE_integer("shuffles", 2, "Shuffles of each sample, with 16 pairings each.", lower_bound=1)
_BOOTSTRAPPED = flags.DEFINE_integer("bootstrapped", 100, "Samples that are bootstrapped.", lower_bound=1)
_RESAMPLES = flags.DEFINE_integer("resamples", 40, "Draws of each bootstrapped sample.", lower_bound=1)

DELTA = 0.05
DIMENSION = 16
FREEDOM = 2.5  # degrees of, of Student's t: a variance, but no third moment
POPULATIONS = {"easy": ("normal", 3.5), "hard": ("normal", 1.5), "heavy tails": ("t", 3.5)}  # noise, norm of a mean
SHOTS, SIZES, CLASSES = (1, 5, 20), (20, 100, 500), (2, 10)
EPISODES, QUERIES = 40_000, 10
_ROWS_AT_ONCE = 2**13


def main() -> None:
    rows = common.saved(_OUTPUT.value, "guarantee", {"rows": []})["rows"]
    done = {(row["population"], row["classes"], row["samples_per_class"], row["shots"]) for row in rows}
    for population in POPULATIONS:
        for k in CLASSES:
            for m in SHOTS:
                settings = [(population, k, n, m) for n in SIZES if n // (m + 1) >= 3]
                if done.issuperset(settings):
                    continue
                truth = true_error(population, k, m)
                for setting in settings:
                    if setting not in done:
                        rows.append(measured(*setting, truth))
                        _save(rows)
    _save(rows)


def measured(population: str, k: int, n: int, m: int, truth: float) -> dict:
    """Coverage and mean excess over the truth of each method's bound."""
    blocks = n // (m + 1)
    labels = jnp.repeat(jnp.arange(k, dtype=jnp.int32), n)
    settings = {"rule": nearest_center, "most": m, "blocks": blocks}

    def block_means(job: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Errors [e, b] of a sample, or of draw number `job[1]` with replacement from it."""
        key, resample = job
        features = drawn(key, population, k, n).reshape(k * n, DIMENSION)
        split, redraw = jax.random.split(jax.random.fold_in(key, resample))
        rows = jax.random.randint(redraw, (k, n), 0, n) + n * jnp.arange(k, dtype=jnp.int32)[:, None]
        features = features[jnp.where(resample > 0, rows.reshape(-1), jnp.arange(k * n, dtype=jnp.int32))]
        shots = jnp.full(k, m, jnp.int32)
        orders = shuffled_orders(jax.random.split(split, _SHUFFLES.value), labels, k)
        errors = shuffled_errors(orders, features, labels, shots, **settings)
        return jnp.mean(errors, axis=3).reshape(-1, blocks)

    limit = max(1, _ROWS_AT_ONCE // (n * k))
    at_once = max(size for size in range(1, limit + 1) if _SAMPLES.value % size == 0)  # a rest compiles once more
    run = jax.jit(lambda *jobs: jax.lax.map(block_means, jobs, batch_size=at_once))
    keys = jax.random.split(jax.random.key(m * n + k), _SAMPLES.value)
    resamples = 1 + jnp.arange(_RESAMPLES.value, dtype=jnp.int32)
    values = np.asarray(run(keys, jnp.zeros(len(keys), jnp.int32)), np.float64)
    lower, upper = np.transpose([betting.bounds(rows, DELTA, spread=1 / k) for rows in values])
    hoeffding = kl_upper(values.mean(axis=(1, 2)), np.log(1 / DELTA) / blocks)
    few, per_run = keys[: _BOOTSTRAPPED.value], len(keys) // len(resamples)
    replicates = []
    for start in range(0, len(few), per_run):  # as many jobs as samples: one program
        owner = jnp.repeat(few[start : start + per_run], len(resamples))
        number = jnp.tile(resamples, len(owner) // len(resamples))
        missing = len(keys) - len(owner)
        errors = run(jnp.concatenate([owner, keys[:missing]]), jnp.pad(number, (0, missing)))
        replicates.append(np.mean(errors[: len(owner)], axis=(1, 2)).reshape(-1, len(resamples)))
    bootstrap = np.quantile(np.concatenate(replicates), 1 - DELTA, axis=1)
    bounds = {"guarantee": upper, "hoeffding": hoeffding, "bootstrap": bootstrap}
    return {
        "population": population,
        "classes": k,
        "samples_per_class": n,
        "shots": m,
        "blocks": blocks,
        "truth": truth,
        "coverage": {name: float(np.mean(bound >= truth)) for name, bound in bounds.items()},
        "excess": {name: float(np.mean(bound) - truth) for name, bound in bounds.items()},
        "lower_coverage": float(np.mean(lower <= truth)),
        "lower_excess": truth - float(np.mean(lower)),
    }


def drawn(key: jax.Array, population: str, k: int, n: int) -> jax.Array:
    """[k, n, d] samples: class c has the mean s e_c."""
    noise, norm = POPULATIONS[population]
    shape = (k, n, DIMENSION)
    x = jax.random.normal(key, shape) if noise == "normal" else jax.random.t(key, FREEDOM, shape)
    return x + norm * jnp.eye(k, DIMENSION)[:, None, :]


@functools.partial(jax.jit, static_argnames=("population", "k", "m"))
def _true_error(keys: jax.Array, population: str, k: int, m: int) -> jax.Array:
    def episode(key: jax.Array) -> jax.Array:
        x = drawn(key, population, k, m + QUERIES)
        return jnp.mean(nearest_center(x[:, :m], jnp.ones((k, m), bool), x[:, m:]))

    return jnp.mean(jax.lax.map(episode, keys, batch_size=50))


def true_error(population: str, k: int, m: int) -> float:
    return float(_true_error(jax.random.split(jax.random.key(0), EPISODES), population, k, m))


def kl_upper(mean: np.ndarray, budget: float) -> np.ndarray:
    """The largest p with kl(mean, p) <= budget: with log(1/delta)/B, Hoeffding's bound of a U-statistic (1963)."""
    low, high = mean, np.ones_like(mean)
    for _ in range(50):
        p = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            wrong = np.where(mean > 0, mean * np.log(mean / p), 0)
            right = np.where(mean < 1, (1 - mean) * np.log((1 - mean) / (1 - p)), 0)
        inside = wrong + right <= budget
        low, high = np.where(inside, p, low), np.where(inside, high, p)
    return high


def _save(rows: list[dict]) -> None:
    names = ("guarantee", "hoeffding", "bootstrap")
    head = ["population", "classes", "n", "m", "blocks", "truth", *(f"{name}: holds" for name in names)]
    head += [f"{name}: excess" for name in names] + ["lower: holds", "lower: excess"]
    lines = [
        f"Share of {_SAMPLES.value} samples for which each upper bound, at the confidence .95, holds (the bootstrap: "
        f"of {_BOOTSTRAPPED.value}), and its mean less the true error. n samples and m shots per class. From "
        f"{_SHUFFLES.value} shuffles with up to 16 pairings each: more shuffles tighten the guarantee, and do not "
        "change its validity. The last columns are the guarantee's lower bound.",
        "",
    ]
    cells = [
        [
            row["population"],
            *(str(row[name]) for name in ("classes", "samples_per_class", "shots", "blocks")),
            f"{row['truth']:.3f}",
            *(f"{row['coverage'][name]:.3f}" for name in names),
            *(f"{row['excess'][name]:+.3f}" for name in names),
            f"{row['lower_coverage']:.3f}",
            f"{row['lower_excess']:+.3f}",
        ]
        for row in rows
    ]
    record = {"confidence": 1 - DELTA, "shuffles": _SHUFFLES.value, "rows": rows, **common.machine(jax=jax.__version__)}
    common.save(_OUTPUT.value, "guarantee", record, lines + common.table(head, cells))


if __name__ == "__main__":
    common.main(main)
