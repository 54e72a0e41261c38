"""What happens to a run: killed, damaged, out of disk, out of time, started twice. Nothing may be lost.

python -m experiments.reliability.chaos --output=experiments/results/reliability      # about half an hour, 2 cores

One run goes undisturbed. Every other suffers one fault and is started again until it is complete; it has survived if
the digest of its last state, its metrics, all its measurements and its report's page are, bit for bit, those of the
undisturbed run. Where a run must refuse instead, it has survived if it gives the reason in one line and damages
nothing.

Faults survived according to chaos.json in the output folder are not tried again: delete it to start over.
"""

import functools
import json
import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from absl import flags

from dnc.files import CANNOT_WRITE
from dnc.training.interruption import INTERRUPTED
from experiments import common

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_KILLS = flags.DEFINE_integer(
    "kills", 20, "Runs to kill: half at random instants, a quarter saving, a quarter measuring."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the random instants.")

CONFIG = pathlib.Path(__file__).with_name("config.py")
LATE = 29  # of the 31 lines of a run's metrics: a run faster than the undisturbed one is killed here
FSIZE = 60_000  # bytes: no file of a checkpoint's arrays fits
DNC = [sys.executable, "-m", "dnc"]
Suffer: TypeAlias = Callable[
    [pathlib.Path, random.Random, float], None
]  # workdir, random instants, an ordinary run's seconds


class Fault(Exception):
    """A run did not survive; the message says how."""


def _train_command(workdir: pathlib.Path) -> list[str]:
    return [*DNC, "train", f"--config={CONFIG}", f"--workdir={workdir}"]


def train(workdir: pathlib.Path, *arguments: str, limit: int | None = None, ordinary: bool = False) -> subprocess.Popen:
    """A run as a process of its own, its output in a file beside the workdir."""
    workdir.parent.mkdir(exist_ok=True)
    command = [*_train_command(workdir), *arguments]
    if ordinary and os.geteuid() == 0:  # nothing is read-only to root
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(workdir.parents[1] / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }

    def constrain() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with (workdir.parent / "log").open("a") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, preexec_fn=constrain)


def finish(workdir: pathlib.Path, *arguments: str, expected: int = 0, limit: int | None = None) -> str:
    """Runs to the end; raises Fault unless it ends with the expected exit code. Returns the last line of its output."""
    return ended(workdir, train(workdir, *arguments, limit=limit).wait(), expected)


def ended(workdir: pathlib.Path, code: int, expected: int) -> str:
    if code != expected:
        raise Fault(f"exit code {code} instead of {expected}: {last_line(workdir)}")
    return last_line(workdir)


def last_line(workdir: pathlib.Path) -> str:
    """The last line of the run's output."""
    return ((workdir.parent / "log").read_text().strip().splitlines() or [""])[-1]


def outcome(workdir: pathlib.Path) -> dict[str, bytes]:
    """What must not depend on what happened on the way."""
    last = newest_checkpoint(workdir)
    digest = json.loads((last / "record" / "metadata").read_text())["digest"]
    files = [workdir / "metrics.jsonl", workdir / "report" / "index.html", *(workdir / "measurements").iterdir()]
    state = {"state": f"{last.name}: {digest}".encode()}
    return state | {str(path.relative_to(workdir)): path.read_bytes() for path in files}


