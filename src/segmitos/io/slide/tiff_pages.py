"""Which of the images of a TIFF is the slide: the largest, or the one that is asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import segmitos.io.slide.tiff_scale as scales
import segmitos.io.slide.tiff_tags as tags
from segmitos.errors import InputError, UsageError
from segmitos.io.outputs import PROGRAM
from segmitos.io.slide.tiff_decode import JPEG
from segmitos.io.slide.tiff_tags import Directory, Page, damaged

LIKE_FRACTION = 0.5
"""An image with at least so much of the largest one's area could be the one that is meant."""
_MAX_DOWNSAMPLE_ERROR_PX = 1.5
_MAX_LISTED = 8
_REDUCED, _MASK = 1, 4
_IMAGEJ_COUNT = re.compile(r"^images=(\d+)", re.MULTILINE)
_RED_GREEN_BLUE = (["red", "green", "blue"], ["r", "g", "b"])


@dataclass(frozen=True)
class Chosen:
    """The image of a TIFF that is the slide.

    Attributes:
        format: what the file is.
        levels: the images of each level, finest first; several where channels are apart.
        description: text of the file's first image.
    """

    format: str
    levels: tuple[tuple[Directory, ...], ...]
    description: str


@dataclass(frozen=True)
class _Image:
    """One image of the file with its size, as far as that can be told."""

    number: int
    page: Page
    width: int
    height: int
    flags: int

    @property
    def area(self) -> int:
        return self.width * self.height


def vendor_of(first: Directory) -> str:
    """The vendor whose rules OpenSlide knows better, empty for others."""
    description, software = first.text(tags.DESCRIPTION), first.text(tags.SOFTWARE)
    if tags.NDPI in first and tags.MAKE in first:
        return "hamamatsu"
    if description.endswith("</scn>"):
        return "leica"
    if software.startswith("Philips DP") and description.endswith("</DataObject>"):
        return "philips"
    if b"<iScan" in first.content(tags.XMP)[:4096]:
        return "ventana"
    return "trestle" if software.startswith("MedScan") else ""


def choose_image(path: Path, pages: Sequence[Page], number: int | None) -> Chosen | None:
    """The image that is the slide, or None where OpenSlide knows the vendor's rules better.

    Args:
        path: for messages.
        pages: of the file.
        number: of the image that is asked for, from 1; None takes the largest.

    Raises:
        InputError: if several images could be meant, or the image is one of a stack.
        UsageError: if there is no image of that number.
    """
    first = pages[0].directory
    description = first.text(tags.DESCRIPTION)
    if first.text(tags.SOFTWARE) == PROGRAM:
        raise InputError(f"{path}: a probability map that {PROGRAM} wrote, not an image")
    images = [_sized(index + 1, page) for index, page in enumerate(pages)]
    if number is not None:
        return _numbered(path, images, number, description)
    if description.startswith("Aperio "):
        return _aperio(path, [image for image in images if image.page.directory.is_tiled])
    if vendor_of(first):
        return None
    full = [image for image in images if image.area and not image.flags & (_REDUCED | _MASK)]
    full = full or [image for image in images if image.area]
    if not full:
        raise damaged(path, "no image with a width and height")
    largest = max(full, key=lambda image: image.area)
    like = [image for image in full if image.area >= LIKE_FRACTION * largest.area]
    if description.endswith("OME>"):
        return _ome(path, largest, like, images, description)
    if len(like) > 1:
        raise _several(path, like, len(images))
    _check_contiguous(path, largest)
    return _with_levels("TIFF", largest, images, description)


def _sized(number: int, page: Page) -> _Image:
    sizes = []
    for code in (tags.WIDTH, tags.HEIGHT):
        values = page.directory.integers(code)
        sizes.append(int(values[0]) if len(values) and 0 < values[0] < 1 << 31 else 0)
    flags = page.directory.integers(tags.NEW_SUBFILE_TYPE)
    return _Image(number, page, sizes[0], sizes[1], int(flags[0]) if len(flags) else 0)


def _numbered(path: Path, images: Sequence[_Image], number: int, description: str) -> Chosen:
    if not 1 <= number <= len(images):
        raise UsageError(f"{path}: has no page {number}; it holds {_listed(images)}")
    image = images[number - 1]
    if vendor_of(images[0].page.directory):
        raise UsageError(f"{path}: pages of such a slide cannot be chosen; leave --page out")
    if not image.area:
        raise damaged(path, f"page {number} has no width and height")
    # Reduced images that follow are those of this one, up to the next that is not reduced.
    following = []
    for other in images[number:]:
        if not other.flags & _REDUCED:
            break
        following.append(other)
    return _with_levels("TIFF", image, following, description)


def _several(path: Path, like: Sequence[_Image], count: int) -> InputError:
    return InputError(
        f"{path}: {len(like)} images of like size ({_listed(like)}): fields, channels, focal "
        f"planes or times? choose one with --page N, 1 to {count}"
    )


def _listed(images: Sequence[_Image]) -> str:
    shown = [f"page {i.number}: {i.width} x {i.height} px" for i in images[:_MAX_LISTED]]
    return ", ".join([*shown, *(["..."] if len(images) > _MAX_LISTED else [])])


