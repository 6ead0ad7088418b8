"""Inputs that failed: a record each in `DIR/failures/`, of which `failures.csv` is made.

One file an input, so that any number of processes may write into one folder. A record goes when
its input is done.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import msgspec

from segmitos.cohort.names import FAILURE_RECORDS
from segmitos.errors import OutputError
from segmitos.io.files import remove_file, write_bytes
from segmitos.io.outputs import PROGRAM

_ATTEMPTS = 3


class Failure(msgspec.Struct, frozen=True):
    """Why an input has no result."""

    program: str
    name: str
    path: str
    cause: str
    exit_code: int = 1


def record_failure(out: Path, failure: Failure) -> None:
    """Note that an input failed. Raises OutputError."""
    content = msgspec.json.encode(failure)
    for attempt in range(_ATTEMPTS):
        try:
            write_bytes(_record_path(out, failure.path), msgspec.json.format(content) + b"\n")
            break
        except OutputError:
            # Another process may just have removed the folder, empty for a moment.
            if attempt == _ATTEMPTS - 1:
                raise


def clear_failure(out: Path, path: str) -> None:
    """Forget that an input failed before.

    Raises:
        OutputError: where the record must stay, so that the tables would still call it failed.
    """
    record = _record_path(out, path)
    if os.path.lexists(record):
        remove_file(record)
        with contextlib.suppress(OSError):
            record.parent.rmdir()


def read_failures(out: Path) -> list[Failure]:
    """Return all records, by name, then path; what is damaged or not ours is passed over."""
    found = []
    try:
        entries = [entry for entry in os.scandir(out / FAILURE_RECORDS) if entry.is_file()]
    except OSError:
        return []
    for entry in entries:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            failure = msgspec.json.decode(Path(entry.path).read_bytes(), type=Failure)
            if failure.program == PROGRAM:
                found.append(failure)
    return sorted(found, key=lambda failure: (failure.name, failure.path))


def _record_path(out: Path, path: str) -> Path:
    mark = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return out / FAILURE_RECORDS / f"{mark}.json"
