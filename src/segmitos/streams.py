"""Standard streams that are closed, full or cannot print a name do not stop the work."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

_READER_GONE = (errno.EPIPE, errno.ESHUTDOWN)
_REPLACED: list[Any] = []


class Output(io.TextIOWrapper):
    """A standard stream that, once it cannot be written, swallows what comes.

    Attributes:
        failure: why it cannot be written, None while it can, or where its reader has seen enough.
    """

    failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        try:
            return super().write(text)
        except (OSError, ValueError) as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        try:
            super().flush()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: OSError | ValueError) -> None:
        if isinstance(error, OSError) and error.errno not in _READER_GONE:
            self.failure = error
        try:
            # What is still in the buffers has to go somewhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            super().flush()
        except (OSError, ValueError):
            pass


def protect_streams() -> None:
    """Make standard output and error such streams; characters they lack become escapes."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file to be opened would be taken for this stream.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _protected(sys.stdout, 1)
    sys.stderr = _protected(sys.stderr, 2)


def _protected(stream: Any, descriptor: int) -> Output:
    if stream is None:
        buffer: Any = os.fdopen(descriptor, "wb")
        return Output(buffer, encoding="utf-8", errors="backslashreplace")
    stream.flush()
    # Who took the stream before, as a library's logger does when imported, writes to it still; and
    # a stream that nobody held any more would close the file.
    _REPLACED.append(stream)
    return Output(
        stream.buffer,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
    )


def output_failure() -> str:
    """Return why standard output could not take all, empty where it could."""
    sys.stdout.flush()
    failure = getattr(sys.stdout, "failure", None)
    return "" if failure is None else str(failure.strerror or failure)
