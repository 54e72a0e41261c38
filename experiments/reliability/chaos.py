"""What happens to a run: killed, damaged, out of disk, out of time, started twice. Nothing may be lost.

python -m experiments.reliability.chaos --output=experiments/results/reliability      # about half an hour, 2 cores

One run goes undisturbed. Every other suffers one fault and is started again until it is complete; it has survived if
the digest of its last state, its metrics, all its measurements and its report's page are, bit for bit, those of the
undisturbed run. Where a run must refuse instead, it has survived if it says why in one line and damages nothing.

Faults that the table in the output folder says were survived are not tried again: delete it to begin anew.
"""

import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import app, flags

from dnc.training.interruption import CANNOT_WRITE, INTERRUPTED

_OUTPUT = flags.DEFINE_string("output", None, "Folder for chaos.json and chaos.md.", required=True)
_KILLS = flags.DEFINE_integer(
    "kills", 20, "Runs to kill: half at random instants, a quarter saving, a quarter measuring."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the random instants.")

CONFIG = pathlib.Path(__file__).with_name("config.py")
LATE = 22  # of the 24 lines of a run's metrics: one that is faster than the undisturbed was is killed here
FSIZE = 60_000  # bytes: no file of a checkpoint's arrays fits


class Fault(Exception):
    """A run did not survive; the message says how."""


def train(workdir: pathlib.Path, *arguments: str, limit: int | None = None, ordinary: bool = False) -> subprocess.Popen:
    """A run as a process of its own, its output in a file beside the workdir."""
    workdir.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "dnc", "train", f"--config={CONFIG}", f"--workdir={workdir}", *arguments]
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


def finish(workdir: pathlib.Path, expected: int = 0, limit: int | None = None) -> str:
    """Runs to the end; raises Fault unless it ends with the expected exit code. Returns what it said last."""
    code = train(workdir, limit=limit).wait()
    if code != expected:
        raise Fault(f"exit code {code} instead of {expected}: {last_line(workdir)}")
    return last_line(workdir)


def last_line(workdir: pathlib.Path) -> str:
    """What the run said last."""
    return ((workdir.parent / "log").read_text().strip().splitlines() or [""])[-1]


def outcome(workdir: pathlib.Path) -> dict[str, bytes]:
    """What must not depend on what happened on the way."""
    last = max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    record = json.loads((workdir / "checkpoints" / str(last) / "record" / "metadata").read_text())
    files = [
        workdir / "metrics.jsonl",
        workdir / "report" / "index.html",
        *sorted((workdir / "measurements").iterdir()),
    ]
    digest = f"{last}: {record['digest']}".encode()
    return {"state": digest} | {str(path.relative_to(workdir)): path.read_bytes() for path in files}


def check(workdir: pathlib.Path, expected: dict[str, bytes]) -> None:
    found = outcome(workdir)
    different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if different:
        raise Fault(f"other than undisturbed: {', '.join(different)}")


def lines(workdir: pathlib.Path) -> int:
    """Complete lines of the metrics."""
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def kill_when(workdir: pathlib.Path, due: Callable[[], bool], number: int = signal.SIGKILL) -> int:
    """Starts a run, sends the signal as soon as `due` says so, waits for the end; raises Fault if that was earlier."""
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


def damaged(workdir: pathlib.Path, damage: Callable[[pathlib.Path], None]) -> None:
    """Killed half way, and the largest file of the newest checkpoint is damaged."""
    kill_when(workdir, lambda: lines(workdir) >= 8)
    folder = max(
        (path for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()), key=lambda p: int(p.name)
    )
    damage(max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size))
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
    said = finish(workdir, expected=CANNOT_WRITE, limit=FSIZE)
    if "make room" not in said:
        raise Fault(f"said {said!r}")
    finish(workdir)


def terminated(workdir: pathlib.Path, rng: random.Random, duration: float) -> None:
    code = kill_when(workdir, lambda: lines(workdir) >= 7, signal.SIGTERM)
    if code != INTERRUPTED:
        raise Fault(f"exit code {code} instead of {INTERRUPTED}")
    finish(workdir)


def out_of_time(workdir: pathlib.Path, rng: random.Random, duration: float) -> None:
    code = train(workdir, "--stop_after=0.001").wait()  # after the first step, however fast the machine
    if code != INTERRUPTED:
        raise Fault(f"exit code {code} instead of {INTERRUPTED}")
    finish(workdir)


