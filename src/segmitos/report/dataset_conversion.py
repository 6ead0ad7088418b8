"""Data sets written in the `points` layout: images, tables of points, regions, scale."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from filecmp import cmp
from pathlib import Path

import numpy as np

from segmitos.errors import DataError, OutputError, ScaleError
from segmitos.io.datasets import Case
from segmitos.io.datasets.table import image_header
from segmitos.io.files import new_file, write_text
from segmitos.io.points.annotations import Annotations
from segmitos.io.points.csv_points import csv_text
from segmitos.io.points.geojson_features import collection_text, regions_features
from segmitos.io.text import reason_of


def convert_dataset(cases: Sequence[Case], out: Path) -> int:
    """Write cases as a `points` folder: each image beside a CSV of its points.

    Images are copied as they are; a slide's images lie in a folder named after it, with their
    scale in `mpp.txt`, their laboratory in `laboratory.txt`, and their patient in `patient.txt`
    where that is not the slide. Reviewed regions become `IMAGE.regions.geojson`, confidence a
    column. Pixel masks are not part of the format.

    Returns:
        The number of images written.

    Raises:
        DataError: for an image that is missing, two images of one name, masses (which need radii).
        OutputError: where `out` cannot be written.
        ScaleError: where the images of one slide differ in scale.
    """
    targets = _targets(cases, out)
    texts = _texts(targets)
    _check_place(targets, texts, out)
    for target, case in targets.items():
        _copy(case.image, target.parent / f"{target.name}{case.image.suffix}")
    for path, text in texts.items():
        write_text(path, text)
    return len(targets)


def lost_in_conversion(cases: Sequence[Case]) -> list[str]:
    """Say what of cases `convert_dataset` cannot write, a line each."""
    masks = sum(case.mask is not None for case in cases)
    crops = sum(case.centered_crop for case in cases)
    scales = sum(case.override_mpp for case in cases)
    lines = (
        (masks, "with pixel masks, which are not written: mitoses become points"),
        (
            crops,
            "cut round a mitosis, which is not written: training and validation take them for "
            "whole fields",
        ),
        (
            scales,
            "with the scale of --override-mpp: a scale that their own files state comes before "
            "mpp.txt, so give --mpp and --override-mpp again",
        ),
    )
    return [f"{count} image{'s' * (count > 1)} {text}" for count, text in lines if count]


def _targets(cases: Sequence[Case], out: Path) -> dict[Path, Case]:
    """Return the cases by where their images go, without a suffix.

    Raises:
        DataError: for masses, two images of one name, a slide of two laboratories.
        ScaleError: where the images of one slide differ in scale.
    """
    first_of: dict[Path, Case] = {}
    targets: dict[Path, Case] = {}
    for case in cases:
        if case.radii_px is not None:
            raise DataError(f"{case.name} holds masses; their radii cannot be written as points")
        folder = out / case.slide.replace("/", "_")
        first = first_of.setdefault(folder, case)
        if first.mpp != case.mpp:
            raise ScaleError(
                f"the images of slide {case.slide} differ in scale ({first.mpp} and "
                f"{case.mpp} um/px); convert them apart with --cases, or give one --mpp"
            )
        if first.laboratory != case.laboratory:
            raise DataError(
                f"slide {case.slide} is of two laboratories, {first.laboratory} and "
                f"{case.laboratory}; convert them apart with --cases"
            )
        stem = case.name.rpartition("/")[2].removesuffix(case.image.suffix)
        other = targets.setdefault(folder / stem, case)
        if other is not case:
            raise DataError(f"{case.image} and {other.image} would both become {folder / stem}")
    return targets


def _texts(targets: Mapping[Path, Case]) -> dict[Path, str]:
    """Return the content of the text files: of each image, and of each slide's folder."""
    several = len({case.dataset for case in targets.values()}) > 1
    texts: dict[Path, str] = {}
    for target, case in targets.items():
        texts[target.parent / f"{target.name}.csv"] = csv_text(_annotations(case))
        if case.regions is not None:
            beside = target.parent / f"{target.name}.regions.geojson"
            texts[beside] = _regions_text(case, target.name)
        if case.mpp is not None:
            texts[target.parent / "mpp.txt"] = f"{case.mpp!r}\n"
        if case.laboratory:
            texts[target.parent / "laboratory.txt"] = f"{case.laboratory}\n"
        if case.patient and (several or case.patient != case.slide):
            # Patients of one number in two data sets are two.
            patient = case.group if several else case.patient
            texts[target.parent / "patient.txt"] = f"{patient}\n"
    return texts


def _check_place(targets: Mapping[Path, Case], texts: Mapping[Path, str], out: Path) -> None:
    """Refuse to write into the data set itself, or over an image or a text that is another one.

    Raises:
        OutputError: naming the file in the way.
    """
    for target, case in targets.items():
        if case.image.resolve().is_relative_to(out.resolve()):
            raise OutputError(f"{out} holds {case.image}, which is to be converted; name another")
        image = target.parent / f"{target.name}{case.image.suffix}"
        if image.exists() and case.image.is_file() and not cmp(image, case.image, shallow=False):
            raise OutputError(f"{image} is there already and another image; name an empty folder")
    for path, text in texts.items():
        if path.exists() and not (path.is_file() and path.read_bytes() == text.encode("utf-8")):
            raise OutputError(f"{path} is there already and differs; name an empty folder")


def _annotations(case: Case) -> Annotations:
    """Return a case's points with their labels and what is known of them."""
    found = Annotations.from_groups(case.mitoses_xy, case.hard_negatives_xy, case.unsure_xy)
    confidence = np.full(len(found), np.nan)
    if case.confidence is not None:
        confidence[: len(case.mitoses_xy)] = case.confidence
    return Annotations(found.xy, found.labels, confidence=confidence)


def _regions_text(case: Case, name: str) -> str:
    """Return a case's regions as GeoJSON in QuPath's frame."""
    assert case.regions is not None
    _, _, (right, down) = image_header(case.image)
    features = regions_features(case.regions.moved(-right, -down), name)
    about = {"mpp": case.mpp, "name": name}
    return collection_text({"segmitos": about, "features": features})


def _copy(image: Path, target: Path) -> None:
    """Copy a file whole or not at all; slides are too large to be held in memory."""
    try:
        source = image.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {image}: {reason_of(error)}") from error
    with source, new_file(target) as aside, aside.open("xb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
