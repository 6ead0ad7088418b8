"""The output folder of one input: whole or absent, whatever happens meanwhile.

A folder is built aside under a hidden name and moved into place in one step. Everything in it
follows from the input, the model and the settings alone, except `run.json`, which says when, where
and how fast.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segmitos._version import __version__
from segmitos.errors import OutputError
from segmitos.io.files import is_abandoned, partial_path

SUMMARY = "summary.json"
RUN = "run.json"
REPORT = "report.html"
ALWAYS = ("detections.csv", "detections.geojson", SUMMARY, RUN, REPORT)
# Files of the run as a whole, beside the folders.
COHORT, FAILURES, COHORT_REPORT = "cohort.csv", "failures.csv", "cohort.html"


def output_names(paths: Sequence[Path]) -> list[str]:
    """Name an output folder for each input: its stem, or more of its path where stems collide.

    The names do not depend on the order of the inputs. Names that differ only in upper and lower
    case collide too, since on some disks they are one folder.
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    if not absolute:
        return []
    root = Path(os.path.commonpath([path.parent for path in absolute]))
    taken = [COHORT, FAILURES, COHORT_REPORT]
    names = [path.stem for path in absolute]
    longer = ["__".join(path.relative_to(root).with_suffix("").parts) for path in absolute]
    longest = ["__".join(path.relative_to(root).parts).replace(".", "_") for path in absolute]
    for candidates in (longer, longest):
        folded = [name.casefold() for name in [*names, *taken]]
        counts = {name: folded.count(name) for name in set(folded)}
        clash = [counts[name.casefold()] > 1 for name in names]
        names = [c if bad else n for n, c, bad in zip(names, candidates, clash, strict=True)]
    # What still collides (a_b.png beside a.b.png) is told apart by what no two paths share.
    folded = [name.casefold() for name in [*names, *taken]]
    return [
        f"{name}-{uuid.uuid5(uuid.NAMESPACE_URL, path.relative_to(root).as_posix()).hex[:8]}"
        if folded.count(name.casefold()) > 1
        else name
        for name, path in zip(names, absolute, strict=True)
    ]


def recover(out: Path, name: str) -> None:
    """Undo what a kill left of a folder or file: restore it half replaced, drop it half built."""
    final, old = out / name, out / f".{name}.old"
    try:
        if old.exists():
            if final.exists():
                shutil.rmtree(old)
            else:
                os.replace(old, final)
        for partial in out.glob(f".{_glob_safe(name)}.partial-*"):
            if is_abandoned(partial) and partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            elif is_abandoned(partial):
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot clean up in {out}: {error.strerror or error}") from error


def sweep(out: Path, names: Sequence[str]) -> None:
    """Drop what processes that died meanwhile left half built of folders of these names."""
    ours = {f".{name}" for name in names}
    with contextlib.suppress(OSError):
        for partial in out.glob(".*.partial-*"):
            if partial.name.rpartition(".partial-")[0] in ours and is_abandoned(partial):
                shutil.rmtree(partial, ignore_errors=True)


def _glob_safe(name: str) -> str:
    """Return a name in which no character means anything to a glob."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Return the summary of a result folder, None where there is none or it is damaged."""
    try:
        content = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def finished(folder: Path, expected: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the summary of a whole result of the same input, model and settings, else None."""
    summary = read_summary(folder)
    if summary is None or any(summary.get(key) != value for key, value in expected.items()):
        return None
    return summary if all((folder / name).is_file() for name in ALWAYS) else None


def input_of(folder: Path) -> str | None:
    """Return the path of the input that a result folder was made of, where it says so."""
    try:
        content = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = content.get("input") if isinstance(content, dict) else None
    return found if isinstance(found, str) else None


def place(out: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Write files as `out/name/`, in one step; an earlier folder of that name is replaced.

    Raises:
        OutputError: where there is no permission or no room; nothing is left behind then.
    """
    final, old = out / name, out / f".{name}.old"
    partial = partial_path(final)
    try:
        partial.mkdir(parents=True)
        for file, content in files.items():
            with (partial / file).open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        _exchange(partial, final, old)
        _sync_folder(out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            if old.exists() and not final.exists():
                os.replace(old, final)
        raise OutputError(f"cannot write {final}: {error.strerror or error}") from error
    return final


def _exchange(partial: Path, final: Path, old: Path) -> None:
    """Move a new folder into place and what was there out of the way."""
    for attempt in range(3):
        if final.exists():
            if old.exists():
                shutil.rmtree(old)
            os.replace(final, old)
        try:
            os.replace(partial, final)
            break
        except OSError as error:
            # Another process has just put the same result there: move that one away.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or attempt == 2:
                raise
    if old.exists():
        shutil.rmtree(old)


def _sync_folder(folder: Path) -> None:
    """Make renames last through a power cut, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(OSError):
                os.fsync(handle)
        finally:
            os.close(handle)


def to_json(content: Any) -> bytes:
    """Return JSON as bytes, the same for the same content."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode("utf-8")


def versions(device: str) -> dict[str, str]:
    """Versions that can sway a result on a device."""
    import numpy
    import PIL

    found = {
        "segmitos": __version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
    }
    if device == "openvino":
        import openvino

        return {**found, "openvino": openvino.__version__}
    import onnxruntime

    return {**found, "onnxruntime": onnxruntime.__version__}


def machine() -> dict[str, Any]:
    """Where a run took place."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": platform.machine(),
    }