def started_twice(workdir: pathlib.Path, rng: random.Random, duration: float) -> None:
    first = train(workdir)
    while not (workdir / ".lock").exists() and first.poll() is None:
        time.sleep(0.01)
    second = subprocess.run(
        [sys.executable, "-m", "dnc", "train", f"--config={CONFIG}", f"--workdir={workdir}"],
        capture_output=True,
        text=True,
    )
    if second.returncode != 1 or "is in use by another process" not in second.stderr:
        raise Fault(f"the second run was not refused: {second.stderr.strip()[-200:]}")
    if first.wait():
        raise Fault("the first run was disturbed")


def diverges(workdir: pathlib.Path, rng: random.Random, duration: float) -> None:
    """A step whose loss is not finite: the run names it, and the checkpoints before stay readable."""
    code = train(workdir, "--config.schedule.peak=1e30").wait()
    said = last_line(workdir)
    if code != 1 or "last good checkpoint is of step" not in said:
        raise Fault(f"exit code {code}: {said}")
    good = said.split("last good checkpoint is of step ")[1].split(".")[0]
    output = workdir.with_suffix(".npz")
    embed = [sys.executable, "-m", "dnc", "embed", f"--workdir={workdir}", f"--output={output}", f"--step={good}"]
    if subprocess.run(embed, capture_output=True).returncode:
        raise Fault(f"the checkpoint of step {good} cannot be read")


def read_only(workdir: pathlib.Path, rng: random.Random, duration: float) -> None:
    workdir.mkdir(parents=True)
    workdir.chmod(0o555)
    code = train(workdir, ordinary=True).wait()
    said = last_line(workdir)
    if code not in (1, CANNOT_WRITE) or "error" not in said or "ermission" not in said or list(workdir.iterdir()):
        raise Fault(f"exit code {code}: {said}")


def faults(kills: int) -> list[tuple[str, bool, Callable[[pathlib.Path, random.Random, float], None]]]:
    """Name, whether the run must end as the undisturbed one does, and what happens to it."""
    quarter = kills // 4
    kinds = [(killed_at_random, kills - 2 * quarter), (killed_while_saving, quarter), (killed_while_measuring, quarter)]
    return [
        *((kind.__name__.replace("_", " "), True, kind) for kind, count in kinds for _ in range(count)),
        *(
            (
                f"newest checkpoint: file {name}",
                True,
                lambda workdir, rng, duration, damage=damage: damaged(workdir, damage),
            )
            for name, damage in (("truncated", truncate), ("bit flipped", flip_a_bit), ("deleted", pathlib.Path.unlink))
        ),
        ("disk full", True, full_disk),
        ("SIGTERM", True, terminated),
        ("time limit", True, out_of_time),
        ("second run in the same workdir", True, started_twice),
        ("loss not finite", False, diverges),
        ("workdir read-only", False, read_only),
    ]


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    planned = faults(_KILLS.value)
    table = _survived(pathlib.Path(_OUTPUT.value), Counter(name for name, _, _ in planned))
    done = set(table)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        finish(warm_up := pathlib.Path(root, "warm_up", "run"))  # compiles; what follows only trains
        started = time.monotonic()
        finish(undisturbed := pathlib.Path(root, "undisturbed", "run"))
        duration, expected = time.monotonic() - started, outcome(undisturbed)
        check(warm_up, expected)
        for index, (name, completes, suffer) in enumerate(planned):
            if name in done:
                continue
            workdir = pathlib.Path(root, str(index), "run")
            row = table.setdefault(name, {"tried": 0, "survived": 0, "lost": []})
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
            _write(pathlib.Path(_OUTPUT.value), {name: table[name] for name, _, _ in planned if name in table})
    if any(row["lost"] for row in table.values()):
        sys.exit("something was lost")


def _survived(folder: pathlib.Path, planned: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """The rows of an earlier table of the same seed that need not be tried again."""
    path = folder / "chaos.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    rows = record["faults"] if record.get("seed") == _SEED.value else {}
    return {name: row for name, row in rows.items() if row["survived"] == planned.get(name)}


def _write(folder: pathlib.Path, table: dict[str, dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record = {"date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "seed": _SEED.value, "faults": table}
    (folder / "chaos.json").write_text(json.dumps(record, indent=1) + "\n")
    rows = [f"| {name} | {row['tried']} | {row['survived']} | {len(row['lost'])} |" for name, row in table.items()]
    (folder / "chaos.md").write_text("\n".join(["| fault | tried | survived | lost |", "|---|---|---|---|", *rows, ""]))


if __name__ == "__main__":
    app.run(main)
