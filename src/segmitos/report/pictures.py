"""Pictures that a report needs of the slide itself, and the histogram of its scores.

Drawn with Pillow alone, so that detection on one field does not wait for a plotting library.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segmitos.counting.windows import Hotspot
from segmitos.errors import DataError
from segmitos.io.files import image_bytes, json_text
from segmitos.io.points.candidates import Candidates
from segmitos.io.slide import READERS, Slide
from segmitos.report.crops import crop_jpeg, read_crop

if TYPE_CHECKING:
    from PIL import Image

OVERVIEW, CROPS = "overview.jpg", "crops.json"
OVERVIEW_PX = 1400
CROP_PX = 176
CROP_UM = 64.0
MAX_CROPS = 96
MAX_CANDIDATE_CROPS = 12


def overview(slide: Slide) -> bytes:
    """Return the whole image as JPEG, without any mark."""
    return image_bytes(slide.thumbnail(OVERVIEW_PX), "jpg", 82, drawn=True)


def size_of(picture: bytes) -> tuple[int, int]:
    """Return width and height of an encoded picture. Raises DataError where it is damaged."""
    with _opened(picture) as image:
        return image.size


def shrink(picture: bytes, side_px: int) -> bytes:
    """Shrink a JPEG to a longer side of `side_px`. Raises DataError where it is damaged."""
    with _opened(picture) as image:
        image.thumbnail((side_px, side_px))
        return image_bytes(image, "jpg", 75, drawn=True)


@contextmanager
def _opened(picture: bytes) -> Iterator[Image.Image]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(picture)) as image:
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"the saved {OVERVIEW} is damaged: {error}") from error


def data_uri(picture: bytes, kind: str = "jpeg") -> str:
    """Return a picture as a page holds it."""
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode("ascii")


def choose_crops(candidates: Candidates, hotspot: Hotspot | None) -> list[int]:
    """Return what to show, by its place among the candidates.

    Those in the hotspot come first, each part by score, the highest first. Where there are more
    than fit, the hotspot has two thirds of the room, and of each part three quarters are the surest
    and the rest those nearest the threshold, since those are the ones to check. Where nothing is a
    detection, the candidates nearest to one are shown.
    """
    places = np.flatnonzero(candidates.is_detection)
    if not len(places):
        order = np.lexsort((candidates.x_px, candidates.y_px, -candidates.score))
        return [int(place) for place in order[:MAX_CANDIDATE_CROPS]]
    x, y, score = candidates.x_px[places], candidates.y_px[places], candidates.score[places]
    order = np.lexsort((x, y, -score))
    places = places[order]
    inside = np.zeros(len(places), bool)
    if hotspot is not None:
        inside = hotspot.holds(candidates.xy[places])
    rest = places[~inside]
    room = max(MAX_CROPS * 2 // 3, MAX_CROPS - len(rest))
    first = _surest_and_least_sure(places[inside], room)
    return [*first, *_surest_and_least_sure(rest, MAX_CROPS - len(first))]


def _surest_and_least_sure(places: NDArray[np.intp], room: int) -> list[int]:
    if len(places) > room:
        surest = room - room // 4
        places = np.concatenate([places[:surest], places[len(places) - (room - surest) :]])
    return [int(place) for place in places]


def crops_at(
    places: Mapping[str, tuple[float, float]],
    crops: Mapping[str, bytes],
    slide: Slide | None = None,
) -> dict[str, bytes]:
    """Return a JPEG of 64 um around each place, in their order.

    Args:
        places: level-0 positions by id.
        crops: those that there are, by id.
        slide: to read the others from; without it they are left out.
    """
    found = dict(crops)
    if slide is not None:
        others = [identity for identity in places if identity not in crops]

        def read(identity: str) -> bytes:
            pixels = read_crop(slide, *places[identity], CROP_UM, CROP_PX)
            return crop_jpeg(pixels, CROP_UM)

        with ThreadPoolExecutor(READERS) as readers:
            found.update(zip(others, readers.map(read, others), strict=True))
    return {identity: found[identity] for identity in places if identity in found}


def encode_crops(crops: dict[str, bytes]) -> bytes:
    """Return crops by id as the content of crops.json."""
    content = {key: base64.b64encode(jpeg).decode("ascii") for key, jpeg in crops.items()}
    return json_text({"um": CROP_UM, "px": CROP_PX, "crops": content}).encode("utf-8")


def decode_crops(content: bytes, where: str) -> dict[str, bytes]:
    """Read what `encode_crops` made. Raises DataError where it is damaged."""
    try:
        found = json.loads(content)["crops"]
        return {str(key): base64.b64decode(value, validate=True) for key, value in found.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{where} is damaged: {error!r}") from error


def histogram_svg(scores: NDArray[np.float64], threshold: float) -> str:
    """Return an inline SVG: a histogram of scores from 0 to 1 with the threshold drawn in."""
    width, height, base = 460, 170, 140
    counts, _ = np.histogram(scores, bins=25, range=(0, 1))
    top = max(1, int(counts.max()))
    bars = []
    for place, count in enumerate(counts):
        tall = count / top * 115
        bars.append(
            f'<rect x="{10 + place * 17.6:.1f}" y="{base - tall:.1f}" width="16" '
            f'height="{tall:.1f}" class="bar"><title>{count}</title></rect>'
        )
    x = 10 + threshold * 440
    anchor = "end" if x > width / 2 else "start"
    line = (
        f'<line x1="{x:.1f}" y1="12" x2="{x:.1f}" y2="{base}" class="cut"/>'
        f'<text x="{x + (-4 if anchor == "end" else 4):.1f}" y="20" text-anchor="{anchor}">'
        f"threshold {threshold:.3g}</text>"
    )
    ticks = "".join(
        f'<text x="{10 + value * 440:.0f}" y="158" text-anchor="middle">{value:g}</text>'
        for value in (0, 0.25, 0.5, 0.75, 1)
    )
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Histogram of scores">'
        f'<line x1="10" y1="{base}" x2="450" y2="{base}" class="axis"/>{"".join(bars)}{line}'
        f'<text x="10" y="10">{top}</text>{ticks}</svg>'
    )
