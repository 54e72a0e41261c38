"""The architecture of the package, read off its syntax trees: who may import whom, and what no file may do."""

import ast
import pathlib
import subprocess
import sys

import pytest

from dnc import distribution

ROOT = pathlib.Path(__file__).parent.parent
MAX_LINES = 350

# Each unit of the package (a folder or a file) and those it may import: data flows one way.
GROUND = {"types", "distribution", "errors", "names", "files", "jsonable", "compiling"}
MAY_IMPORT = {
    "types": set(),
    "distribution": set(),
    "errors": set(),
    "names": set(),
    "files": {"errors"},
    "jsonable": set(),
    "compiling": set(),
    "distributed": GROUND,
    "task_record": GROUND,
    "record": GROUND | {"task_record"},
    "geometry": GROUND,
    "certificates": GROUND | {"geometry"},
    "few_shot": GROUND | {"geometry", "certificates"},
    "probes": GROUND | {"geometry", "few_shot"},
    "report": GROUND | {"record", "few_shot"},
    "analysis": GROUND | {"distributed", "record", "geometry", "certificates", "few_shot", "probes", "report"},
    "models": GROUND,
    "objectives": GROUND | {"models"},
    "data": GROUND | {"distributed"},
    "features": GROUND | {"distributed", "data", "models"},
    "training": GROUND
    | {"distributed", "record", "geometry", "analysis", "features", "models", "objectives", "data", "report"},
    "__init__": GROUND | {"geometry", "certificates", "few_shot", "probes", "models", "analysis"},
    "__main__": {"distribution", "errors"},
}
TOP = "commands"  # imports everything, and nothing imports it
PICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve"}
ARRAYS_ONLY = {"geometry", "certificates"}  # arrays in, arrays out: no configuration, I/O, logging, networks
NOT_FOR_ARRAYS = {"absl", "flax", "grain", "logging", "matplotlib", "ml_collections", "orbax", "pandas", "tqdm"}
CORE = ("geometry", "certificates", "few_shot", "probes", "analysis", "report", "record.py", "task_record.py")
CORE = (*CORE, "features/files.py")
ONLY_FOR_TRAINING = distribution.EXTRAS["train"]


def violations(path: str, source: str) -> list[str]:
    """What is wrong with the file `path` (relative to the repository, "dnc/...") of this source text."""
    parts = pathlib.PurePosixPath(path).with_suffix("").parts
    unit = parts[1]
    tree = ast.parse(source)
    imported = [module for node in ast.walk(tree) for module in _imports(node, parts)]
    found = [problem for node in ast.walk(tree) for problem in _node_problems(node)]
    found += [problem for module in imported for problem in _import_problems(unit, module)]
    if unit not in ARRAYS_ONLY and path.startswith(tuple(f"dnc/{part}" for part in CORE)):
        heavy = sorted({module.split(".")[0] for module in imported} & ONLY_FOR_TRAINING)
        found += [f"imports {library}: measuring needs no training library" for library in heavy]
    if "process_index" in _names(tree) and path != "dnc/distributed.py":
        found.append("uses process_index: only dnc/distributed.py asks which process this is")
    if (lines := len(source.splitlines())) > MAX_LINES:
        found.append(f"has {lines} lines, more than {MAX_LINES}: split it by ideas")
    if parts[-1] in {"utils", "helpers", "misc"}:
        found.append(f"is called {parts[-1]}: name the idea")
    if unit not in MAY_IMPORT and unit != TOP:
        found.append(f"belongs to the unknown unit {unit!r}: give it a place in MAY_IMPORT")
    return [f"{path} {problem}" for problem in found]