def _aperio(path: Path, tiled: Sequence[_Image]) -> Chosen | None:
    """An SVS: its tiled images are the slide, the others a thumbnail, a label, an overview."""
    directories = [image.page.directory for image in tiled]
    jpeg = all(d.integers(tags.COMPRESSION)[:1].tolist() == [JPEG] for d in directories)
    whole = all(d.integers(tags.TILE_COUNTS).all() for d in directories)
    if not tiled or not jpeg or not whole:
        # JPEG 2000 in Aperio's own colors, and tiles that the scanner left out.
        return None
    largest = max(tiled, key=lambda image: image.area)
    if not largest.area:
        raise damaged(path, "no image with a width and height")
    levels = _pyramid(
        largest, [(image.width, image.height, image.page.directory) for image in tiled]
    )
    return Chosen("aperio", levels, largest.page.directory.text(tags.DESCRIPTION))


def _ome(
    path: Path,
    largest: _Image,
    like: Sequence[_Image],
    images: Sequence[_Image],
    description: str,
) -> Chosen:
    """An OME-TIFF: what its text says of the images of the largest one's size."""
    if "BinaryOnly" in description:
        raise InputError(
            f"{path}: part of an OME-TIFF whose description lies in another file; convert it to "
            "one file, e.g. with bfconvert"
        )
    size = (largest.width, largest.height)
    found = scales.ome_images(description, *size)
    if not found:
        if len(like) > 1:
            raise _several(path, like, len(images))
        return _with_levels("OME-TIFF", largest, images, description)
    if len(found) > 1:
        raise _several(path, like, len(images))
    axes, names = found[0]
    stack = axes["Z"] * axes["T"]
    if axes["C"] > 1 and [name.strip().lower() for name in names] not in _RED_GREEN_BLUE:
        named = f" ({', '.join(names)})" if any(names) else ""
        raise InputError(
            f"{path}: {axes['C']} separate channels{named}, as in fluorescence; only brightfield "
            "RGB or grey images are read"
        )
    same = [image for image in like if (image.width, image.height) == size]
    if stack > 1:
        raise _several(path, same, len(images))
    if len(same) < axes["C"]:
        raise damaged(path, f"{len(same)} of {axes['C']} channels; do the others lie elsewhere?")
    if len(same) > axes["C"] or len(like) > len(same):
        raise _several(path, like, len(images))
    single = [
        _with_levels("OME-TIFF", image, images if axes["C"] == 1 else (), "") for image in same
    ]
    levels = tuple(
        tuple(level[0] for level in several)
        for several in zip(*(one.levels for one in single), strict=False)
    )
    return Chosen("OME-TIFF", levels, description)


def _check_contiguous(path: Path, image: _Image) -> None:
    """Refuse stacks that one directory stands for. Raises InputError."""
    directory = image.page.directory
    text = directory.text(tags.DESCRIPTION)
    count = directory.count(tags.STK_PLANES)
    if text.startswith("ImageJ=") and (match := _IMAGEJ_COUNT.search(text)):
        count = int(match.group(1)[:9])
    elif text.startswith('{"shape"'):
        count = _shaped_count(text, image)
    depth = directory.integer(tags.IMAGE_DEPTH, 1)
    if max(count, depth) > 1:
        raise InputError(
            f"{path}: {max(count, depth)} images of like size in a stack (channels, focal planes "
            "or times); save the one that is meant as an image of its own"
        )


def _shaped_count(text: str, image: _Image) -> int:
    """How many images a shape that tifffile wrote stands for."""
    try:
        shape = json.loads(text)["shape"]
        total = 1
        for side in shape:
            total *= int(side)
    except (ValueError, KeyError, TypeError, RecursionError):
        return 1
    samples = image.page.directory.integers(tags.SAMPLES)
    return total // (image.area * max(1, int(samples[0]) if len(samples) else 1))


def _with_levels(kind: str, image: _Image, others: Sequence[_Image], description: str) -> Chosen:
    """An image with its pyramid: the images below it, and reduced ones of the file that fit."""
    directory = image.page.directory
    smaller = [_sized(0, Page(below, ())) for below in image.page.below]
    smaller += [other for other in others if other is not image and other.flags & _REDUCED]
    fitting = [(one.width, one.height, one.page.directory) for one in smaller if one.area]
    if kind == "TIFF" and directory.is_tiled:
        kind = "tiled TIFF"
    return Chosen(kind, _pyramid(image, fitting), description)


def _pyramid(
    full: _Image, smaller: Sequence[tuple[int, int, Directory]]
) -> tuple[tuple[Directory, ...], ...]:
    """The image and its true reductions, finest first."""
    levels = [(full.page.directory,)]
    last = full.width
    for width, height, directory in sorted(smaller, key=lambda one: -one[0]):
        fits = abs(full.height * width / full.width - height) <= _MAX_DOWNSAMPLE_ERROR_PX
        if 0 < width < last and height and fits:
            levels.append((directory,))
            last = width
    return tuple(levels)
