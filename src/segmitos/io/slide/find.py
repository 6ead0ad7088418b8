"""Which images are meant by a list of files, folders, globs and list files."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from segmitos.errors import InputError

SUFFIXES = frozenset(
    {
        ".png",
        ".jpg",
        ".jpeg",
        ".bmp",
        ".tif",
        ".tiff",
        ".btf",
        ".svs",
        ".ndpi",
        ".mrxs",
        ".scn",
        ".dcm",
        ".vms",
        ".vmu",
        ".bif",
        ".svslide",
        ".czi",
    }
)
LIST_SUFFIX = ".txt"
_SERIES_TAG = b"\x20\x00\x0e\x00UI"
_HEADER_BYTES = 1 << 16


def find_images(paths: Sequence[Path | str]) -> list[Path]:
    """The images meant by `paths`, each once, in the order given (folders sorted).

    A folder stands for the images in it and below (hidden files and folders left out; a folder
    named like an image is listed, so that reading it reports it); a glob for what it matches;
    a .txt file for the paths in its lines (relative to it; blank lines and # comments skipped).
    A DICOM slide of many files is listed once. Nothing is decoded.

    Raises:
        InputError: if a path is missing, or a folder, glob or list holds no image.
    """
    found: dict[Path, None] = {}
    for path in paths:
        for image in _expand(Path(path)):
            found.setdefault(image)
    if not found:
        raise InputError("no images given; name files, folders, globs or a .txt list")
    return list(found)


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        images = _in_folder(path)
        if not images:
            raise InputError(f"{path}: no images in this folder ({_suffixes()})")
        return images
    if path.suffix.lower() == LIST_SUFFIX and path.is_file():
        return _in_list(path)
    if path.exists():
        return [path]
    if glob.has_magic(str(path)):
        matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        images = [image for match in matches for image in _of_match(match)]
        if not images:
            raise InputError(f"{path}: no image matches this pattern")
        return images
    raise InputError(f"{path}: no such file or folder")


def _of_match(match: Path) -> list[Path]:
    if match.is_dir():
        return _in_folder(match)
    return [match] if match.suffix.lower() in SUFFIXES else []


def _in_list(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a list of paths, one a line ({error})") from error
    names = [line.strip() for line in lines]
    images = [path.parent / name for name in names if name and not name.startswith("#")]
    if not images:
        raise InputError(f"{path}: this list names no image")
    # A missing entry stays in: reading it reports it by name, and the others are done.
    return [image for entry in images for image in (_in_folder(entry) or [entry])]


def _in_folder(folder: Path) -> list[Path]:
    """Images in and below a folder, sorted; empty if it is not a folder."""
    if not folder.is_dir():
        return []
    images: list[Path] = []
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror or error})") from error
    mirax = {entry.stem for entry in entries if entry.suffix.lower() == ".mrxs"}
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.suffix.lower() in SUFFIXES:
            images.append(entry)
        elif entry.name not in mirax and entry.is_dir():
            images.extend(_in_folder(entry))
    return _one_per_dicom_series(images)


def _one_per_dicom_series(images: Iterable[Path]) -> list[Path]:
    """Keep, of the .dcm files of one slide, the largest: the level with the finest pixels."""
    kept: list[Path] = []
    largest: dict[tuple[Path, bytes], int] = {}
    for image in images:
        series = _dicom_series(image) if image.suffix.lower() == ".dcm" else b""
        if not series:
            kept.append(image)
            continue
        key = (image.parent, series)
        if key not in largest:
            largest[key] = len(kept)
            kept.append(image)
        elif image.stat().st_size > kept[largest[key]].stat().st_size:
            kept[largest[key]] = image
    return kept


def _dicom_series(path: Path) -> bytes:
    """The SeriesInstanceUID of a DICOM file with explicit value types, or nothing."""
    try:
        with path.open("rb") as stream:
            header = stream.read(_HEADER_BYTES)
    except OSError:
        return b""
    at = header.find(_SERIES_TAG)
    if header[128:132] != b"DICM" or at < 0:
        return b""
    start = at + len(_SERIES_TAG) + 2
    return header[start : start + int.from_bytes(header[start - 2 : start], "little")]


def _suffixes() -> str:
    return ", ".join(sorted(SUFFIXES))
