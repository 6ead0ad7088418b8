"""What a result belongs to: an input's content and path, a model, and every setting that counts."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from segmitos.cohort.settings import JobSettings
from segmitos.errors import InputError
from segmitos.io.files import absolute_path, display_path
from segmitos.io.slide.backend import with_companions
from segmitos.io.text import reason_of

RESULT_FORMAT = 3
"""Raised whenever the files of a result change, or what is read of inputs and regions: results of
before are made again."""

WHOLE_UP_TO_BYTES = 64 << 20
_BLOCKS, _BLOCK_BYTES = 64, 256 << 10

UNUSED_IN_RESULT = frozenset({"model", "device", "threads", "overwrite"})
"""Fields of `JobSettings` that leave the result as it is; the model counts by its hash.

Devices and threads may move the last digits of a score, and no detection."""


class InputRecord(msgspec.Struct, frozen=True):
    """The content of one input when it was read."""

    path: str
    sha256: str
    bytes: int
    files: int
    modified: str


class Identity(msgspec.Struct, frozen=True):
    """What a finished result must agree with to be left as it is."""

    format: int
    path: str
    input: str
    model: str
    settings: dict[str, Any]

    def differences(self, other: Identity) -> list[str]:
        """Name what differs, setting by setting."""
        found = [
            {"path": "input (moved)", "format": "version of SegMitos"}.get(key, key)
            for key in ("format", "path", "input", "model")
            if getattr(self, key) != getattr(other, key)
        ]
        keys = sorted({*self.settings, *other.settings})
        changed = [key for key in keys if self.settings.get(key) != other.settings.get(key)]
        return [*found, *(f"setting {key}" for key in changed)]


def read_input(path: Path) -> InputRecord:
    """Hash an input, with all files of a slide that has several.

    A file up to 64 MB counts whole; of a larger one its size and 64 blocks spread evenly over it.

    Raises:
        InputError: where a file cannot be read.
    """
    digest = hashlib.sha256()
    main = with_companions(path)
    files = list(files_of(path))
    total, newest = 0, 0
    try:
        for file in files:
            about = file.stat()
            total, newest = total + about.st_size, max(newest, about.st_mtime_ns)
            # What the main file is called is no part of its content; the others find each other
            # by name.
            name = b"" if file == main else os.fsencode(file.relative_to(main.parent))
            digest.update(name + b"\0" + str(about.st_size).encode() + b"\0")
            digest.update(_content_digest(file, about.st_size))
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise InputError(f"{path}: cannot be read ({reason})") from error
    where = display_path(absolute_path(path))
    return InputRecord(where, digest.hexdigest(), total, len(files), _stamp(newest))


def is_unchanged(path: Path, source: InputRecord) -> bool:
    """Tell by sizes and times whether an input still is as it was when it was hashed."""
    try:
        about = [file.stat() for file in files_of(path)]
    except OSError:
        return False
    newest = max((one.st_mtime_ns for one in about), default=0)
    found = (sum(one.st_size for one in about), len(about), _stamp(newest))
    return found == (source.bytes, source.files, source.modified)


def is_still_there(source: InputRecord) -> bool:
    """Tell whether an input lies where it was read and has the same content."""
    path = Path(source.path)
    try:
        return is_unchanged(path, source) or read_input(path).sha256 == source.sha256
    except InputError:
        return False


def _stamp(time_ns: int) -> str:
    """Return a time as text, to the nanosecond."""
    seconds, rest = divmod(time_ns, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def _content_digest(file: Path, size: int) -> bytes:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        if size <= WHOLE_UP_TO_BYTES:
            while block := stream.read(1 << 20):
                digest.update(block)
            return digest.digest()
        for index in range(_BLOCKS):
            stream.seek((size - _BLOCK_BYTES) * index // (_BLOCKS - 1))
            digest.update(stream.read(_BLOCK_BYTES))
    return digest.digest()


def files_of(path: Path) -> Iterator[Path]:
    """Yield the files of an input in a fixed order: one, or all those of its slide."""
    path = with_companions(path)
    suffix = path.suffix.lower()
    if suffix == ".mrxs":
        yield path
        below = path.with_suffix("")
        yield from sorted(file for file in below.rglob("*") if file.is_file())
    elif suffix in (".vms", ".vmu"):
        yield path
        yield from _named_in(path)
    else:
        yield from _dicom_files(path)


def _named_in(path: Path) -> list[Path]:
    """Return the files beside a text file that it names."""
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        beside = {entry.name: entry for entry in path.parent.iterdir() if entry.is_file()}
    except (OSError, ValueError):
        return []
    values = {line.partition("=")[2].strip() for line in lines}
    return [beside[name] for name in sorted(values & set(beside)) if name != path.name]


def _dicom_files(path: Path) -> list[Path]:
    """Return the files of a DICOM file's series in its folder; any other file alone."""
    from segmitos.io.slide.dicom import read_header

    own = read_header(path)
    if own is None or not own.series:
        return [path]
    headers = {file: read_header(file) for file in path.parent.iterdir() if file.is_file()}
    return sorted(file for file, one in headers.items() if one and one.series == own.series)


def settings_of(settings: JobSettings) -> dict[str, Any]:
    """Return the settings that affect a result, JSON-able; files count by their content.

    Raises:
        InputError: where a file that is a setting cannot be read.
    """
    values = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.name not in UNUSED_IN_RESULT
    }
    return {
        name: _file_hash(value) if isinstance(value, Path) else value
        for name, value in values.items()
    }


def _file_hash(path: Path) -> str:
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        digest = hashlib.sha256()
        for file in files:
            if file.is_file():
                digest.update(file.read_bytes())
        return digest.hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from error
