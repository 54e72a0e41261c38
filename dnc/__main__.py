"""`dnc COMMAND ...`, the same as `python -m dnc COMMAND ...`: picks the command, and where JAX keeps what it compiles.

Compiled programs are kept between runs, in `dnc/compiled` in the user's cache folder ($XDG_CACHE_HOME, or ~/.cache),
which may be deleted at any time. DNC_CACHE names another folder, and DNC_CACHE=off keeps nothing. JAX's own variables,
such as JAX_COMPILATION_CACHE_DIR, win.
"""

import contextlib
import importlib
import os
import pathlib
import signal
import sys
from types import ModuleType

COMMANDS = {
    "train": "pretrain an encoder, measuring collapse on the way",
    "embed": "features of images from a run or a published encoder",
    "analyze": "a report on features that any framework produced",
    "plan": "how many labels a target needs, from a pilot",
}
NEEDS = {"train": "train", "embed": "pretrained"}  # extras
INTERRUPTED = 128 + signal.SIGINT  # exit code, as a shell reports Ctrl-C


def main() -> None:
    command = sys.argv[1] if len(sys.argv) > 1 else None
    if command in (None, "help", "--help", "-h"):
        rows = [f"  {name:<9}{purpose}" for name, purpose in COMMANDS.items()]
        print(
            "\n".join(["usage: dnc COMMAND [--flag=value ...]", "", *rows, "", "dnc COMMAND --help lists its flags."])
        )
        sys.exit(0 if command else 2)
    from dnc import distribution, errors

    if command not in COMMANDS:
        sys.exit(f"error: {errors.unknown('command', command, COMMANDS)}")
    os.environ["MPLBACKEND"] = "agg"  # figures become files, whatever the shell would show them with
    if sys.path[0] in ("", os.getcwd()):  # of `python -m`: modules of any folder must not stand in for installed ones
        sys.path.append(sys.path.pop(0))
    del sys.argv[1]
    sys.argv[0] = f"dnc {command}"
    keep_compiled_programs()
    try:
        with distribution.extra(NEEDS[command]) if command in NEEDS else contextlib.nullcontext():
            module = importlib.import_module(f"dnc.commands.{command}")
            _explain(command, module)
            module.main()
    except distribution.MissingExtraError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # once more ends the process, whatever it still has to close
        print("\ninterrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _explain(command: str, module: ModuleType) -> None:
    """With --help, prints what the command does and its own flags, and ends; --helpfull lists those of others too."""
    from absl import flags

    usage = f"usage: dnc {command} [--flag=value ...]"
    sys.modules["__main__"].__doc__ = f"{usage}\n\ndnc {command} --help lists its flags."  # of usage errors
    if {"--help", "-help", "-h", "--helpshort"} & {*sys.argv[1:]}:
        print(f"{usage}\n\n{(module.__doc__ or '').strip()}\n\n{flags.FLAGS.module_help(module)}")
        sys.exit(0)


def keep_compiled_programs() -> None:
    """Turns JAX's compilation cache on, before JAX is imported, where its folder is wanted and can be written."""
    folder = os.environ.get("DNC_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "dnc", "compiled"
    )
    if folder == "off" or {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"} & os.environ.keys():
        return
    try:
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK | os.X_OK):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.abspath(folder)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


if __name__ == "__main__":
    main()
