"""Which images are meant by a list of files, folders, globs, lists and tables."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from segmitos.errors import InputError
from segmitos.io.files import display_path
from segmitos.io.outputs import is_own_picture, is_result_folder
from segmitos.io.slide.dicom import DicomHeader, read_header
from segmitos.io.slide.entry import InputEntry, is_list, read_list
from segmitos.io.slide.refused import UNREAD_SUFFIXES, refused_suffix, special_file
from segmitos.io.text import listed, reason_of

SUFFIXES = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp"),
        *(".tif", ".tiff", ".btf", ".tf2", ".tf8", ".qptiff"),
        *(".svs", ".ndpi", ".mrxs", ".scn", ".dcm", ".vms", ".vmu", ".bif", ".svslide", ".czi"),
    }
)
_PICTURES = frozenset({".png", ".jpg", ".jpeg"})
_DICOM_SUFFIX = re.compile(r"|\.\d+|\.(dcm|dicom|dic)", re.IGNORECASE)
# Hamamatsu's text formats name the pictures that hold their pixels.
_HAMAMATSU = (".vms", ".vmu")
_NAMED_FILE = re.compile(rb"=\s*([^\r\n=]+\.(?:jpg|jpeg|opt|ngr))", re.IGNORECASE)
_MAX_TEXT_BYTES = 1 << 20
_NAMED = 3


def find_images(paths: Sequence[Path | str]) -> list[Path]:
    """The images meant by `paths`: the paths of `find_inputs`.

    Raises:
        InputError: as `find_inputs`, and for each path that has a problem of its own.
    """
    entries = find_inputs(paths)
    for entry in entries:
        if entry.problem:
            raise InputError(entry.problem)
    return [entry.path for entry in entries]


def find_inputs(
    paths: Sequence[Path | str],
    out: Path | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> list[InputEntry]:
    """The images meant by `paths`, each real file once, in the order given (folders sorted).

    A folder stands for the images in it and below (hidden files and folders left out); a glob for
    what it matches; a .txt file for the paths in its lines (relative to it; blank lines and #
    comments skipped); a .csv file for the rows of a table with columns path, mpp, roi, name. All
    files of one DICOM series are one slide. What this program wrote is passed over: `out`, folders
    that hold a result, pictures with its mark; so is, in folders, what is no regular file. Nothing
    is decoded.

    Args:
        paths: files, folders, globs, lists and tables.
        out: the folder that results go to.
        on_note: told in a line of images that were passed over, as they are of kinds not read.

    Returns:
        One entry for each image. Where several paths are given, one that is missing or holds no
        image is an entry with a `problem`, so that it does not end the others.

    Raises:
        InputError: if the only path is missing, no regular file, or holds no image; if a file is
            named twice with different scales, regions or names.
    """
    search = _Search(out)
    found: dict[str, InputEntry] = {}
    for path in dict.fromkeys(Path(one) for one in paths):
        try:
            entries = search.expand(path)
        except InputError as error:
            if len(paths) == 1:
                raise
            entries = [InputEntry(path, problem=str(error))]
        for entry in entries:
            key = os.path.realpath(entry.path)
            earlier = found.setdefault(key, entry)
            if earlier is not entry and not entry.problem:
                found[key] = _merged(earlier, entry)
    if search.unread:
        on_note(_passed_over(search.unread))
    if not found and paths:
        raise InputError(f"{paths[0]}: only what segmitos wrote, which is no input")
    if not found:
        raise InputError("no images given; name files, folders, globs, a .txt list or .csv table")
    return list(found.values())


def _passed_over(images: Sequence[Path]) -> str:
    """Count and name images that are not read."""
    shown = listed([display_path(image) for image in images], _NAMED)
    noun = "image of a kind that is" if len(images) == 1 else "images of kinds that are"
    return f"passed over {len(images)} {noun} not read: {shown}; convert to PNG or TIFF"


def _merged(first: InputEntry, second: InputEntry) -> InputEntry:
    """One file that is named twice: what either says of it.

    Raises:
        InputError: where they contradict each other.
    """
    values = {}
    for field in ("mpp", "roi", "name"):
        one, other = getattr(first, field), getattr(second, field)
        if one is not None and other is not None and one != other:
            raise InputError(
                f"{second.path}: named twice, once with {field} {one}, once with {field} {other}"
            )
        values[field] = other if one is None else one
    return replace(first, **values)


class _Search:
    """One call of `find_inputs`: remembers the folders it has been in.

    Attributes:
        unread: images that were passed over, as they are of kinds not read.
    """

    def __init__(self, out: Path | None) -> None:
        self._out = None if out is None else os.path.realpath(out)
        self._passed_over = 0
        self.unread: list[Path] = []
        self._results: dict[str, bool] = {}
        self._series: dict[str, dict[str, list[tuple[Path, DicomHeader]]]] = {}

    def expand(self, path: Path) -> list[InputEntry]:
        """The inputs that one path of the user's means; none where it is an output."""
        if os.path.isdir(path):
            return self._folder(path)
        if is_list(path) and os.path.isfile(path):
            return self._list(path)
        if os.path.lexists(path):
            return self._named_file(path)
        if glob.has_magic(str(path)):
            return self._glob(path)
        raise InputError(f"{path}: no such file or folder")

    def _folder(self, path: Path) -> list[InputEntry]:
        if self._is_result(path):
            return []
        passed_over = self._passed_over
        images = list(self._walk(path, set()))
        if not images and self._passed_over > passed_over:
            return []
        if not images and (reason := refused_suffix(path.name)):
            raise InputError(f"{path}: {reason}")
        if not images:
            kinds = self._only_unread() or f" ({', '.join(sorted(SUFFIXES))})"
            raise InputError(f"{path}: no images in this folder{kinds}")
        return self._entries(images)

    def _list(self, path: Path) -> list[InputEntry]:
        found: list[InputEntry] = []
        for entry in read_list(path):
            # What is missing stays in: reading it reports it by name, and the others are done.
            images = [entry.path]
            if kind := special_file(entry.path):
                problem = f"{entry.path}: {kind}, not a regular file"
                found.append(replace(entry, problem=problem))
                continue
            if self._is_result(entry.path) or self._is_output(entry.path):
                continue
            if os.path.isdir(entry.path):
                images = list(self._walk(entry.path, set())) or images
            found.extend(self._entries(images, entry))
        return found

    def _named_file(self, path: Path) -> list[InputEntry]:
        if kind := special_file(path):
            raise InputError(f"{path}: {kind}, not a regular file")
        return [] if self._is_output(path) else self._entries([path])

    def _glob(self, path: Path) -> list[InputEntry]:
        matches = [Path(name) for name in sorted(glob.glob(_escaped(path), recursive=True))]
        images: list[Path] = []
        for match in matches:
            if os.path.isdir(match):
                images.extend(self._walk(match, set()))
            elif _is_image_name(match) and not special_file(match) and not self._is_output(match):
                images.append(match)
            elif match.suffix.lower() in UNREAD_SUFFIXES:
                self.unread.append(match)
        if not images:
            raise InputError(f"{path}: no image matches this pattern{self._only_unread()}")
        return self._entries(images)

    def _walk(self, folder: Path, seen: set[str]) -> Iterator[Path]:
        """Images in and below a folder, sorted; each real folder once."""
        real = os.path.realpath(folder)
        if self._is_result(folder) or (seen and real == self._out):
            self._passed_over += 1
            return
        if real in seen:
            return
        top = not seen
        seen.add(real)
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            if top:
                raise InputError(f"{folder}: cannot be listed ({reason_of(error)})") from error
            yield folder
            return
        companions = _companions(entries)
        for entry in entries:
            if entry.name.startswith(".") or entry.name in companions:
                continue
            if os.path.isdir(entry):
                below = list(self._walk(entry, seen))
                # An empty folder named like an image is listed: reading it reports it.
                named = entry.suffix.lower() in SUFFIXES and not self._is_result(entry)
                yield from below or ([entry] if named else [])
            elif _is_image_name(entry):
                if not special_file(entry) and not _is_drawn(entry):
                    yield entry
            elif _dicom_header(entry) is not None:
                yield entry
            elif entry.suffix.lower() in UNREAD_SUFFIXES:
                self.unread.append(entry)

    def _only_unread(self) -> str:
        return f"; {_passed_over(self.unread)}" if self.unread else ""

    def _entries(self, images: Iterable[Path], row: InputEntry | None = None) -> list[InputEntry]:
        """One entry for each image, with what a table's row says; one for each DICOM series."""
        found: dict[Path, InputEntry] = {}
        for image in images:
            entry = self._dicom_slide(image) or InputEntry(image)
            if row is not None:
                entry = replace(entry, mpp=row.mpp, roi=row.roi, name=row.name)
            found.setdefault(entry.path, entry)
        if row is not None and row.name and len(found) > 1:
            raise InputError(f"{row.path}: {len(found)} images cannot all be named {row.name!r}")
        return list(found.values())

    def _dicom_slide(self, image: Path) -> InputEntry | None:
        """The entry of the slide that a DICOM file is part of: its finest level, its name."""
        own = _dicom_header(image)
        if own is None:
            return None
        folder = os.path.realpath(image.parent)
        if folder not in self._series:
            self._series[folder] = _series_in(image.parent)
        series = self._series[folder]
        files = series.get(own.series) or [(image, own)]
        finest = max(files, key=_fineness)[0]
        name = os.path.basename(folder) if len(series) <= 1 else own.series
        return InputEntry(finest, slide_name=name or own.series)

    def _is_result(self, folder: Path) -> bool:
        real = os.path.realpath(folder)
        if real not in self._results:
            self._results[real] = is_result_folder(Path(real))
        return self._results[real]

    def _is_output(self, path: Path) -> bool:
        """Whether a file lies in a result, or was drawn by this program."""
        return self._is_result(path.parent) or _is_drawn(path)


