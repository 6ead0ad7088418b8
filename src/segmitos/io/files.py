"""Files that are either whole or absent: written aside, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from segmitos.errors import OutputError


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically, creating its folder.

    Raises:
        OutputError: if the folder or file cannot be written (permission, full disk).
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_abandoned(path)
        prefix = f".{path.name}.{_host()}-{os.getpid()}-"
        handle, temporary = tempfile.mkstemp(prefix=prefix, dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _host() -> str:
    return platform.node().replace("-", "_") or "host"


def _drop_abandoned(path: Path) -> None:
    """Remove what killed processes of this machine left half-written for the same file."""
    start = f".{path.name}.{_host()}-"
    for entry in os.scandir(path.parent):
        process = entry.name.removeprefix(start).partition("-")[0]
        if not entry.name.startswith(start) or not process.isdigit():
            continue
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            with contextlib.suppress(OSError):
                os.unlink(entry.path)
        except OSError:
            continue


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text atomically. Raises OutputError as `write_bytes` does."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys atomically, the same bytes for the same content.

    Raises:
        OutputError: as `write_bytes` does.
    """
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")
