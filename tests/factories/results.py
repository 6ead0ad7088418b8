"""Results made without a model: drawn slides with chosen detections, through the real writers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segmitos.cohort.atomic_folder import OutputFolder
from segmitos.cohort.contents import result_files
from segmitos.cohort.identity import RESULT_FORMAT, Identity, InputRecord, settings_of
from segmitos.cohort.settings import JobSettings
from segmitos.detection.model import Model
from segmitos.detection.pipeline import SlideResult
from segmitos.detection.postprocess import Thresholds
from segmitos.detection.tissue import TissueMask
from segmitos.io.points.candidates import Candidates
from segmitos.io.points.detections import Detections
from segmitos.io.points.geojson_features import point_ids
from segmitos.io.slide import Slide
from tests.factories.toy_models import write_toy


def draw_slide(side: int = 3200, mpp: float = 1.25, cells=(), seed: int = 0) -> Slide:
    """A round pink section on white glass with a dark cell at each place of `cells` (n, 2)."""
    rng = np.random.default_rng(seed)
    step = side // 8
    rows, columns = np.mgrid[:step, :step] + 0.5 - step / 2
    bumps = 0.44 + 0.02 * np.sin(7 * np.arctan2(rows, columns))
    inside = np.hypot(rows, columns) < bumps * step
    stained = np.array([222, 158, 200]) + rng.integers(-14, 15, (step, step, 1))
    image = np.where(inside[:, :, None], stained, 242).astype(np.uint8)
    image = np.ascontiguousarray(image.repeat(8, 0).repeat(8, 1))
    reach = max(2, round(5 / mpp))
    for x, y in np.asarray(cells, dtype=int).reshape(-1, 2):
        image[max(0, y - reach) : y + reach, max(0, x - reach) : x + reach] = (70, 30, 95)
    return Slide.from_array(image, mpp, "made.svs")


def tissue_of(slide: Slide) -> TissueMask:
    """What is not glass."""
    picture = slide.thumbnail(400)
    mask = np.asarray(picture.min(axis=2) < 215)
    mpp = slide.require_mpp() * slide.width / picture.shape[1]
    return TissueMask(mask, mpp, float(mask.sum()) * mpp**2 / 1e6)


def scatter(count: int, side: int = 3200, seed: int = 0) -> np.ndarray:
    """Points (n, 2) in the disc, a third of them crowded together at the upper right."""
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(0, 2 * np.pi, count), 0.4 * side * np.sqrt(rng.uniform(0, 1, count))
    points = side / 2 + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    crowd = count // 3
    points[:crowd] = rng.normal((0.65 * side, 0.35 * side), 0.05 * side, (crowd, 2))
    return points.clip(20, side - 20)


def detections_at(points: np.ndarray, mpp: float, name: str = "made", seed: int = 0) -> Detections:
    """Detections of random score and area at the points, ordered as detect orders them."""
    rng = np.random.default_rng(seed)
    points = points[np.lexsort((points[:, 0], points[:, 1]))]
    area, score = rng.uniform(8, 90, len(points)), 0.6 + 0.4 * rng.beta(2, 2, len(points))
    return Detections(points[:, 0], points[:, 1], area, score, mpp, name)


def candidates_of(detections: Detections, faint: np.ndarray | None = None) -> Candidates:
    """Candidates that are the detections, and some that are none at the points `faint` (n, 2)."""
    others = np.zeros((0, 2)) if faint is None else faint
    xy = np.concatenate([detections.xy, others])
    score = np.concatenate([detections.score, np.full(len(others), 0.55)])
    area = np.concatenate([detections.area_um2, np.full(len(others), 20.0)])
    order = np.lexsort((xy[:, 0], xy[:, 1]))
    xy = xy[order]
    return Candidates(
        ids=tuple(point_ids(xy, detections.name)),
        x_px=xy[:, 0],
        y_px=xy[:, 1],
        area_um2=area[order],
        score=score[order],
        is_detection=(np.arange(len(xy)) < len(detections))[order],
        mpp=detections.mpp,
        name=detections.name,
    )


def make_files(
    folder: Path,
    slide: Slide,
    detections: Detections,
    tissue: TissueMask,
    faint: np.ndarray | None = None,
    **settings: object,
) -> dict[str, bytes]:
    """Return the files that detect would write for these detections."""
    model = Model.load(write_toy(folder / "toy.segmitos"), device="cpu", threads=1)
    result = SlideResult(
        candidates=candidates_of(detections, faint),
        thresholds=Thresholds(0.5, 4.0, 0.6),
        threshold_value=0.5,
        tissue=tissue,
        mpp=slide.require_mpp(),
        mpp_source="given",
        width_px=slide.width,
        height_px=slide.height,
        device="cpu",
        accumulator=None,  # what was found is given
    )
    job_settings = JobSettings(**settings)
    identity = {
        "input": {"name": detections.name + ".svs", "bytes": 1},
        "model": {"name": model.spec.name, "sha256": model.sha256},
        "settings": settings_of(job_settings),
    }
    return result_files(detections.name, slide, result, model, identity)


def save_result(folder: Path, files: dict[str, bytes]) -> Path:
    """Save files as the result that detect would leave in `folder`."""
    source = InputRecord(f"/made/{folder.name}.svs", "0" * 64, 1, 1, "2026-01-01T00:00:00.0Z")
    identity = Identity(RESULT_FORMAT, source.path, source.sha256, "0" * 64, {})
    folder.parent.mkdir(parents=True, exist_ok=True)
    return OutputFolder(folder.parent, folder.name).commit(files, identity, source, {})
