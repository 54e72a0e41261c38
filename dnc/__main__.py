"""`dnc COMMAND ...`, the same as `python -m dnc COMMAND ...`: picks the command, nothing else."""

import importlib
import os
import sys

COMMANDS = {
    "train": "pretrain an encoder, measuring collapse on the way",
    "embed": "features of images from a run or a published encoder",
    "analyze": "a report on features that any framework produced",
}


def main() -> None:
    command = sys.argv[1] if len(sys.argv) > 1 else None
    if command in (None, "help", "--help", "-h"):
        rows = [f"  {name:<9}{purpose}" for name, purpose in COMMANDS.items()]
        print(
            "\n".join(["usage: dnc COMMAND [--flag=value ...]", "", *rows, "", "dnc COMMAND --help lists its flags."])
        )
        sys.exit(0 if command else 2)
    from dnc import errors

    if command not in COMMANDS:
        sys.exit(f"error: {errors.unknown('command', command, COMMANDS)}")
    os.environ["MPLBACKEND"] = "agg"  # figures become files, whatever the shell would show them with
    if sys.path[0] in ("", os.getcwd()):  # of `python -m`: modules of any folder must not stand in for installed ones
        sys.path.append(sys.path.pop(0))
    del sys.argv[1]
    sys.argv[0] = f"dnc {command}"
    importlib.import_module(f"dnc.commands.{command}").main()


if __name__ == "__main__":
    main()
