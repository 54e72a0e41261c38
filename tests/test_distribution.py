"""A light core: what it may import, what the extras bring, and the one line where one is missing."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import dnc
from dnc import distribution

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def listed(extra: str) -> set[str]:
    """Requirements of an extra, those of the extras it includes too."""
    prefix = f"{distribution.NAME}["
    included = {name for line in EXTRAS[extra] if line.startswith(prefix) for name in line[len(prefix) : -1].split(",")}
    own = {line for line in EXTRAS[extra] if not line.startswith(prefix)}
    return own.union(*map(listed, included))


def test_requirements_are_the_core_and_its_extras():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    requirements = [line for line in lines if not line.startswith("#")]
    assert set(requirements) == {*PROJECT["dependencies"], *listed("parquet"), *listed("train")}
    assert requirements == sorted(requirements, key=str.lower)


def test_each_extra_names_the_modules_that_its_packages_bring():
    brought_by = metadata.packages_distributions()
    for extra, modules in distribution.EXTRAS.items():
        packages = {line.split(">=")[0].replace("_", "-").lower() for line in listed(extra)}
        for module in modules:
            names = {name.replace("_", "-").lower() for name in brought_by[module]}
            assert names & packages, (extra, module)


def test_the_version_is_said_once():
    assert dnc.__version__ == distribution.VERSION
    assert PROJECT["name"] == distribution.NAME


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
{code}
"""


def without(extras: tuple[str, ...], code: str) -> subprocess.CompletedProcess:
    """Runs code where the modules of these extras are missing."""
    modules = set().union(*(distribution.EXTRAS[extra] for extra in extras))
    source = WITHOUT.format(modules=modules, code=code)
    return subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True)


ALL = tuple(distribution.EXTRAS)


def test_the_core_imports_without_any_extra():
    code = """
import dnc
import dnc.commands.analyze, dnc.report.comparison, dnc.report.plan
for name in set(dnc.__all__) - {"Pretrained", "load_pretrained"}:
    getattr(dnc, name)
"""
    done = without(ALL, code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("extras", "argv", "named"),
    [
        (ALL, ["train", "--config=configs/quickstart.py", "--workdir=x"], "train"),
        (ALL, ["embed", "--pretrained=x", "--images=x", "--output=x"], "pretrained"),
    ],
)
def test_a_command_without_its_extra_ends_in_one_line(extras, argv, named):
    code = f"import sys; sys.argv = ['dnc', *{argv}]\nfrom dnc.__main__ import main\nmain()"
    done = without(extras, code)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(f"is not installed: in the clone of directional-neural-collapse, pip install '.[{named}]'")


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("dnc.load_pretrained", "pretrained"),
        ("import dnc.models", "pretrained"),
        ("import dnc.objectives", "train"),
        ("from dnc.data.sources.by_name import open_images; open_images('tfds:cifar10:test')", "train"),
    ],
)
def test_a_missing_extra_is_named(code, named):
    done = without(ALL, f"import dnc\n{code}")
    assert "MissingExtraError: " in done.stderr
    assert f"pip install '.[{named}]'" in done.stderr.splitlines()[-1]


def test_parquet_is_an_extra(tmp_path):
    (path := tmp_path / "features.parquet").write_bytes(b"PAR1")
    code = f"import pathlib; from dnc.features.files import read_features; read_features(pathlib.Path({str(path)!r}))"
    assert "pip install '.[parquet]'" in without(ALL, code).stderr.splitlines()[-1]


def test_other_missing_modules_are_not_blamed_on_an_extra():
    with pytest.raises(ModuleNotFoundError) as raised, distribution.extra("parquet"):
        import no_such_module  # pyright: ignore[reportMissingImports] # noqa: F401
    assert not isinstance(raised.value, distribution.MissingExtraError)