def _imports(node: ast.AST, parts: tuple[str, ...]) -> list[str]:
    """Full names of the modules (or of what is taken from them) that one statement imports, lazily or not."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        package = ".".join(parts[: len(parts) - node.level]) if node.level else ""
        base = ".".join(part for part in (package, node.module) if part)
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"} and node.args:
        argument = node.args[0]
        return [argument.value] if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else []
    return []


def _import_problems(unit: str, module: str) -> list[str]:
    top, *rest = module.split(".")
    if top in PICKLERS:
        return [f"imports {module}: nothing is pickled"]
    if top in {"experiments", "colabs", "configs", "tests"}:
        return [f"imports {module}: {top} imports the package, not the reverse"]
    if top in NOT_FOR_ARRAYS and unit in ARRAYS_ONLY:
        return [f"imports {module}: {unit} takes arrays and gives arrays"]
    if top != "dnc":
        return []
    target = rest[0] if rest else "__init__"
    if target == TOP:
        return [f"imports {module}: nothing imports a command"]
    if unit == TOP or target == unit or target in MAY_IMPORT.get(unit, set()):
        return []
    return [f"imports {module}: {unit} may import {sorted(MAY_IMPORT.get(unit, set()))} of the package"]


def _node_problems(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Attribute) and node.attr in {"read_pickle", "to_pickle"}:
        return [f"calls {node.attr}: nothing is pickled"]
    if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
        is_false = isinstance(node.value, ast.Constant) and node.value.value is False
        return [] if is_false else ["allows pickle: arrays are read with allow_pickle=False"]
    return []


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def _names(tree: ast.AST) -> set[str]:
    """Every identifier: names, attributes and imported names."""
    return {
        name
        for node in ast.walk(tree)
        for name in (getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None))
        if isinstance(name, str)
    }


FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "dnc").rglob("*.py"))


@pytest.mark.parametrize("path", FILES)
def test_file_keeps_to_the_architecture(path):
    assert violations(path, (ROOT / path).read_text(encoding="utf-8")) == []


def test_the_allowed_imports_have_no_cycle():
    order, remaining = [], dict(MAY_IMPORT)
    while ready := [unit for unit, allowed in remaining.items() if allowed <= set(order)]:
        order += ready
        remaining = {unit: allowed for unit, allowed in remaining.items() if unit not in ready}
    assert not remaining


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("dnc/geometry/pairs.py", "from dnc.certificates import bounds", "imports dnc.certificates.bounds"),
        ("dnc/geometry/pairs.py", "import dnc.few_shot.measured as m", "imports dnc.few_shot.measured"),
        ("dnc/geometry/pairs.py", "from dnc import probes", "imports dnc.probes"),
        ("dnc/geometry/pairs.py", "import dnc", "imports dnc:"),
        ("dnc/geometry/pairs.py", "from ..probes import knn", "imports dnc.probes.knn"),
        ("dnc/geometry/__init__.py", "from ..probes import knn", "imports dnc.probes.knn"),
        ("dnc/geometry/pairs.py", "def f():\n    import dnc.training.loop", "imports dnc.training.loop"),
        ("dnc/geometry/pairs.py", "importlib.import_module('dnc.report')", "imports dnc.report"),
        ("dnc/geometry/pairs.py", "from flax import nnx", "takes arrays and gives arrays"),
        ("dnc/certificates/bounds.py", "from absl import logging", "takes arrays and gives arrays"),
        ("dnc/types.py", "from dnc.geometry import pairs", "imports dnc.geometry.pairs"),
        ("dnc/certificates/bounds.py", "from dnc.few_shot import draws", "imports dnc.few_shot.draws"),
        ("dnc/models/resnet.py", "from dnc.objectives import base", "imports dnc.objectives.base"),
        ("dnc/objectives/simclr.py", "from dnc.training import step", "imports dnc.training.step"),
        ("dnc/report/html.py", "from dnc.geometry import pairs", "imports dnc.geometry.pairs"),
        ("dnc/analysis/task.py", "from dnc.training import loop", "imports dnc.training.loop"),
        ("dnc/training/loop.py", "from dnc.commands import train", "nothing imports a command"),
        ("dnc/__main__.py", "import dnc.commands.embed", "nothing imports a command"),
        ("dnc/training/loop.py", "from experiments import figure1", "imports the package, not the reverse"),
        ("dnc/training/loop.py", "import configs.quickstart", "imports the package, not the reverse"),
        ("dnc/training/loop.py", "import jax\nlead = jax.process_index() == 0", "uses process_index"),
        ("dnc/training/loop.py", "from jax import process_index as p", "uses process_index"),
        ("dnc/training/checkpoint.py", "import pickle", "nothing is pickled"),
        ("dnc/training/checkpoint.py", "from cloudpickle import dumps", "nothing is pickled"),
        ("dnc/data/sources/arrays.py", "np.load(path, allow_pickle=True)", "allows pickle"),
        ("dnc/data/sources.py", "np.load(path, allow_pickle=flag)", "allows pickle"),
        ("dnc/data/sources.py", "pd.read_pickle(path)", "nothing is pickled"),
        ("dnc/data/sources.py", "x = 1\n" * 351, "has 351 lines"),
        ("dnc/data/utils.py", "", "name the idea"),
        ("dnc/features/files.py", "import grain", "measuring needs no training library"),
        ("dnc/analysis/task.py", "from flax import nnx", "measuring needs no training library"),
        ("dnc/plots/bars.py", "", "unknown unit 'plots'"),
    ],
)
def test_checker_sees(path, source, message):
    (problem,) = violations(path, source)
    assert problem.startswith(path)
    assert message in problem


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("dnc/geometry/pairs.py", "from dnc.geometry.moments import class_means\nfrom dnc.types import Array"),
        ("dnc/geometry/__init__.py", "from .pairs import pair_geometry"),
        ("dnc/certificates/bounds.py", "import jax\nimport optax\nfrom dnc.geometry import PairGeometry"),
        ("dnc/training/loop.py", "from dnc import analysis\nfrom dnc.objectives import OBJECTIVES"),
        ("dnc/commands/train.py", "from absl import app\nfrom dnc.training import loop"),
        ("dnc/distributed.py", "import jax\nis_lead = jax.process_index() == 0"),
        ("dnc/data/sources.py", "np.load(path, allow_pickle=False)  # never process_index\nx = 1\n" + "\n" * 300),
    ],
)
def test_checker_lets_pass(path, source):
    assert violations(path, source) == []


def test_importing_the_package_loads_nothing_heavy():
    heavy = ["flax", "grain", "jax", "matplotlib", "numpy", "orbax", "pandas", "tensorflow_datasets"]
    code = f"import sys, dnc; print(*[name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert loaded.stdout.split() == []
