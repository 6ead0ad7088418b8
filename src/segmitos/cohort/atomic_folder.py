"""The output folder of one input: whole or absent, whatever happens meanwhile.

A folder is built aside under a hidden name and moved into place in one step. Everything in it
follows from the input, the model and the settings alone, except `run.json`, which says when, where
and how fast, and holds a hash of every other file: what was changed afterwards is not trusted.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from segmitos.cohort.identity import Identity, InputRecord, read_input
from segmitos.errors import InputError, OutputError
from segmitos.io.files import (
    absolute_path,
    display_path,
    json_text,
    no_result,
    partial_path,
    remove_stale_partials,
    write_bytes,
    write_synced,
)
from segmitos.io.outputs import (
    DETECTIONS_CSV,
    DETECTIONS_GEOJSON,
    PROGRAM,
    REPORT,
    RUN,
    SUMMARY,
    is_result_folder,
)
from segmitos.io.text import reason_of

ALWAYS = (DETECTIONS_CSV, DETECTIONS_GEOJSON, SUMMARY, RUN, REPORT)
_OLD = re.compile(r"\..+\.old", re.DOTALL)
# What a step meets where another process has just done the like.
_RACED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)
_ATTEMPTS, _LOOKS, _RETRY_S = 20, 5, 0.005


def _is_still(seen: Callable[[], bool]) -> bool:
    """Tell whether what is seen of a result stays so: another process may be exchanging it."""
    for attempt in range(_LOOKS):
        if not seen():
            return False
        time.sleep(_RETRY_S * attempt)
    return True


class NameTakenError(OutputError):
    """The result of another input has this name."""


class RunRecord(msgspec.Struct):
    """`run.json`: whose result this is, what its files were, when and where it was made."""

    program: str
    identity: Identity
    input: InputRecord
    files: dict[str, str]
    run: dict[str, Any]

    def to_json(self) -> bytes:
        """Return the content of the file."""
        return json_text(msgspec.to_builtins(self)).encode("utf-8")


@dataclass(frozen=True)
class OutputFolder:
    """`out/name/`, and what kills may have left of it beside it."""

    out: Path
    name: str

    @property
    def path(self) -> Path:
        """Where the result is."""
        return self.out / self.name

    @property
    def _old(self) -> Path:
        """Where an earlier result waits while the new one is moved into its place."""
        return self.out / f".{self.name}.old"

    def repair(self) -> None:
        """Undo what a kill left: restore what was half replaced.

        What was half built goes with `remove_stale_partials`.

        Raises:
            OutputError: where that cannot be done.
        """
        try:
            if self._old.exists():
                if self.path.exists():
                    self._drop_old()
                else:
                    os.replace(self._old, self.path)
        except OSError as error:
            if error.errno not in _RACED:
                reason = reason_of(error)
                raise OutputError(f"cannot clean up in {self.out}: {reason}") from error

    def record(self) -> RunRecord | None:
        """Return `run.json`; None where there is none, or it is damaged."""
        try:
            found = msgspec.json.decode((self.path / RUN).read_bytes(), type=RunRecord)
        except (OSError, ValueError, RecursionError):
            return None
        return found if found.program == PROGRAM else None

    def summary(self, record: RunRecord) -> dict[str, Any] | None:
        """Return `summary.json` if it is as it was written, else None."""
        content = self._intact(SUMMARY, record)
        return None if content is None else msgspec.json.decode(content, type=dict[str, Any])

    def changed_files(self) -> list[str]:
        """Name the files that are missing or not as they were written."""
        record = self.record()
        if record is None:
            return [RUN]
        names = sorted({*record.files, *ALWAYS} - {RUN})
        return [name for name in names if self._intact(name, record) is None]

    def _intact(self, name: str, record: RunRecord) -> bytes | None:
        """Return the content of a file if it is as it was written, else None."""
        try:
            content = (self.path / name).read_bytes()
        except OSError:
            return None
        return content if record.files.get(name) == hashlib.sha256(content).hexdigest() else None

    def finished(self, identity: Identity) -> dict[str, Any] | None:
        """Return the summary of a whole result of this identity, else None."""
        record = self.record()
        if record is None or record.identity != identity or self.changed_files():
            return None
        return self.summary(record)

    def check_replaceable(self) -> None:
        """Refuse to replace what this program did not write.

        Raises:
            OutputError: where something else is at this place.
        """
        if not _is_still(self._is_foreign):
            return
        kind = "folder" if self.path.is_dir() else "file"
        raise OutputError(
            f"{self.path} is a {kind} that SegMitos did not write, and stays as it is; move "
            "it, or choose another folder with -o"
        )

    def _is_foreign(self) -> bool:
        there = os.path.lexists(self.path)
        return there and (self.path.is_symlink() or not is_result_folder(self.path))

    def _is_locked(self) -> bool:
        return self.path.is_dir() and not os.access(self.path, os.W_OK | os.X_OK)

    def check_owner(self, identity: Identity) -> None:
        """Refuse a place that another input's result has, unless that has been moved here.

        Raises:
            NameTakenError: where it is another input's; OutputError: where this user may not
                remove what is there.
        """
        record = self.record()
        if (
            record is not None
            and record.input.path != identity.path
            and (record.input.sha256 != identity.input or os.path.exists(record.input.path))
        ):
            raise NameTakenError(
                f"{self.path} holds the result of {record.input.path}; give another name in a "
                "table with the columns path,name"
            )
        if _is_still(self._is_locked):
            raise OutputError(
                f"cannot replace {self.path}: no permission (another user's?); choose another "
                "folder with -o"
            )

    def commit(
        self,
        files: Mapping[str, bytes],
        identity: Identity,
        source: InputRecord,
        run: Mapping[str, Any],
    ) -> Path:
        """Write the result in one step; an earlier result of this name is replaced.

        Files that a user added to the earlier result are kept.

        Raises:
            NameTakenError: where another input's result is, or has just come, in this place.
            OutputError: where there is no permission or no room, or something else is there;
                nothing is left behind then.
        """
        self.check_replaceable()
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        record = RunRecord(PROGRAM, identity, source, hashes, dict(run))
        partial = partial_path(self.path)
        try:
            partial.mkdir(parents=True)
            for file, content in {**files, RUN: record.to_json()}.items():
                write_synced(partial / file, content)
            self._exchange(partial, identity)
            _sync_folder(self.out)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {reason_of(error)}") from error
        finally:
            # Also where the user interrupts; after the rename there is nothing of this name.
            shutil.rmtree(partial, ignore_errors=True)
            with contextlib.suppress(OSError):
                if self._old.exists() and not self.path.exists():
                    os.replace(self._old, self.path)
        return self.path

    def update(self, files: Mapping[str, bytes]) -> None:
        """Replace files of a result, and note them.

        A kill between two files leaves a result that is known not to be whole.

        Raises:
            OutputError: where there is no result, or it cannot be written.
        """
        record = self.record()
        if record is None:
            raise OutputError(f"{self.path} holds no result of detect ({RUN} is not whole)")
        for name, content in files.items():
            write_bytes(self.path / name, content)
            record.files[name] = hashlib.sha256(content).hexdigest()
        write_bytes(self.path / RUN, record.to_json())

    def _exchange(self, partial: Path, identity: Identity) -> None:
        """Move a new folder into place and what was there out of the way.

        Another process may be doing the same; then it is tried again.
        """
        for attempt in range(_ATTEMPTS):
            try:
                if self.path.exists():
                    self.check_owner(identity)
                    self._drop_old()
                    os.replace(self.path, self._old)
                os.replace(partial, self.path)
                break
            except OSError as error:
                if error.errno not in _RACED or attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(_RETRY_S * attempt)
        self._drop_old()

    def _drop_old(self) -> None:
        """Remove the earlier result, but keep what a user added to it."""
        if not self._old.exists():
            return
        earlier = OutputFolder(self.out, self._old.name).record()
        ours = {*ALWAYS, *(earlier.files if earlier else ())}
        # Another process may be at it, too, or have just moved the place away.
        with contextlib.suppress(FileNotFoundError):
            for entry in list(os.scandir(self._old)):
                kept = self.path / entry.name
                if earlier is not None and entry.name not in ours and not os.path.lexists(kept):
                    os.replace(entry.path, kept)
            shutil.rmtree(self._old, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """Make renames last through a power cut, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(OSError):
                os.fsync(handle)
        finally:
            os.close(handle)


