"""The files of a result: what is measured on the slide once, and what follows from it.

Whatever follows can be made again from the saved files with other windows or a higher score, and is
then the same, byte for byte, as if detection had run with these settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segmitos.counting.saved import (
    TISSUE,
    SavedResult,
    change_settings,
    encode_tissue,
    read_saved,
)
from segmitos.errors import InputError, SegMitosError
from segmitos.io.outputs import DETECTIONS_CSV, DETECTIONS_GEOJSON, REPORT, SUMMARY
from segmitos.io.points.candidates import CANDIDATES
from segmitos.io.points.geojson_features import collection_text
from segmitos.io.slide import Slide
from segmitos.report.html import render_report
from segmitos.report.pictures import (
    CROPS,
    OVERVIEW,
    choose_crops,
    crops_at,
    decode_crops,
    encode_crops,
    overview,
)


def result_files(saved: SavedResult, slide: Slide) -> dict[str, bytes]:
    """Return all files of a result, by name, but run.json and the probability map."""
    measured = {TISSUE: encode_tissue(saved.tissue), OVERVIEW: overview(slide)}
    return measured | derived_files(saved, measured[OVERVIEW], {}, slide)


def derived_files(
    saved: SavedResult, picture: bytes, crops: Mapping[str, bytes], slide: Slide | None = None
) -> dict[str, bytes]:
    """Return the files that follow from a result's candidates and settings.

    Args:
        saved: the result.
        picture: its overview, JPEG.
        crops: by id, those that there are.
        slide: to read the other crops from; without it they are left out, and the report says so.
    """
    summary = saved.summary
    detections = saved.candidates.detections()
    windows = {"Hotspot": summary.hotspot, "Ten fields": summary.fields}
    outlines = {name: window.outline_xy() for name, window in windows.items() if window}
    kind, (x, y, *_) = str(summary.settings["qupath"]), summary.bounds_px
    geojson = collection_text(detections.to_geojson(kind, outlines, (float(x), float(y))))
    shown = shown_crops(saved, crops, slide)
    return {
        CANDIDATES: saved.candidates.to_csv().encode("utf-8"),
        DETECTIONS_CSV: detections.to_csv().encode("utf-8"),
        DETECTIONS_GEOJSON: geojson.encode("utf-8"),
        SUMMARY: summary.to_json(),
        CROPS: encode_crops(shown),
        REPORT: render_report(saved, picture, shown).encode("utf-8"),
    }


def shown_crops(
    saved: SavedResult, crops: Mapping[str, bytes], slide: Slide | None = None
) -> dict[str, bytes]:
    """Return the crops of a report, in its order; those not among `crops` are read from `slide`."""
    candidates = saved.candidates
    chosen = choose_crops(candidates, saved.summary.hotspot)
    places = {candidates.ids[place]: tuple(candidates.xy[place].tolist()) for place in chosen}
    return crops_at(places, crops, slide)


def recounted_files(
    folder: Path, changes: dict[str, Any], image: Path | None = None
) -> dict[str, bytes]:
    """Return the files of a result with other settings, without running the networks.

    Args:
        folder: of the result.
        changes: values of `counting.saved.COUNT_SETTINGS`.
        image: the input, for crops that the result has not saved; it may be gone.

    Raises:
        InputError, DataError: for a folder that is not whole; UsageError: for a bad setting.
    """
    saved = change_settings(read_saved(folder), changes)
    picture, crops = read_pictures(folder)
    chosen = choose_crops(saved.candidates, saved.summary.hotspot)
    if image is None or all(saved.candidates.ids[place] in crops for place in chosen):
        return derived_files(saved, picture, crops)
    slide = open_image(saved, image)
    if slide is None:
        return derived_files(saved, picture, crops)
    with slide:
        return derived_files(saved, picture, crops, slide)


def open_image(saved: SavedResult, image: Path) -> Slide | None:
    """Open a result's input again; None where it is gone or is another image by now."""
    summary = saved.summary
    try:
        if image.stat().st_size != summary.input.get("bytes"):
            return None
        slide = Slide.open(image, summary.mpp, True, summary.settings.get("page"))
    except (OSError, SegMitosError):
        return None
    if (slide.width, slide.height) != (summary.width_px, summary.height_px):
        slide.close()
        return None
    return slide


def read_pictures(folder: Path) -> tuple[bytes, dict[str, bytes]]:
    """Return the overview and the crops of a result. Raises InputError, DataError."""
    for name in (OVERVIEW, CROPS):
        if not (folder / name).is_file():
            raise InputError(f"{folder} lacks {name}; run detect again with --overwrite")
    crops = decode_crops((folder / CROPS).read_bytes(), str(folder / CROPS))
    return (folder / OVERVIEW).read_bytes(), crops


def render_saved_report(folder: Path) -> str:
    """Return the HTML of a saved result. Raises InputError, DataError where it is not whole."""
    saved = read_saved(folder)
    picture, crops = read_pictures(folder)
    try:
        return render_report(saved, picture, shown_crops(saved, crops))
    except (LookupError, ValueError, TypeError, OSError) as error:
        raise InputError(f"{folder}: its saved result is damaged ({error!r})") from error
