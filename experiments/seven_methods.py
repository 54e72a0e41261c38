"""Which methods collapse directionally? Nine objectives, two small encoders, the same minutes each, one set of images.

python -m experiments.seven_methods --workdir=runs/seven_methods --output=experiments/results/seven_methods --minutes=18

--methods=simclr,mae trains and reports those alone. --optimizer=muon trains all of them with Muon as in
configs/quickstart.py instead of their configs' optimizers, ViTs with less weight decay; give it a workdir of its own.
--best_of=own/seven_methods.json,muon/seven_methods.json instead of --workdir trains nothing and reports each method's
better run: where more factors collapse, and of equals that whose directional CDNV ends lower in the geometric mean.

Seven published methods, directional collapse as a loss, and supervision of one factor for reference, each as in its
own config but for size and duration: methods that train a ResNet there share one ResNet, the same weights at step 0;
the others a ViT, with the class token and positions each method needs. Minutes are spent in steps: how many is set
once, from the pace of a few steps of each method measured on this machine, and kept in WORKDIR/plan.json; measuring and
saving come on top. Complete runs are not trained again, interrupted ones go on. --steps=30 instead gives every method
the same number of steps, to try them out.

All numbers come from the runs' measurements of held-out images. Writes seven_methods.json, .md and .svg.
"""

import importlib
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import app, flags
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from ml_collections import ConfigDict

from configs import quickstart
from dnc import distributed, errors, files
from dnc.data.multitask.render import FACTORS
from dnc.record import TaskRecord
from dnc.report import style
from dnc.report.run import load
from experiments import common

