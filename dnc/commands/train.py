"""Pretrain an encoder, measuring collapse on the way, and write a report.

dnc train --config=configs/quickstart.py --workdir=runs/quickstart [--config.train.batch_size=256]

Flags change what the file says, add an option of a method (--config.objective.decoupled=True), choose another method
(--config.objective.name=vicreg, which leaves out the file's options that VICReg does not take) or measure a duration in
another unit (--config.train.duration.steps=1000 where the file gives epochs).

The same command goes on with an interrupted run. Exit codes: 0 the run is complete; 75 it was stopped by SIGTERM,
Ctrl-C or --stop_after and saved, start it again; 130 a second Ctrl-C stopped it at once; 74 files can no longer be
written (a full disk), the last checkpoint is whole; 1 anything else, said in one line where it is a matter of the
config, the workdir or the data.

The config file is code and is executed; so are the classes of your own that it names, "package.module:Class", found
beside it or where PYTHONPATH points.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from absl import app, flags, logging
from etils import epath
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from dnc.training import own_code


class _ConfigFile(ConfigFileFlagParser):
    """Executes the config file, and keeps what it says before flags change it."""

    def parse(self, path: str) -> ConfigDict:
        from dnc.training.overrides import entries

        if not os.path.isfile(path.partition(":")[0]):
            sys.exit(f"error: --config={path} does not exist: give a Python file that defines get_config()")
        try:
            config = super().parse(path)
        except AttributeError as error:
            if error.name == "get_config":
                sys.exit(f"error: --config={path} does not define get_config()")
            raise RuntimeError(f"--config={path} failed") from error
        if not isinstance(config, ConfigDict):
            sys.exit(f"error: --config={path}: get_config() returns {type(config).__name__}, not a ConfigDict")
        self.entries: dict[str, Any] = dict(entries(config))
        return config.unlock()


_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "File with get_config().", lock_config=False, accept_new_attributes=True
)
_FILE = flags.FLAGS["config"].parser = _ConfigFile("config", lock_config=False)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, measurements and the report.")
_FSDP = flags.DEFINE_integer("fsdp", 1, "Devices over which large parameters are split; divides their number.")
_MULTIHOST = flags.DEFINE_bool("multihost", False, "Join the other processes of this run (automatic on TPU pods).")
_STOP_AFTER = flags.DEFINE_float("stop_after", None, "Minutes until the run saves itself and exits with code 75.")
_PROFILE = flags.DEFINE_string("profile", None, "START:STOP, the steps to trace into workdir/profile.")
_COMPILE_FOR = flags.DEFINE_string(
    "compile_for", None, "Compile for these TPUs and report memory and cost, without training: v5e:4x4, v5p:4x4x4, ..."
)
flags.mark_flag_as_required("config")


def main() -> None:
    app.run(_run, flags_parser=_parsed)


def _run(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.FATAL)  # checkpointing reports every file, and its errors reach us as exceptions
    own_code.find_beside(config_flags.get_config_filename(flags.FLAGS["config"]))
    _settle_config()
    if _COMPILE_FOR.value:
        from dnc.training import ahead_of_time

        sys.exit(ahead_of_time.report(_CONFIG.value, _COMPILE_FOR.value, _FSDP.value))
    if not _WORKDIR.value:
        raise app.UsageError("--workdir is missing: the folder for checkpoints, measurements and the report")
    sys.exit(_train(epath.Path(_WORKDIR.value), _steps(_PROFILE.value)))


def _settle_config() -> None:
    from dnc.training.overrides import settle

    try:
        told = settle(_CONFIG.value, _FILE.entries, config_flags.get_override_values(flags.FLAGS["config"]).keys())
    except ValueError as error:
        sys.exit(f"error: {error}")
    for line in told:
        print(line)


def _train(workdir: epath.Path, profile: tuple[int, int] | None) -> int | str:
    """The exit code, or the message of an error that the user can mend."""
    from dnc import distributed, files
    from dnc.training import interruption, loop
    from dnc.training.window import NonFiniteLossError

    train = _CONFIG.value.train
    try:
        distributed.initialize(_MULTIHOST.value, train.batch_size // max(train.accumulate, 1), _FSDP.value)
        mesh = distributed.make_mesh(_FSDP.value)
        plan = loop.prepare(_CONFIG.value, workdir, mesh)
    except (OSError, TypeError, ValueError) as error:
        return f"error: {error}"
    try:
        complete = loop.run(plan, workdir, mesh, stop_after=_STOP_AFTER.value, profile=profile)
    except NonFiniteLossError as error:
        return f"error: {error}"
    except Exception as error:
        if files.is_disk_error(error):
            message, code = (
                f"{error}\nThe last checkpoint is whole: make room, then start again",
                files.CANNOT_WRITE,
            )
        elif interruption.is_lost_peer(error):
            message, code = "another process of this run has ended, see its log: start all of them again", 1
        elif isinstance(error, OSError):
            message, code = str(error), 1
        else:
            raise
        print(f"error: {message}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(code)  # a regular exit waits a minute for a process that is gone, and failed saves complain
    return 0 if complete else interruption.INTERRUPTED


def _parsed(argv: Sequence[str]) -> list[str]:
    """The flags, read; ml_collections has no error of its own for an override of what is not there."""
    try:
        return app.parse_flags_with_usage(list(argv))
    except (AttributeError, KeyError) as error:
        entry = str(error.args[0]).replace("\\n", ". ").replace("\\", "").replace("'", "").strip('"')  # quoted twice
        sys.exit(f"error: --config has no entry {entry}: a flag sets what is in the file, or an option of a method")


def _steps(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    start, _, stop = text.partition(":")
    if not (start.isdigit() and stop.isdigit() and int(start) < int(stop)):
        raise app.UsageError(f"--profile={text}: give START:STOP, two steps, as in --profile=20:30")
    return int(start), int(stop)
