"""Files that cannot be read: each is reported once, however many threads, worker processes and epochs meet it."""

import hashlib
import pathlib
import shutil
import sys
import tempfile
import weakref

from tqdm import tqdm

from dnc import errors
from dnc.data.sources.decode import BrokenImageError

POLICIES = ("skip", "raise")


class BrokenFiles:
    """The broken files met so far, as empty marker files in a temporary folder.

    Creating a file that must not exist yet succeeds for exactly one caller, so the ledger needs no lock, and a copy of
    it in a worker process is the same ledger.

    policy: "skip" reports a file on stderr once and goes on, "raise" stops at the first.
    """

    def __init__(self, policy: str = "skip"):
        if policy not in POLICIES:
            raise errors.unknown("broken", policy, POLICIES)
        self.policy = policy
        self._marks = pathlib.Path(tempfile.mkdtemp(prefix="dnc_broken_files_"))
        weakref.finalize(self, shutil.rmtree, self._marks, ignore_errors=True)

    def __len__(self) -> int:
        return sum(1 for _ in self._marks.iterdir())

    def add(self, name: str, error: BrokenImageError) -> None:
        """Reports the file unless it was reported before; with the policy "raise", raises `error`."""
        if self.policy == "raise":
            raise error
        try:
            (self._marks / hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()).touch(exist_ok=False)
        except FileExistsError:
            return
        tqdm.write(f"broken image ({len(self)} so far): {error}", file=sys.stderr)  # locked, and above any bar