def _dicom_header(path: Path) -> DicomHeader | None:
    """The header of a DICOM file that is part of a series, None for any other path."""
    if not _DICOM_SUFFIX.fullmatch(path.suffix) or not os.path.isfile(path):
        return None
    header = read_header(path)
    return header if header is not None and header.series else None


def _fineness(file: tuple[Path, DicomHeader]) -> tuple[bool, int, int]:
    """What the file that stands for a DICOM slide has most of: levels before labels, then size."""
    path, header = file
    size = os.path.getsize(path) if os.path.exists(path) else 0
    return header.is_volume, header.width * header.height, size


def _series_in(folder: Path) -> dict[str, list[tuple[Path, DicomHeader]]]:
    """The DICOM files that lie in a folder, by series, each sorted by name."""
    series: dict[str, list[tuple[Path, DicomHeader]]] = {}
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return {}
    for entry in entries:
        if (header := _dicom_header(entry)) is not None:
            series.setdefault(header.series, []).append((entry, header))
    return series


def _companions(entries: Sequence[Path]) -> set[str]:
    """Names beside slides that belong to them: folders of MIRAX and VSI, pictures of VMS."""
    names: set[str] = set()
    for entry in entries:
        suffix = entry.suffix.lower()
        if suffix == ".mrxs":
            names.add(entry.stem)
        elif suffix == ".vsi":
            names.add(f"_{entry.stem}_")
        elif suffix in _HAMAMATSU and os.path.isfile(entry):
            try:
                with entry.open("rb") as stream:
                    text = stream.read(_MAX_TEXT_BYTES)
            except OSError:
                continue
            names.update(os.fsdecode(name.strip()) for name in _NAMED_FILE.findall(text))
    return names


def _is_image_name(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES or refused_suffix(path.name) is not None


def _is_drawn(path: Path) -> bool:
    """Tell whether a file is a picture that this program drew."""
    return path.suffix.lower() in _PICTURES and os.path.isfile(path) and is_own_picture(path)


def _escaped(path: Path) -> str:
    """The pattern, with the part of it that is there as it stands taken literally."""
    parts = path.parts
    there = 0
    while there < len(parts) - 1 and os.path.isdir(Path(*parts[: there + 1])):
        there += 1
    if not there:
        return str(path)
    return os.path.join(glob.escape(str(Path(*parts[:there]))), *parts[there:])
