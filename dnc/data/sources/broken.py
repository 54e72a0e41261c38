"""Images that cannot be decoded: few are allowed, and each is reported once, whatever threads and epochs meet it."""

import hashlib
import pathlib
import shutil
import sys
import tempfile
import weakref
from typing import Any

from tqdm import tqdm

from dnc.data.sources.decode import BrokenImageError

MAX_SHARE = 0.01


class BrokenFiles:
    """The broken files met so far, as empty marker files in a temporary folder.

    Creating a file that must not exist yet succeeds for exactly one caller, so the ledger needs no lock, and a copy of
    it in a worker process is the same ledger.

    share: the largest share of a set's images that may be broken, 0 to 1; 0 stops at the first.
    """

    def __init__(self, share: Any = MAX_SHARE):  # of a config: any type, and checked here
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ValueError(f"broken={share!r}: give the largest share of images that may be left out, 0 to 1")
        self.share = share
        self._marks = pathlib.Path(tempfile.mkdtemp(prefix="dnc_broken_files_"))
        weakref.finalize(self, shutil.rmtree, self._marks, ignore_errors=True)

    def __len__(self) -> int:
        return sum(1 for _ in self._marks.iterdir())

    def add(self, name: str, error: BrokenImageError) -> None:
        """Reports the file on stderr unless it was reported before; raises `error` where none may be broken."""
        if not self.share:
            raise error
        try:
            (self._marks / hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()).touch(exist_ok=False)
        except FileExistsError:
            return
        tqdm.write(f"broken image ({len(self)} so far): {error}", file=sys.stderr)  # locked, and above any bar

    def check(self, broken: int, images: int) -> None:
        """Raises BrokenImageError where more than the share of a set's images are broken."""
        if broken > self.share * images:
            raise BrokenImageError(
                f"{broken} of {images} images cannot be decoded, which is more than {self.share:.6g} of them: repair "
                f"or remove them, or allow for it with --broken={-(-broken * 1000 // images) / 1000:g} or more"
            )
