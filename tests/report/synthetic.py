"""A made-up training run in the exact schema of the result files, with the shape of a real one."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STEPS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1500)
STEPS_PER_EPOCH = 32
TASKS = {
    "color": ("red", "orange", "green", "cyan", "blue", "magenta"),
    "shape": ("circle", "square", "triangle", "star", "cross", "heart"),
    "size": ("tiny", "small", "medium", "large"),
    "style": ("filled", "outlined", "striped", "dotted"),
}
SHOTS = (1, 5, 10, 20, 50, 100)


def workdir(
    path: Path,
    tasks: Mapping[str, Sequence[str]] = TASKS,
    steps: Sequence[int] = STEPS,
    name: str | None = "simclr_multitask",
) -> Path:
    """Write a complete workdir: measurements, log, config, environment and contact sheet."""
    (path / "measurements").mkdir(parents=True)
    for step in steps:
        save(path / "measurements" / f"step_{step:08d}.json", analysis(tasks, step, step / STEPS_PER_EPOCH, name))
    generator = np.random.default_rng(0)
    with (path / "metrics.jsonl").open("w") as log:
        for step in range(0, max(steps) + 1, 5):
            loss = 1.1 + 4.2 * np.exp(-step / 180) + 0.12 * generator.normal()
            line = {"step": step, "epoch": step / STEPS_PER_EPOCH, "loss": loss, "learning_rate": 1e-3}
            log.write(json.dumps(line) + "\n")
    save(path / "config.json", {"objective": {"name": "simclr", "temperature": 0.1}, "batch_size": 128, "seed": 0})
    save(path / "environment.json", {"jax": "0.10.2", "python": "3.11.9", "devices": ["cpu:0"], "note": None})
    (path / "images").mkdir()
    tiles = generator.integers(0, 255, (8, 16, 1, 1, 3)) * np.ones((1, 1, 16, 16, 1))
    sheet = tiles.transpose(0, 2, 1, 3, 4).reshape(128, 256, 3).astype(np.uint8)
    Image.fromarray(sheet).save(path / "images" / "contact_sheet.png")
    return path


def analysis(
    tasks: Mapping[str, Sequence[str]] = TASKS,
    step: int | None = None,
    epoch: float | None = None,
    name: str | None = None,
    shots: Sequence[int] = SHOTS,
) -> dict[str, Any]:
    """One analysis after `step` steps: directional variance falls fast, the rest slowly, cosines in between."""
    done = np.log2(1 + (1500 if step is None else step)) / np.log2(1501)
    generator = np.random.default_rng([0 if step is None else step, len(tasks)])
    names = list(tasks)
    rates = {task: 4.0 + 0.5 * (index % 4) for index, task in enumerate(names)}
    return {
        "schema": "dnc.analysis/1",
        "name": name,
        "step": step,
        "epoch": epoch,
        "samples": 2304,
        "dimension": 128,
        "normalized": True,
        "seed": 0,
        "spectrum": {
            "rankme": 8 + 40 * done,
            "effective_rank": 5 + 20 * done,
            "participation_ratio": 3.2,
            "alpha_req": 1.4 - 0.3 * done,
        },
        "energy": {
            t: {str(r): (0.2 + 0.7 * done) * (1 - 2.0 ** (-0.5 * r / (1 + i))) for r in (1, 2, 4, 8, 16, 32, 64, 128)}
            for i, t in enumerate(names)
        },
        "tasks": {t: _task(generator, tasks[t], done, rates[t], np.asarray(shots, float)) for t in names},
        "axes": {f"{a}|{b}": _axes(generator, done) for a, b in combinations(names, 2)},
        "interference": {
            a: {b: float(0.04 * (1 - done) + 0.02 * generator.random()) for b in names if b != a} for a in names
        },
    }


def save(path: Path, record: Any) -> Path:
    path.write_text(json.dumps(record))
    return path


def _task(generator: np.random.Generator, classes: Sequence[str], done: float, rate: float, m: np.ndarray) -> dict:
    k = len(classes)
    noise = np.exp(0.5 * generator.normal(size=(k, k)))
    directional = 0.4 * 2 ** (-rate * done) * noise
    cdnv = 3.2 * 2 ** (-1.3 * done) * np.exp(0.2 * generator.normal(size=(k, k)))
    cdnv = (cdnv + cdnv.T) / 2
    for matrix in (directional, cdnv):
        np.fill_diagonal(matrix, np.nan)
    w, v = float(np.nanmean(directional)), float(np.nanmean(cdnv))
    margin = 4 * w + 0.9 * v / m + 1.5 * v**2 / m**2
    pair_error = 0.5 * margin / (margin + 1.6)
    error = np.minimum(1 - 1 / k, pair_error * (k - 1) ** 0.7)
    bounds = {
        "cdnv": (v * (1 + 1 / m), True, False, True),
        "luthra2025": (9 * w + 6 * v / np.sqrt(m), m >= 1, True, True),
        "luthra2026": (4 * w + 4 * v / m + 40 * v**2 / m**2 + 2 * v / np.sqrt(m), m >= 10, True, True),
        "luthra2026_limit": (4 * w + 0 * m, True, False, True),
        "exact_chebyshev": (margin, True, True, True),
        "exact_cantelli": (margin / (1 + margin), True, True, True),
        "exact_joint": (0.9 * margin / (1 + margin), True, True, False),
        "exact_conditional": (0.85 * margin / (1 + margin), True, True, False),
    }
    certificates = {}
    for name, (two, valid, certifies, union) in bounds.items():
        every = two * ((k - 1) if union else (k - 1) ** 0.8)
        clipped = every if name == "cdnv" else np.minimum(every, 1.0)
        certificates[name] = {
            "bound": clipped.tolist(),
            "two_class": (two if name == "cdnv" else np.minimum(two, 1.0)).tolist(),
            "per_class": np.repeat(clipped[:, None], k, axis=1).tolist(),
            "is_certificate": certifies,
            "valid": np.broadcast_to(valid, m.shape).tolist(),
        }
    pairs = list(combinations(range(k), 2))[:10]
    spectrum = 0.9 * 2 ** (-0.8 * done) * np.exp(0.1 * generator.normal(size=len(pairs)))
    return {
        "classes": list(classes),
        "counts": [2304 // k] * k,
        "cdnv": nulls(cdnv),
        "directional_cdnv": nulls(directional),
        "summary": {"cdnv": v, "directional_cdnv": w},
        "shots": m.astype(int).tolist(),
        "repeats": 20,
        "error": {
            "mean": error.tolist(),
            "std": (0.15 * error).tolist(),
            "per_class": np.repeat(error[:, None], k, axis=1).tolist(),
            "two_class": pair_error.tolist(),
        },
        "certificates": certificates,
        "decomposition": {
            "pairs": [list(pair) for pair in pairs],
            "axis": (0.2 * 2 ** (-rate * done) * np.ones(len(pairs))).tolist(),
            "top1": (0.3 * spectrum).tolist(),
            "top10": (0.75 * spectrum).tolist(),
            "top100": (0.99 * spectrum).tolist(),
            "trace": spectrum.tolist(),
        },
        "predicted": _predicted(m, error, pair_error, k),
        "guarantee": {
            "confidence": 0.95,
            "upper": [*np.minimum(1.3 * error + 0.01, 1)[:-1].tolist(), None],
            "lower": [*(0.8 * error)[:-1].tolist(), None],
            "blocks": (2304 // k // (m + 1)).astype(int).tolist(),
        },
        "hardest": [
            {
                "row": 7 * index,
                "label": classes[index % k],
                "suggested": classes[(index + 1) % k],
                "error": 1 - 0.02 * index,
                "doubtful": index < 2,
                "id": f"photos/{index}.jpg" if index else None,
            }
            for index in range(12)
        ],
        "hardest_shots": 10,
    }


def _predicted(m: np.ndarray, error: np.ndarray, two_class: np.ndarray, k: int) -> dict:
    grid = np.array([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**6])
    curve = np.interp(np.log(grid), np.log(m), error)
    return {
        "mean": error.tolist(),
        "per_class": np.repeat(error[:, None], k, axis=1).tolist(),
        "two_class": two_class.tolist(),
        "curve_shots": grid.tolist(),
        "curve": curve.tolist(),
        "limit": float(curve[-1]),
        "shots_needed": {"0.2": 3.0, "0.1": 40.0, "0.05": 12_345.0, "0.01": None},
    }


def _axes(generator: np.random.Generator, done: float) -> dict:
    median = 2 ** (-1.0 - 3.6 * done + 0.3 * generator.normal())
    bound = 2 ** (0.4 - 1.3 * done + 0.1 * generator.normal())
    return {
        "cosine": {"q25": 0.5 * median, "median": median, "q75": 1.7 * median, "max": min(1.0, 3 * median)},
        "bound": {"q25": 0.8 * bound, "median": bound, "q75": 1.25 * bound},
        "violations": 0,
    }


def nulls(matrix: np.ndarray) -> list:
    return [[float(value) if np.isfinite(value) else None for value in row] for row in matrix]


def with_views(record: dict[str, Any], task: str, ids: bool = False, count: int = 30) -> dict[str, Any]:
    """The same analysis with samples of a task's first pairs on their decision axis."""
    generator, classes = np.random.default_rng(1), record["tasks"][task]["classes"]
    pairs = list(combinations(range(len(classes)), 2))[:3]
    ranks = {1: ("hardest",), 2: ("hardest", "easiest"), 3: ("hardest", "median", "easiest")}[len(pairs)]
    record["tasks"][task]["views"] = [
        {
            "rank": rank,
            "first": _side(generator, classes[i], -1, ids, count),
            "second": _side(generator, classes[j], 1, ids, count),
            "cdnv": 1.5,
            "directional_cdnv": 0.02,
            "error": 0.125,
        }
        for rank, (i, j) in zip(ranks, pairs, strict=True)
    ]
    return record


def _side(generator: np.random.Generator, name: str, mean: float, ids: bool, count: int) -> dict[str, Any]:
    points = generator.normal(size=(count, 2)) * [0.3, 1.2] + [mean, 0]
    rows = generator.choice(2304, count, replace=False).tolist()
    return {
        "name": name,
        "count": 10 * count,
        "points": points.round(3).tolist(),
        "rows": rows,
        "ids": [f"photos/{name}_{row}.jpg" for row in rows] if ids else None,
    }