METHODS = {
    "simclr": "SimCLR",
    "vicreg": "VICReg",
    "mae": "MAE",
    "dino": "DINO",
    "ijepa": "I-JEPA",
    "clip": "CLIP",
    "siglip": "SigLIP",
    "directional": "directional loss",
    "supervised": "supervised on shape",
}
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of one run per method.")
_BEST_OF = flags.DEFINE_list("best_of", [], "Results to choose from, instead of --workdir.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_METHODS = flags.DEFINE_list("methods", list(METHODS), "Which to train and report.")
_OPTIMIZER = flags.DEFINE_enum("optimizer", "own", ["own", "muon"], "The methods' own, or Muon for all.")
_MINUTES = flags.DEFINE_float("minutes", 30, "Of training, for each method.", lower_bound=0.01)
_STEPS = flags.DEFINE_integer("steps", None, "Steps of each method, however long they take.", lower_bound=2)

RESNET_WIDTH = 16
VIT = dict(width=96, depth=4, heads=3)
VIT_DECAY = 0.1  # with Muon
HALF_AS_WIDE = ("decoder_width", "predictor_width")  # as the ViT
SHOT = 10
BOUNDS = ("luthra2026", "exact_cantelli")
LEAST_FALL = 8.0  # of directional CDNV, to speak of directional collapse
CEILING = 0.25  # of it at the end, see RULE
GEOMETRY_NOTE = (
    f"From step 0 to the last. Errors and certificates at {SHOT} shots: all classes / mean over two-class subtasks. "
    "Interference: the share of the within-class variance along the factor's axes that the other factors explain "
    "together, at most 1."
)
RULE = (
    f"Directional collapse of a factor, here: its directional CDNV falls at least {LEAST_FALL:g} times, by more than "
    f"its CDNV, and ends below {CEILING:g}, where Cantelli's inequality puts the two-class error with exact centers, "
    "v / (v + 1/4), under 1/2. An untrained encoder's can be so large that a fall alone says little. At this budget:"
)


def main() -> None:
    if bool(_WORKDIR.value) == bool(_BEST_OF.value):
        raise app.UsageError("give --workdir to train, or --best_of to choose from results: one of the two")
    for name in _METHODS.value or [""]:
        if name not in METHODS:
            raise app.UsageError(str(errors.unknown("--methods", name, METHODS)))
    methods = [name for name in METHODS if name in _METHODS.value]
    if _BEST_OF.value:
        record = best([files.read_json(path)["runs"] for path in _BEST_OF.value], methods)
    else:
        record = _trained(methods)
    common.save(_OUTPUT.value, "seven_methods", {"runs": record}, tables(record), figure(record).svg)


def _trained(methods: Sequence[str]) -> dict[str, Any]:
    workdir = pathlib.Path(str(_WORKDIR.value))
    example: Any = _config(methods[0], steps=2)
    distributed.initialize(batch_size=example.train.batch_size)
    steps = _steps(methods, workdir)
    record = {}
    for name in methods:
        common.trained(_config(name, steps[name]), workdir / name)
        record[name] = measured(workdir / name)
    return record


def best(records: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> dict[str, Any]:
    """Each method's better run of those recorded, by the rule above."""

    def rank(run: Mapping[str, Any]) -> tuple[int, float]:
        factors = run["factors"].values()
        ends = [numbers["directional_cdnv"][1] for numbers in factors]
        end = math.inf if None in ends else sum(math.log(value) if value else -math.inf for value in ends)
        return -sum(map(collapses, factors)), end

    runs = {name: [record[name] for record in records if name in record] for name in methods}
    if missing := [name for name, candidates in runs.items() if not candidates]:
        raise app.UsageError(f"--best_of: no result has {', '.join(missing)}; leave them out with --methods")
    return {name: min(candidates, key=rank) for name, candidates in runs.items()}


def _config(name: str, steps: int) -> ConfigDict:
    """The method's config with the common sizes, pictures and duration."""
    config: Any = importlib.import_module(f"configs.{name}_multitask").get_config()
    if config.model.name == "vit":
        config.model.update(VIT)
        config.objective.update({width: VIT["width"] // 2 for width in HALF_AS_WIDE if width in config.objective})
    else:
        config.model.width = RESNET_WIDTH
    if _OPTIMIZER.value == "muon":
        muon: Any = quickstart.get_config()
        config.optimizer, config.schedule.peak = muon.optimizer, muon.schedule.peak
        if config.model.name == "vit":  # LayerNorm, which does not make a network blind to its kernels' scale
            config.optimizer.weight_decay = VIT_DECAY
    config.data.num_examples = 12_800
    config.schedule.warmup = dict(steps=steps // 10)
    config.train.duration = dict(steps=steps)
    return config


def _steps(methods: Sequence[str], workdir: pathlib.Path) -> dict[str, int]:
    """How many fit into the minutes; what was planned before stays, so that a run that goes on keeps its config."""
    if _STEPS.value:
        return dict.fromkeys(methods, _STEPS.value)
    path, minutes = workdir / "plan.json", float(_MINUTES.value or 0)
    plan = files.read_json(path) if path.exists() else {"minutes": minutes, "seconds_per_step": {}, "steps": {}}
    if plan["minutes"] != minutes:
        raise app.UsageError(f"--minutes={minutes:g}: {path} was made for {plan['minutes']:g}; give another --workdir")
    for name in methods:
        if name not in plan["steps"]:
            seconds = common.seconds_per_step(_config(name, steps=1000))
            plan["seconds_per_step"][name] = seconds
            plan["steps"][name] = max(2, round(60 * minutes / seconds))
            files.write_json(path, plan)
            print(f"{name}: {seconds:.3f} s per step, {plan['steps'][name]} steps in {minutes:g} min", flush=True)
    return plan["steps"]


def measured(workdir: pathlib.Path) -> dict[str, Any]:
    """A complete run's numbers: what was spent, and every factor's geometry and errors at the start and the end."""
    training = load(workdir)
    first, last, config = training.first, training.last, training.config
    return {
        "encoder": config["model"],
        "optimizer": config["optimizer"]["name"],
        "steps": last.step,
        "examples": (last.step or 0) * config["train"]["batch_size"],
        "minutes": training_minutes(workdir / "timing.jsonl"),
        "parameters of the loss": config["objective"],
        "rankme": {record.step: record.spectrum["rankme"] for record in training.records},
        "logged": _logged(workdir / "metrics.jsonl"),
        "factors": {
            factor: {
                "cdnv": [record.tasks[factor].mean_cdnv for record in (first, last)],
                "directional_cdnv": [record.tasks[factor].mean_directional_cdnv for record in (first, last)],
                "ten_shots": _errors(last.tasks[factor]),
                "interference": last.interference[factor],
            }
            for factor in FACTORS
        },
        "cosines": {
            ", ".join(pair): {"median": axes.cosine["median"], "bound": axes.bound["median"]}
            for pair, axes in last.axes.items()
        },
    }


def _logged(metrics: pathlib.Path) -> dict[str, list[float]]:
    """The objective's own numbers over training: the loss, and what it logs beside it."""
    lines = [line for line in map(json.loads, metrics.read_text().splitlines()) if "loss" in line]
    return {name: [line[name] for line in lines] for name in lines[-1] if name not in ("epoch", "examples")}


def training_minutes(timing: pathlib.Path) -> float:
    """Of steps and of waiting for input; not of measuring and saving."""
    minutes, before = 0.0, 0
    for line in map(json.loads, timing.read_text().splitlines()):
        per_step = line["input_seconds_per_step"] + line["step_seconds_per_step"]
        minutes, before = minutes + (line["step"] - before) * per_step / 60, line["step"]
    return minutes


def _errors(task: TaskRecord) -> dict[str, dict[str, Any]]:
    """At ten shots, over all classes and as the mean over two-class subtasks."""
    at = task.shots.tolist().index(SHOT)
    errors = {"error": {"classes": task.error.mean[at], "two_class": task.error.two_class[at]}}
    for name in BOUNDS:
        certificate = task.certificates[name]
        errors[name] = {"classes": certificate.bound[at], "two_class": certificate.two_class[at]}
    return errors


def _fall(factor: Mapping[str, Any], measure: str) -> float:
    """How many times the start is the end: inf for an end of 0, nan where either has no value."""
    start, end = (math.nan if value is None else value for value in factor[measure])
    return start / end if end != 0 else math.inf


def collapses(factor: Mapping[str, Any]) -> bool:
    """Directional CDNV falls by `LEAST_FALL` or more, by more than CDNV, and ends below `CEILING`."""
    fall = _fall(factor, "directional_cdnv")
    return fall >= LEAST_FALL and fall > _fall(factor, "cdnv") and (factor["directional_cdnv"][1] or 0) < CEILING


def tables(record: Mapping[str, Any]) -> list[str]:
    return [*_spent(record), "", *_geometry(record), "", *_cosines(record), "", *_statements(record)]


def _spent(record: Mapping[str, Any]) -> list[str]:
    rows = (
        [
            METHODS[name],
            _encoder(run["encoder"]),
            run["optimizer"],
            f"{run['steps']:,}",
            f"{run['examples']:,}",
            f"{run['minutes']:.1f}",
        ]
        for name, run in record.items()
    )
    return common.table(["method", "encoder", "optimizer", "steps", "examples seen", "minutes of training"], rows)


def _encoder(model: Mapping[str, Any]) -> str:
    if model.get("name") == "vit":
        return f"ViT, {model['depth']} blocks of width {model['width']}, patches of {model['patch_size']} pixels"
    return f"ResNet-{model['depth']} of width {model['width']}"


def _geometry(record: Mapping[str, Any]) -> list[str]:
    head = ["method", "factor", "directional CDNV", "CDNV", f"{SHOT}-shot error"]
    head += [*(f"`{bound}`" for bound in BOUNDS), "interference"]
    rows = (
        [
            METHODS[name],
            factor,
            *("{:.3g} -> {:.3g}".format(*numbers[measure]) for measure in ("directional_cdnv", "cdnv")),
            *(f"{value['classes']:.3f} / {value['two_class']:.3f}" for value in numbers["ten_shots"].values()),
            f"{sum(numbers['interference'].values()):.3f}",
        ]
        for name, run in record.items()
        for factor, numbers in run["factors"].items()
    )
    return [*common.table(head, rows), "", GEOMETRY_NOTE]


def _cosines(record: Mapping[str, Any]) -> list[str]:
    rows = (
        [METHODS[name], *(f"{pair['median']:.3f} ({pair['bound']:.2f})" for pair in run["cosines"].values())]
        for name, run in record.items()
    )
    return common.table(["median abs(cos) of axes (bound)", *next(iter(record.values()))["cosines"]], rows)


def _statements(record: Mapping[str, Any]) -> list[str]:
    lines = [RULE, ""]
    for name, run in record.items():
        factors: dict[bool, list[str]] = {True: [], False: []}
        for factor, numbers in run["factors"].items():
            fall, classical = (_fall(numbers, measure) for measure in ("directional_cdnv", "cdnv"))
            text = f"{factor} ({fall:.3g}x to {numbers['directional_cdnv'][1]:.3g}, CDNV {classical:.3g}x)"
            factors[collapses(numbers)].append(text)
        verbs = {True: "collapses", False: "does not collapse"}
        parts = [f"{verbs[does]} directionally in {', '.join(those)}" for does, those in factors.items() if those]
        lines.append(f"- {METHODS[name]} {'; '.join(parts)}.")
    return lines


def figure(record: Mapping[str, Any]) -> style.Picture:
    """A panel for each factor, a row for each method: from the hollow mark at step 0 to the full one at the end."""
    rows = {name: -index for index, name in enumerate(record)}
    measures = (("directional_cdnv", "directional CDNV", style.BLUE, 0.14), ("cdnv", "CDNV", style.VERMILLION, -0.14))
    with style.theme():
        drawing = Figure(figsize=(9.6, 1.0 + 0.34 * len(rows)), layout="constrained")
        panels = drawing.subplots(1, len(FACTORS), sharey=True)
        for factor, axes in zip(FACTORS, panels, strict=True):
            for measure, label, color, shift in measures:
                for name, y in rows.items():
                    values = record[name]["factors"][factor][measure]
                    axes.plot(values, [y + shift] * 2, color=color, linewidth=1.4)
                    axes.plot(values[0], y + shift, "o", color=color, markerfacecolor="white", markersize=3.5)
                    is_named = factor == "color" and y == 0
                    axes.plot(values[1], y + shift, "o", color=color, markersize=4, label=label if is_named else None)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_title(factor, fontsize=9.5, loc="left")
            axes.grid(axis="x", color=style.FAINT, linewidth=0.5)
            axes.set_axisbelow(True)
        panels[0].set_yticks(list(rows.values()), [METHODS[name] for name in rows])
        drawing.legend(loc="outside lower right", ncols=2, frameon=False)
        alt = "Directional CDNV and CDNV of every factor before and after training, by method"
        return style.render(drawing, "seven_methods", alt)


if __name__ == "__main__":
    common.main(main)
