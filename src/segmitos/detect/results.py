"""The output folder of one input: whole or absent, whatever happens meanwhile.

A folder is built aside under a hidden name and moved into place in one step. Everything in it
follows from the input, the model and the settings alone, except `run.json`, which says when, where
and how fast.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import segmitos
from segmitos.errors import OutputError

SUMMARY = "summary.json"
RUN = "run.json"


def output_names(paths: Sequence[Path]) -> list[str]:
    """Name an output folder for each input: its stem, or more of its path where stems collide.

    The names do not depend on the order of the inputs.
    """
    stems = [path.stem for path in paths]
    shared = {stem for stem in stems if stems.count(stem) > 1}
    if not shared:
        return stems
    absolute = [path.absolute() for path in paths]
    root = Path(os.path.commonpath([path.parent for path in absolute]))
    names = []
    for stem, path in zip(stems, absolute, strict=True):
        relative = path.relative_to(root)
        long = "__".join([*relative.parent.parts, relative.name.replace(".", "_")])
        names.append(long if stem in shared else stem)
    return names


def recover(out: Path, name: str) -> None:
    """Undo what a kill left behind: restore a folder half replaced, drop one half built."""
    final, old = out / name, out / f".{name}.old"
    try:
        if old.exists() and not final.exists():
            os.replace(old, final)
        for stale in [old, *out.glob(f".{glob_safe(name)}.partial-*")]:
            if stale.exists():
                shutil.rmtree(stale)
    except OSError as error:
        raise OutputError(f"cannot clean up in {out}: {error.strerror or error}") from error


def glob_safe(name: str) -> str:
    """Return a name in which no character means anything to a glob."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def finished(folder: Path, expected: Mapping[str, Any]) -> bool:
    """Tell whether a folder holds the result of the same input, model and settings."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(summary.get(key) == value for key, value in expected.items())


def place(out: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Write files as `out/name/`, in one step; an earlier folder of that name is replaced.

    Raises:
        OutputError: where there is no permission or no room; nothing is left behind then.
    """
    final, old = out / name, out / f".{name}.old"
    partial = out / f".{name}.partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        for file, content in files.items():
            path = partial / file
            path.parent.mkdir(exist_ok=True)
            with path.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        if final.exists():
            os.replace(final, old)
        os.replace(partial, final)
        if old.exists():
            shutil.rmtree(old)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not final.exists():
            os.replace(old, final)
        raise OutputError(f"cannot write {final}: {error.strerror or error}") from error
    return final


def to_json(content: Any) -> bytes:
    """Return JSON as bytes, the same for the same content."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode("utf-8")


def versions() -> dict[str, str]:
    """Versions that can sway a result."""
    from importlib import metadata

    packages = ("numpy", "onnxruntime", "scipy", "pillow")
    return {"segmitos": segmitos.__version__} | {name: metadata.version(name) for name in packages}


def machine() -> dict[str, Any]:
    """Where a run took place."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": platform.machine(),
    }
