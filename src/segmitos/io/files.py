"""Files that are either whole or absent: written aside, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segmitos.errors import InputError, OutputError
from segmitos.io.outputs import PROGRAM
from segmitos.io.text import reason_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

# What another process has half-written is left alone this long: someone may be at it.
_ABANDONED_S = 3600.0
_PARTIAL = re.compile(r"\..*\.partial-[^/]*-\d+-[0-9a-f]{8}", re.DOTALL)
_MAX_NAME_BYTES = 255
# What this process is building now, and folders that it has looked through for what others left.
_building: set[str] = set()
_swept: set[Path] = set()


def absolute_path(path: Path | str) -> Path:
    """Return a path from the root, without `.` and `..`; links stay as they are.

    Raises:
        InputError: for a relative path where the working folder has been deleted.
    """
    try:
        return Path(os.path.abspath(path))
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: the working folder has been deleted; change to another, or give whole paths"
        ) from error


def display_path(path: Path | str) -> str:
    """Return a path as text to print and save; bytes that are no UTF-8 become escapes."""
    text = os.fspath(path)
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        # A lone surrogate, which JSON can hold, that stands for no byte of a file's name.
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def no_result(folder: Path, lacking: str) -> str:
    """Say that a folder is no result of detect, for an error."""
    if folder.is_file():
        return f"{folder} is a file; name a folder of results of detect"
    if not folder.is_dir():
        return f"there is no folder {folder}"
    return f"{folder} holds no result of detect ({lacking})"


def remove_stale_partials(folder: Path) -> None:
    """Remove what processes that died left half-written in a folder; what is at work stays."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if not entry.name.startswith(".") or not _PARTIAL.fullmatch(entry.name):
                continue
            partial = Path(entry.path)
            if not is_abandoned(partial):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Build a file aside, creating its folder: it appears whole under its name, or not at all.

    Yields:
        The hidden name to write to.

    Raises:
        OutputError: if the folder or file cannot be written (permission, full disk).
    """
    aside = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _swept:
            _swept.add(path.parent)
            remove_stale_partials(path.parent)
        yield aside
        os.replace(aside, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason_of(error)}") from error
    finally:
        # Also where the user interrupts; after the rename there is nothing of this name.
        with contextlib.suppress(OSError):
            os.unlink(aside)
        _building.discard(aside.name)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically. Raises OutputError as `new_file` does."""
    with new_file(path) as aside:
        write_synced(aside, content)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file and wait until it is on the disk. Raises OSError."""
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files that belong together: none appears before all are on the disk, then in order.

    Args:
        folder: to write into.
        files: content by name; the last one tells that the others are whole.

    Raises:
        OutputError: as `new_file` does; what was there of these names stays then.
    """
    with contextlib.ExitStack() as stack:
        # The last to be begun is the first to be renamed.
        for name, content in reversed(list(files.items())):
            write_synced(stack.enter_context(new_file(folder / name)), content)


def remove_file(path: Path) -> None:
    """Remove a file of this program, if it is there. Raises OutputError where that cannot be."""
    try:
        # Asked first: a read-only disk refuses to remove what is not there, too.
        if os.path.lexists(path):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {reason_of(error)}") from error


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Build a folder aside: it appears whole under its name, or not at all.

    Yields:
        The hidden folder to write into.

    Raises:
        OutputError: where the folder holds something, or cannot be written.
    """
    aside = partial_path(folder)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"{folder} is not empty; choose another folder with -o")
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_partials(folder.parent)
        aside.mkdir()
        yield aside
        if folder.exists():
            folder.rmdir()
        os.rename(aside, folder)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {reason_of(error)}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        _building.discard(aside.name)


def partial_path(path: Path) -> Path:
    """Return where to build `path` aside: a hidden name that tells which process does."""
    mark = f".partial-{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    name = path.name
    if len(os.fsencode(name)) + len(mark) + 1 > _MAX_NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    _building.add(f".{name}{mark}")
    return path.with_name(f".{name}{mark}")


def is_abandoned(partial: Path) -> bool:
    """Tell whether nobody can be writing to what `partial_path` named any more."""
    host, _, rest = partial.name.rpartition(".partial-")[2].partition("-")
    process = rest.partition("-")[0]
    here = host == _host() and process.isdigit()
    if here and int(process) == os.getpid():
        # Of a container's processes, one that died may have had the number of this one.
        return partial.name not in _building
    if here and not _is_running(int(process)):
        return True
    try:
        return time.time() - partial.stat().st_mtime > _ABANDONED_S
    except FileNotFoundError:
        return False


def _is_running(process: int) -> bool:
    """Tell whether a process of this machine runs; one that has ended (a zombie) does not."""
    try:
        os.kill(process, 0)
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except ProcessLookupError:
        return False
    except OSError:
        # It is another user's, or there is no /proc to ask.
        return True
    return stat.rpartition(")")[2].split()[:1] not in (["Z"], ["X"])


def _host() -> str:
    """Name what numbers the processes: this machine, or one container of those of its name."""
    name = platform.node().replace("-", "_")[:48] or "host"
    try:
        # Such as pid:[4026531836]; containers of `docker run --network host` have one name.
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        return name
    return f"{name}_{re.sub(r'[^0-9]', '', space)}"


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text atomically. Raises OutputError as `write_bytes` does."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys atomically, the same bytes for the same content.

    Raises:
        OutputError: as `write_bytes` does.
    """
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """Return JSON with sorted keys and a final newline, the same for the same content."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return text + "\n"


def image_bytes(
    image: NDArray[np.uint8] | NDArray[np.bool_] | Image.Image,
    kind: Literal["png", "jpg"] = "png",
    quality: int = 85,
    drawn: bool = False,
) -> bytes:
    """Return a picture as PNG or JPEG, the same bytes for the same picture.

    Args:
        image: (h, w) uint8 or bool, (h, w, 3) or (h, w, 4) uint8, or a Pillow image.
        kind: png or jpg.
        quality: of a JPEG, 1 to 95.
        drawn: whether it is a drawing for people, which must never become an input: it then says
            that this program made it (see `outputs.is_own_picture`).
    """
    from PIL import Image, PngImagePlugin

    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    if kind == "jpg":
        comment = {"comment": PROGRAM.encode()} if drawn else {}
        picture.save(buffer, "JPEG", quality=quality, **comment)
    else:
        about = PngImagePlugin.PngInfo()
        if drawn:
            about.add_text("Software", PROGRAM)
        picture.save(buffer, "PNG", pnginfo=about)
    return buffer.getvalue()


def jpeg_copy(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return an RGB image (h, w, 3) as it comes back from a JPEG of a quality from 1 to 95."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(image_bytes(image, "jpg", quality))) as decoded:
        return np.asarray(decoded)
