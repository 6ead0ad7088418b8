"""Which of the images of a TIFF is the slide: the largest, or the one that is asked for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import segmitos.io.slide.tiff_scale as scales
import segmitos.io.slide.tiff_tags as tags
from segmitos.errors import InputError, UsageError
from segmitos.io.outputs import PROGRAM
from segmitos.io.slide.tiff_decode import JPEG
from segmitos.io.slide.tiff_tags import Directory, damaged

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
        description: text that tells its scale.
        full: the image that it is a smaller copy of, None where it is none.
    """

    format: str
    levels: tuple[tuple[Directory, ...], ...]
    description: str
    full: Directory | None = None


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


def choose_image(path: Path, images: Sequence[Directory], number: int | None) -> Chosen | None:
    """The image that is the slide, or None where OpenSlide knows the vendor's rules better.

    Args:
        path: for messages.
        images: of the file.
        number: of the image that is asked for, from 1; None takes the largest.

    Raises:
        InputError: if several images could be meant, or the image is one of a stack.
        UsageError: if there is no image of that number.
    """
    first = images[0]
    description = first.text(tags.DESCRIPTION)
    if first.text(tags.SOFTWARE) == PROGRAM:
        raise InputError(f"{path}: a probability map that {PROGRAM} wrote, not an image")
    if number is not None:
        return _numbered(path, images, number)
    # Without tiles it is a region that was saved from a slide, an image like others.
    if description.startswith("Aperio ") and any(image.is_tiled for image in images):
        return _aperio(path, images)
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
    return _with_levels("TIFF", largest, images, _text_of(largest, first))


def _numbered(path: Path, images: Sequence[Directory], number: int) -> Chosen:
    if not 1 <= number <= len(images):
        raise UsageError(f"{path}: has no page {number}; it holds {_listed(images)}")
    image = images[number - 1]
    if vendor_of(images[0]):
        raise UsageError(f"{path}: pages of such a slide cannot be chosen; leave --page out")
    if not image.area:
        raise damaged(path, f"page {number} has no width and height")
    # Reduced images that follow are those of this one, up to the next that is not reduced.
    following = []
    for other in images[number:]:
        if not other.flags & _REDUCED:
            break
        following.append(other)
    chosen = _with_levels("TIFF", image, following, _text_of(image, images[0]))
    earlier = [other for other in images[:number] if not other.flags & _REDUCED]
    return replace(chosen, full=earlier[-1]) if image.flags & _REDUCED and earlier else chosen


def _several(path: Path, like: Sequence[Directory], count: int) -> InputError:
    return InputError(
        f"{path}: {len(like)} images of like size ({_listed(like)}): fields, channels, focal "
        f"planes or times? choose one with --page N, 1 to {count}"
    )


def _listed(images: Sequence[Directory]) -> str:
    shown = [f"page {i.number}: {i.size[0]} x {i.size[1]} px" for i in images[:_MAX_LISTED]]
    return ", ".join([*shown, *(["..."] if len(images) > _MAX_LISTED else [])])


def _aperio(path: Path, images: Sequence[Directory]) -> Chosen | None:
    """An SVS: its tiled images are the slide, the others a thumbnail, a label, an overview."""
    tiled = [image for image in images if image.is_tiled]
    largest = max(tiled, key=lambda image: image.area)
    like = [image for image in tiled if image.area >= LIKE_FRACTION * largest.area]
    if len(like) > 1 and largest.area:
        raise _several(path, like, len(images))
    jpeg = all(one.integers(tags.COMPRESSION)[:1].tolist() == [JPEG] for one in tiled)
    whole = all(one.integers(tags.TILE_COUNTS).all() for one in tiled)
    if not jpeg or not whole:
        # JPEG 2000 in Aperio's own colors, and tiles that the scanner left out.
        return None
    if not largest.area:
        raise damaged(path, "no image with a width and height")
    return Chosen("aperio", _pyramid(largest, tiled), largest.text(tags.DESCRIPTION))


def _ome(
    path: Path,
    largest: Directory,
    like: Sequence[Directory],
    images: Sequence[Directory],
    description: str,
) -> Chosen:
    """An OME-TIFF: what its text says of the images of the largest one's size."""
    if "BinaryOnly" in description:
        raise InputError(
            f"{path}: part of an OME-TIFF whose description lies in another file; convert it to "
            "one file, e.g. with bfconvert"
        )
    found = scales.ome_images(description, *largest.size)
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
            "RGB or gray images are read"
        )
    same = [image for image in like if image.size == largest.size]
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


def _check_contiguous(path: Path, image: Directory) -> None:
    """Refuse stacks that one directory stands for. Raises InputError."""
    text = image.text(tags.DESCRIPTION)
    count = image.count(tags.STK_PLANES)
    if text.startswith("ImageJ=") and (match := _IMAGEJ_COUNT.search(text)):
        count = int(match.group(1)[:9])
    elif text.startswith('{"shape"'):
        count = _shaped_count(text, image)
    depth = image.integer(tags.IMAGE_DEPTH, 1)
    if max(count, depth) > 1:
        raise InputError(
            f"{path}: {max(count, depth)} images of like size in a stack (channels, focal planes "
            "or times); save the one that is meant as an image of its own"
        )


def _shaped_count(text: str, image: Directory) -> int:
    """How many images a shape that tifffile wrote stands for."""
    try:
        total = math.prod(int(side) for side in json.loads(text)["shape"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return 1
    samples = image.integers(tags.SAMPLES)
    return total // (image.area * max(1, int(samples[0]) if len(samples) else 1))


def _text_of(image: Directory, first: Directory) -> str:
    """The text that tells an image's scale: its own, or that of a first image of its size."""
    own = image.text(tags.DESCRIPTION)
    return own or (first.text(tags.DESCRIPTION) if image.size == first.size else "")


def _with_levels(
    kind: str, image: Directory, others: Sequence[Directory], description: str
) -> Chosen:
    """An image with its pyramid: the images below it, and reduced ones of the file that fit."""
    reduced = [other for other in others if other is not image and other.flags & _REDUCED]
    if kind == "TIFF" and image.is_tiled:
        kind = "tiled TIFF"
    return Chosen(kind, _pyramid(image, [*image.below, *reduced]), description)


def _pyramid(full: Directory, smaller: Sequence[Directory]) -> tuple[tuple[Directory, ...], ...]:
    """The image and its true reductions, finest first."""
    levels = [(full,)]
    last = full.size[0]
    for image in sorted(smaller, key=lambda one: -one.size[0]):
        width, height = image.size
        fits = abs(full.size[1] * width / full.size[0] - height) <= _MAX_DOWNSAMPLE_ERROR_PX
        # Writers that turn the image by a tag may leave it out of the smaller ones.
        turned = _orientation(image) != _orientation(full)
        if 0 < width < last and height and fits and not turned:
            levels.append((image,))
            last = width
    return tuple(levels)


def _orientation(image: Directory) -> int:
    return image.integer(tags.ORIENTATION, 1, maximum=1 << 16)
