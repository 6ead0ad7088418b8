"""The reference of the domain check: made, and measured.

    python -m experiments.domain --data DATA -o experiments/domain.json
    python -m experiments.domain --into src/segmitos/detection/models/lite.segmitos

DATA holds the folders of `FIELDS`. Fields of every laboratory are measured. The reference is made
of members of each, its limits of laboratories left out. False alarms are counted on laboratories
left out, catches on odd inputs that are made here of the same fields, and on pictures that are no
tissue (scikit-image's). Writes the reference and prints the tables of docs/domain.md. The second
command puts the reference of experiments/domain.json into model files.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from segmitos.console import run_program
from segmitos.detection.domain import (
    MAX_SQUARES,
    SQUARE_PX,
    DomainFeatures,
    DomainReference,
    Neighbors,
    ScaleRegression,
    measure_domain,
)
from segmitos.detection.model_file import parse_model_file, write_model_file
from segmitos.detection.stain import OD_TABLE
from segmitos.io.files import jpeg_copy, write_text
from segmitos.io.slide import Slide

REFERENCE = Path(__file__).with_name("domain.json")
MPP = 0.25
# laboratory: pattern of its fields, um per pixel
FIELDS = {
    "mitos-atypia-14": ("mitos-atypia-14/H*/frames/x40/*.jpg", 0.2273),
    "mitos12": ("mitos12/*/*.jpg", 0.2456),
    "midesec": ("midesec/*.jpg", 0.25),
    "ucsb-breast": ("background/ucsb-breast/*.jpg", 0.31),
    "monuseg": ("background/monuseg/*.jpg", 0.25),
    "tnbc": ("background/tnbc/*.jpg", 0.25),
}
LARGEST_PX = 1200
FIELDS_A_LABORATORY = 40
MEMBERS_A_LABORATORY = 16
ODD_FIELDS_A_LABORATORY = 3
MAGNIFICATIONS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
RIDGE = 10.0
# Weights of `spread_of`, chosen by what is caught of the odd inputs below.
SPREADS = {"stain": (1.0, 0.6), "focus": (0.0, 1.0)}
# Of fields of a laboratory left out, at most this fraction is warned of.
FALSE_ALARMS = 0.02

Pixels = NDArray[np.uint8]
# Ruifrok and Johnston 2001: optical density of hematoxylin, eosin and DAB in red, green, blue.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
_TO_STAINS = np.linalg.inv(_STAINS)


@dataclass(frozen=True)
class Measured:
    """One input that was measured."""

    laboratory: str
    kind: str
    features: DomainFeatures | None


@dataclass(frozen=True)
class Magnified:
    """A field of a laboratory, magnified so many times."""

    laboratory: str
    factor: float
    features: DomainFeatures


def features_of(image: Pixels) -> DomainFeatures | None:
    """Measure an image (h, w, 3) at the model's scale as detection does."""
    from segmitos.detection.tissue import find_tissue
    from segmitos.detection.view import SlideView

    with Slide.from_array(image, MPP) as slide:
        view = SlideView(slide, MPP)
        tissue = find_tissue(view.overview())
        return measure_domain(view.squares_of_tissue(tissue, MAX_SQUARES, SQUARE_PX))


def read_field(path: Path, mpp: float) -> Pixels:
    """Read a field at the model's scale."""
    with Slide.open(path, mpp=mpp) as slide:
        width = min(LARGEST_PX, int(slide.width * mpp / MPP))
        height = min(LARGEST_PX, int(slide.height * mpp / MPP))
        return slide.read(0, 0, width, height, mpp=MPP)


def _magnified(factor: float) -> Callable[[Pixels], Pixels]:
    def change(image: Pixels) -> Pixels:
        # A part that is enough for all squares.
        side = int(max(400, 1400 / factor))
        image = image[:side, :side]
        size = (max(200, round(image.shape[1] * factor)), max(200, round(image.shape[0] * factor)))
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))

    return change


def _blurred(sigma_px: float) -> Callable[[Pixels], Pixels]:
    return lambda image: np.asarray(
        Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma_px))
    )