def newest_checkpoint(workdir: pathlib.Path) -> pathlib.Path:
    folders = (path for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    return max(folders, key=lambda path: int(path.name))


def check(workdir: pathlib.Path, expected: dict[str, bytes]) -> None:
    actual = outcome(workdir)
    different = sorted(name for name in actual.keys() | expected.keys() if actual.get(name) != expected.get(name))
    if different:
        raise Fault(f"differs from the undisturbed run: {', '.join(different)}")


def lines(workdir: pathlib.Path) -> int:
    """Complete lines of the metrics."""
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def kill_when(workdir: pathlib.Path, due: Callable[[], bool], number: int = signal.SIGKILL) -> int:
    """Starts a run, sends the signal once `due` is true, waits for the end; raises Fault if the run ended before."""
    process = train(workdir)
    while not due():
        if process.poll() is not None:
            raise Fault("the run ended before the fault")
        time.sleep(0.002)
    process.send_signal(number)
    return process.wait()


def saving(workdir: pathlib.Path) -> bool:
    folder = workdir / "checkpoints"
    return folder.exists() and any("tmp" in path.name for path in folder.iterdir())


def measuring(workdir: pathlib.Path, step: int) -> bool:
    """The step's metrics are written, its measurement is not."""
    path = workdir / "metrics.jsonl"
    reached = path.exists() and f'{{"step": {step},' in path.read_text()
    return reached and not (workdir / "measurements" / f"step_{step:08d}.json").exists()


def killed_at_random(workdir: pathlib.Path, rng: random.Random, duration: float) -> None:
    instant = time.monotonic() + rng.uniform(0.05, 0.95) * duration
    kill_when(workdir, lambda: time.monotonic() >= instant or lines(workdir) >= LATE)
    finish(workdir)


def killed_while_saving(workdir: pathlib.Path, rng: random.Random, duration: float) -> None:
    after = rng.randrange(1, 12)
    kill_when(workdir, lambda: lines(workdir) >= after and saving(workdir))
    finish(workdir)


def killed_while_measuring(workdir: pathlib.Path, rng: random.Random, duration: float) -> None:
    step = rng.choice([1, 2, 5, 10, 20])
    kill_when(workdir, lambda: measuring(workdir, step))
    finish(workdir)


def damaged(damage: Callable[[pathlib.Path], None], workdir: pathlib.Path, rng: random.Random, duration: float) -> None:
    """Killed half way, and the largest file of the newest checkpoint is damaged."""
    kill_when(workdir, lambda: lines(workdir) >= 8)
    files = (path for path in newest_checkpoint(workdir).rglob("*") if path.is_file())
    damage(max(files, key=lambda path: path.stat().st_size))
    finish(workdir)
    if not (workdir / "damaged_checkpoints").exists():
        raise Fault("the damaged checkpoint was not noticed")


def truncate(path: pathlib.Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def full_disk(workdir: pathlib.Path, rng: random.Random, duration: float) -> None:
    kill_when(workdir, lambda: lines(workdir) >= 6)
    message = finish(workdir, expected=CANNOT_WRITE, limit=FSIZE)
    if "make room" not in message:
        raise Fault(f"the last line was {message!r}")
    finish(workdir)


def terminated(workdir: pathlib.Path, rng: random.Random, duration: float) -> None:
    ended(workdir, kill_when(workdir, lambda: lines(workdir) >= 7, signal.SIGTERM), INTERRUPTED)
    finish(workdir)


def out_of_time(workdir: pathlib.Path, rng: random.Random, duration: float) -> None:
    finish(workdir, "--stop_after=0.001", expected=INTERRUPTED)  # after the first step, however fast the machine
    finish(workdir)


def started_twice(workdir: pathlib.Path, rng: random.Random, duration: float) -> None:
    first = train(workdir)
    while not (workdir / ".lock").exists() and first.poll() is None:
        time.sleep(0.01)
    second = subprocess.run(_train_command(workdir), capture_output=True, text=True)
    if second.returncode != 1 or "is in use by another process" not in second.stderr:
        raise Fault(f"the second run was not refused: {second.stderr.strip()[-200:]}")
    if first.wait():
        raise Fault("the first run was disturbed")


def diverges(workdir: pathlib.Path, rng: random.Random, duration: float) -> None:
    """A step whose loss is not finite: the run names it, and the checkpoints before stay readable."""
    message = finish(workdir, "--config.schedule.peak=1e30", expected=1)
    if not (named := re.search(r"last good checkpoint is of step (\d+)", message)):
        raise Fault(f"no good checkpoint is named: {message}")
    good, output = named[1], workdir.with_suffix(".npz")
    embed = [*DNC, "embed", f"--workdir={workdir}", f"--output={output}", f"--step={good}"]
    if subprocess.run(embed, capture_output=True).returncode:
        raise Fault(f"the checkpoint of step {good} cannot be read")


def read_only(workdir: pathlib.Path, rng: random.Random, duration: float) -> None:
    workdir.mkdir(parents=True)
    workdir.chmod(0o555)
    code = train(workdir, ordinary=True).wait()
    message, is_refused = last_line(workdir), code in (1, CANNOT_WRITE)
    if not is_refused or "error" not in message or "ermission" not in message or list(workdir.iterdir()):
        raise Fault(f"exit code {code}: {message}")


def faults(kills: int) -> list[tuple[str, bool, Suffer]]:
    """Name, whether the run must end as the undisturbed one does, and what happens to it."""
    quarter = kills // 4
    kinds = [(killed_at_random, kills - 2 * quarter), (killed_while_saving, quarter), (killed_while_measuring, quarter)]
    return [
        *((kind.__name__.replace("_", " "), True, kind) for kind, count in kinds for _ in range(count)),
        ("newest checkpoint: file truncated", True, functools.partial(damaged, truncate)),
        ("newest checkpoint: file bit flipped", True, functools.partial(damaged, flip_a_bit)),
        ("newest checkpoint: file deleted", True, functools.partial(damaged, pathlib.Path.unlink)),
        ("disk full", True, full_disk),
        ("SIGTERM", True, terminated),
        ("time limit", True, out_of_time),
        ("second run in the same workdir", True, started_twice),
        ("loss not finite", False, diverges),
        ("workdir read-only", False, read_only),
    ]


def main() -> None:
    planned = faults(_KILLS.value)
    counts = Counter(name for name, _, _ in planned)
    survived = _survived(counts)
    table = {name: survived.get(name) or {"tried": 0, "survived": 0, "lost": []} for name in counts}
    record = {"date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "seed": _SEED.value, "faults": table}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        finish(warm_up := pathlib.Path(root, "warm_up", "run"))  # compiles; what follows only trains
        started = time.monotonic()
        finish(undisturbed := pathlib.Path(root, "undisturbed", "run"))
        duration, expected = time.monotonic() - started, outcome(undisturbed)
        check(warm_up, expected)
        for index, (name, completes, suffer) in enumerate(planned):
            if name in survived:
                continue
            workdir, row = pathlib.Path(root, str(index), "run"), table[name]
            row["tried"] += 1
            try:
                suffer(workdir, random.Random(f"{_SEED.value} {index}"), duration)
                if completes:
                    check(workdir, expected)
                row["survived"] += 1
                print(f"{name}: survived", flush=True)
            except Fault as fault:
                row["lost"].append(str(fault))
                print(f"{name}: LOST, {fault}", flush=True)
            common.save(_OUTPUT.value, "chaos", record)
    rows = ([name, str(row["tried"]), str(row["survived"]), str(len(row["lost"]))] for name, row in table.items())
    common.save(_OUTPUT.value, "chaos", record, common.table(["fault", "tried", "survived", "lost"], rows))
    if any(row["lost"] for row in table.values()):
        sys.exit("something was lost")


def _survived(planned: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """The rows of an earlier table of the same seed that need not be tried again."""
    record = common.saved(_OUTPUT.value, "chaos", {})
    rows = record["faults"] if record.get("seed") == _SEED.value else {}
    return {name: row for name, row in rows.items() if row["survived"] == planned.get(name)}


if __name__ == "__main__":
    common.main(main)