def repair_results(out: Path) -> None:
    """Restore the results in a folder that a kill left half replaced.

    Raises:
        OutputError: where that cannot be done.
    """
    with contextlib.suppress(OSError):
        for entry in os.scandir(out):
            if _OLD.fullmatch(entry.name) and is_result_folder(Path(entry.path)):
                OutputFolder(out, entry.name[1 : -len(".old")]).repair()


def results_in(out: Path) -> list[OutputFolder]:
    """Return the results in a folder, by name; of other folders in it none."""
    try:
        entries = [
            entry.name
            for entry in os.scandir(out)
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        ]
    except OSError as error:
        raise OutputError(f"cannot list {out}: {reason_of(error)}") from error
    folders = [OutputFolder(out, name) for name in sorted(entries)]
    # One that has lost its run.json is still a result, which must not be left out silently.
    return [one for one in folders if (one.path / RUN).is_file() or is_result_folder(one.path)]


def open_results(folder: Path) -> list[OutputFolder]:
    """Return the result that a folder is, or all in it by name; what a kill left is undone first.

    Raises:
        InputError: for a folder that holds none; OutputError: where it cannot be repaired.
    """
    OutputFolder(folder.absolute().parent, folder.name).repair()
    if (folder / RUN).is_file():
        return [OutputFolder(folder.parent, folder.name)]
    results = []
    if folder.is_dir():
        remove_stale_partials(folder)
        repair_results(folder)
        results = results_in(folder)
    if not results:
        raise InputError(no_result(folder, f"no {RUN}"))
    return results


def find_results(out: Path, images: Sequence[Path]) -> dict[Path, OutputFolder | None]:
    """Find the results of images in a folder: by path, or of a moved image by its content.

    Args:
        out: folder of results.
        images: paths.

    Returns:
        The result of each image, None where there is none.

    Raises:
        InputError: where an image cannot be read; OutputError: where `out` cannot be listed.
    """
    by_path: dict[str, OutputFolder] = {}
    by_content: dict[str, list[OutputFolder]] = {}
    for folder in results_in(out):
        record = folder.record()
        if record is not None:
            by_path[record.input.path] = folder
            by_content.setdefault(record.input.sha256, []).append(folder)
    found: dict[Path, OutputFolder | None] = {}
    for image in images:
        found[image] = by_path.get(display_path(absolute_path(image)))
        content = read_input(image).sha256
        same = by_content.get(content, [])
        if found[image] not in same:
            # Replaced since, or moved here; two results of one content are the same but in name.
            found[image] = same[0] if same else None
    return found