def _stained(change: Callable[[NDArray[np.float32]], None]) -> Callable[[Pixels], Pixels]:
    """Return what takes an image apart into stains, changes these, and puts it together."""

    def apply(image: Pixels) -> Pixels:
        amounts = np.maximum(OD_TABLE[image] @ _TO_STAINS.astype(np.float32), 0)
        change(amounts)
        return np.clip(np.exp(-(amounts @ _STAINS)) * 256 - 1, 0, 255).astype(np.uint8)

    return apply


def _brown(amounts: NDArray[np.float32]) -> None:
    """Half of the nuclei brown (DAB), no eosin: immunohistochemistry."""
    height, width = amounts.shape[:2]
    coarse = np.random.default_rng(0).random((height // 40 + 1, width // 40 + 1)) < 0.5
    chosen = np.kron(coarse, np.ones((40, 40), bool))[:height, :width]
    nuclei = amounts[..., 0].copy()
    amounts[..., 0] = np.where(chosen, nuclei * 0.3, nuclei)
    amounts[..., 1] = 0
    amounts[..., 2] = np.where(chosen, nuclei * 1.2, 0.02)


def _without(stain: int, fraction: float) -> Callable[[NDArray[np.float32]], None]:
    def change(amounts: NDArray[np.float32]) -> None:
        amounts[..., stain] *= fraction

    return change


def _noisy(image: Pixels) -> Pixels:
    noise = np.random.default_rng(0).normal(0, 40, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _tinted(*factors: float) -> Callable[[Pixels], Pixels]:
    return lambda image: np.clip(image * np.array(factors), 0, 255).astype(np.uint8)


ODD: dict[str, Callable[[Pixels], Pixels]] = {
    "unchanged": lambda image: image,
    "grayscale": lambda image: np.repeat(
        np.asarray(Image.fromarray(image).convert("L"))[..., None], 3, axis=2
    ),
    "immunohistochemistry, drawn": _stained(_brown),
    "hematoxylin alone": _stained(_without(1, 0.0)),
    "eosin nearly alone": _stained(_without(0, 0.1)),
    "red and blue swapped": lambda image: np.ascontiguousarray(image[..., ::-1]),
    "red and green swapped": lambda image: np.ascontiguousarray(image[..., [1, 0, 2]]),
    "inverted": lambda image: 255 - image,
    "yellow light": _tinted(1.0, 0.9, 0.55),
    "blue light": _tinted(0.6, 0.8, 1.0),
    "blurred, sigma 0.6 um": _blurred(2.4),
    "blurred, sigma 1 um": _blurred(4),
    "blurred, sigma 2 um": _blurred(8),
    "noise": _noisy,
    "JPEG quality 5": partial(jpeg_copy, quality=5),
    "four gray levels a channel": lambda image: np.asarray(
        ImageOps.posterize(Image.fromarray(image), 2)
    ),
    "magnified 0.25 times": _magnified(0.25),
    "magnified 0.5 times": _magnified(0.5),
    "magnified 0.67 times": _magnified(0.67),
    "magnified 1.5 times": _magnified(1.5),
    "magnified 2 times": _magnified(2.0),
    "magnified 4 times": _magnified(4.0),
}


def fields_of(data: Path, laboratory: str, most: int) -> Iterator[Pixels]:
    """Yield fields of a laboratory, evenly spread over its files."""
    pattern, mpp = FIELDS[laboratory]
    paths = sorted(data.glob(pattern))
    if not paths:
        sys.exit(f"no fields of {laboratory}: {data / pattern}")
    for place in np.unique(np.linspace(0, len(paths) - 1, most).astype(int)):
        yield read_field(paths[place], mpp)


def measure_all(
    data: Path,
) -> tuple[list[Measured], list[Measured], list[Magnified]]:
    """Measure fields, odd inputs made of them, and fields at other magnifications."""
    real, odd, magnified = [], [], []
    for laboratory in FIELDS:
        for index, image in enumerate(fields_of(data, laboratory, FIELDS_A_LABORATORY)):
            field = Measured(laboratory, "field", features_of(image))
            real.append(field)
            if index % 4 == 0:
                magnified += at_magnifications(field, image)
        for image in fields_of(data, laboratory, ODD_FIELDS_A_LABORATORY):
            odd += [
                Measured(laboratory, kind, features_of(make(image))) for kind, make in ODD.items()
            ]
        print(f"measured {laboratory}", file=sys.stderr)
    return real, odd, magnified


def at_magnifications(field: Measured, image: Pixels) -> list[Magnified]:
    """Measure a field at every magnification at which there is tissue to measure."""
    by_factor = {
        factor: field.features if factor == 1 else features_of(_magnified(factor)(image))
        for factor in MAGNIFICATIONS
    }
    return [
        Magnified(field.laboratory, factor, features)
        for factor, features in by_factor.items()
        if features is not None
    ]


def pictures() -> list[Measured]:
    """Measure pictures that are no H&E: those that come with scikit-image."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    found = []
    for path in sorted(folder.glob("*.png")) + sorted(folder.glob("*.jpg")):
        image = np.asarray(Image.open(path).convert("RGB"))
        if min(image.shape[:2]) >= SQUARE_PX:
            kind = (
                "immunohistochemistry, real" if path.stem == "ihc" else "pictures of other things"
            )
            found.append(Measured("-", kind, features_of(image)))
    return found


def neighbors(real: list[Measured], name: str, without: str = "", limit: float = 0.0) -> Neighbors:
    """Make a reference of evenly chosen members of every laboratory but one."""
    groups = []
    for laboratory in FIELDS:
        own = [
            getattr(one.features, name)
            for one in real
            if one.laboratory == laboratory and one.features is not None
        ]
        if laboratory != without and own:
            groups.append(np.array(own))
    chosen = [
        group[place]
        for group in groups
        for place in np.unique(np.linspace(0, len(group) - 1, MEMBERS_A_LABORATORY).astype(int))
    ]
    rounded = [tuple(round(float(value), 4) for value in member) for member in chosen]
    spread = spread_of(groups, *SPREADS[name])
    return Neighbors(_rounded(spread), tuple(rounded), limit)


def spread_of(groups: list[NDArray[np.float64]], foreseen: float, pooled: float) -> NDArray:
    """Return what each feature is divided by.

    Args:
        groups: features (n, k) of each laboratory.
        foreseen: weight of how far the features of a laboratory lie, at most, from those of the
            others: a feature that hardly differs between laboratories counts for more.
        pooled: weight of the standard deviation over all.
    """
    spread = pooled * np.concatenate(groups).std(axis=0)
    farthest = np.zeros(groups[0].shape[1])
    for index, group in enumerate(groups):
        others = np.concatenate([other for place, other in enumerate(groups) if place != index])
        nearest = np.abs(group[:, None] - others[None]).min(axis=1)
        farthest = np.maximum(farthest, nearest.max(axis=0))
    return spread + foreseen * farthest


def regression(
    magnified: list[Magnified], without: str = "", limit: float = 0.0
) -> ScaleRegression:
    """Fit octaves of magnification on fields of every laboratory but one."""
    kept = [one for one in magnified if one.laboratory != without]
    features = np.array([one.features.scale for one in kept])
    octaves = np.log2([one.factor for one in kept])
    center, spread = features.mean(axis=0), features.std(axis=0)
    scaled = (features - center) / spread
    terms = np.concatenate([scaled, scaled**2, np.ones((len(scaled), 1))], axis=1)
    # Laboratories count alike, however many fields they have.
    counts = Counter(one.laboratory for one in kept)
    weight = np.array([1 / counts[one.laboratory] for one in kept])
    weight *= len(kept) / weight.sum()
    left = (terms * weight[:, None]).T @ terms + RIDGE * np.eye(terms.shape[1])
    solved = np.linalg.solve(left, (terms * weight[:, None]).T @ octaves)
    return ScaleRegression(_rounded(center), _rounded(spread), _rounded(solved), limit)


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 5) for value in values)


def limits(real: list[Measured], magnified: list[Magnified]) -> dict[str, float]:
    """Return the limit of each measure: what few fields of laboratories left out exceed."""
    found: dict[str, list[float]] = {"stain": [], "focus": [], "scale": []}
    for laboratory in FIELDS:
        own = [m.features for m in real if m.laboratory == laboratory and m.features is not None]
        # Shared between three measures, the false alarms add up.
        allowed = 1 - FALSE_ALARMS / 3
        for name in ("stain", "focus"):
            reference = neighbors(real, name, laboratory)
            far = [reference.distance(getattr(one, name)) for one in own]
            found[name].append(float(np.quantile(far, allowed, method="higher")))
        fit = regression(magnified, laboratory)
        octaves = [abs(fit.octaves(one.scale)) for one in own]
        found["scale"].append(float(np.quantile(octaves, allowed, method="higher")))
    # The laboratory that is hardest to foresee sets the limit.
    return {name: math.ceil(max(values) * 100) / 100 for name, values in found.items()}


def make_reference(
    real: list[Measured],
    magnified: list[Magnified],
    limit: dict[str, float],
    without: str = "",
) -> DomainReference:
    """Put a reference together, of all laboratories but one."""
    return DomainReference(
        tuple(name for name in FIELDS if name != without),
        neighbors(real, "stain", without, limit["stain"]),
        neighbors(real, "focus", without, limit["focus"]),
        regression(magnified, without, limit["scale"]),
    )


def warned(reference: DomainReference, measured: Measured) -> bool:
    """Tell whether an input gets a warning; one without tissue to measure gets its own status."""
    return measured.features is None or bool(reference.warnings(measured.features, MPP))


def print_tables(
    real: list[Measured],
    odd: list[Measured],
    magnified: list[Magnified],
    limit: dict[str, float],
) -> None:
    """Print false alarms by laboratory left out, and catches by kind of odd input."""
    print("| laboratory left out | fields | warned of |\n|---|---|---|")
    by_laboratory = {name: make_reference(real, magnified, limit, name) for name in FIELDS}
    for name, reference in by_laboratory.items():
        own = [m for m in real if m.laboratory == name]
        print(f"| {name} | {len(own)} | {sum(warned(reference, m) for m in own)} |")
    print("\n| odd input | inputs | warned of |\n|---|---|---|")
    whole = make_reference(real, magnified, limit)
    for kind in dict.fromkeys(m.kind for m in odd):
        own = [m for m in odd if m.kind == kind]
        # Made of a field of a laboratory, it is judged without that laboratory.
        caught = sum(warned(by_laboratory.get(m.laboratory, whole), m) for m in own)
        print(f"| {kind} | {len(own)} | {caught / len(own):.0%} |")


def put_into(path: Path) -> None:
    """Write a model file anew, with the reference of experiments/domain.json in it."""
    content = parse_model_file(path.read_bytes(), str(path))
    reference = msgspec.json.decode(REFERENCE.read_bytes(), type=DomainReference)
    spec = msgspec.structs.replace(content.spec, domain=reference)
    write_model_file(path, spec, content.graphs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("-o", "--out", type=Path, default=REFERENCE)
    parser.add_argument("--into", type=Path, nargs="+", help="model files that get the reference")
    options = parser.parse_args()
    if options.into and (options.data is not None or options.out != REFERENCE):
        parser.error("--into puts the reference that is there into model files: no --data, no -o")
    for path in options.into or ():
        put_into(path)
    if options.into:
        return 0
    if options.data is None:
        parser.error("--data is needed to make the reference")
    real, odd, magnified = measure_all(options.data)
    odd += pictures()
    limit = limits(real, magnified)
    reference = make_reference(real, magnified, limit)
    text = json.dumps(msgspec.to_builtins(reference), sort_keys=True)
    write_text(options.out, text + "\n")
    print(f"limits: {limit}; {len(text) / 1e3:.0f} kB\n")
    print_tables(real, odd, magnified, limit)
    return 0


if __name__ == "__main__":
    run_program(main, "experiments.domain")
