"""Faults of SegMitos itself: the traceback goes into `errors.log`, one line to the console."""

from __future__ import annotations

import errno
import os
import tempfile
import time
import traceback
from pathlib import Path
from types import TracebackType

from segmitos._version import __version__
from segmitos.errors import SegMitosError
from segmitos.io.files import display_path

ERRORS = "errors.log"
OUT_OF_MEMORY = "out of memory; free some, or try fewer --workers"
_NO_MEMORY = (
    "out of memory",
    "allocate memory",
    "failed to map segment",
    "bad_alloc",
    "bad allocation",
)


def lacks_memory(error: BaseException) -> bool:
    """Tell whether an error, of whatever library, says that there was not enough memory."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | ImportError | OSError) and any(
        words in str(error).lower() for words in _NO_MEMORY
    )


class CaughtBugs:
    """A block in which an error that nobody expected is logged and ends the block alone.

    Where memory ran out, that is said instead. Errors of the package's own, interrupts and exits
    pass.

    Attributes:
        message: one line that says what happened and where it is kept; empty where nothing did.
    """

    def __init__(self, folder: Path, about: str) -> None:
        self._folder = folder
        self._about = about
        self.message = ""

    def __enter__(self) -> CaughtBugs:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception) or isinstance(error, SegMitosError):
            return False
        if lacks_memory(error):
            self.message = OUT_OF_MEMORY
        else:
            self.message = _log_bug(error, self._folder, self._about)
        return True


def _log_bug(error: BaseException, folder: Path, about: str) -> str:
    """Append an error with its whole traceback to `folder/errors.log`.

    Where that cannot be written, it goes to the folder for temporary files.

    Args:
        error: as caught.
        folder: of results.
        about: what was being done.

    Returns:
        One line for the user.
    """
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    told = "".join(traceback.format_exception(error))
    text = f"{stamp} segmitos {__version__} (process {os.getpid()}): {about}\n{told}\n"
    what = " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(": ")
    for place in (folder, Path(tempfile.gettempdir())):
        path = place / ERRORS if place == folder else place / f"segmitos-{os.getpid()}-{ERRORS}"
        try:
            # One write, so that the lines of several processes do not mix.
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(handle, text.encode("utf-8", "backslashreplace"))
            finally:
                os.close(handle)
        except OSError:
            continue
        return f"an error in SegMitos itself ({what}); please report it with {display_path(path)}"
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" at {last[0].filename}:{last[0].lineno}" if last else ""
    return f"an error in SegMitos itself ({what}{where}); please report it"
