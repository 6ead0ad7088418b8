"""Candidates of a model's map in reviewed regions, and how readers judged each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from segmitos.detection.model import Model
from segmitos.detection.model_file import SUFFIX, VERIFIER, ModelFile, write_model_file
from segmitos.detection.patches import cut_patches
from segmitos.detection.postprocess import FLOOR, MapAccumulator
from segmitos.detection.prediction import predict_tiles, select_tiles
from segmitos.detection.spec import ModelSpec, VerifierSettings
from segmitos.detection.tissue import find_tissue
from segmitos.detection.verify import log_odds
from segmitos.detection.view import SlideView
from segmitos.errors import ModelError
from segmitos.evaluation.matching import counted_detections, match_points
from segmitos.io.datasets import Case
from segmitos.io.geometry import rescale
from segmitos.io.pairs import MATCH_UM
from segmitos.training.verifier_head import VerifierHead

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class JudgedCandidates:
    """The map's candidates in the reviewed regions of a case, with what readers made of them.

    Attributes:
        slide: that they are on.
        group: that is held out together: the patient's slides, or the case where there is but one
            patient.
        features: what goes into the verifiers' last layers (n, d).
        score: log-odds of the model's joined score (n,).
        is_mitosis: (n,).
        missed: marked mitoses that the map shows no candidate of.
    """

    slide: str
    group: str
    features: Floats
    score: Floats
    is_mitosis: Mask
    missed: int


def judged_candidates(
    cases: Sequence[Case],
    file: ModelFile,
    head: VerifierHead,
    threads: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[JudgedCandidates]:
    """Find the candidates of cases in their reviewed regions, and tell mitoses from others.

    A candidate within 7.5 um of a marked mitosis, one to one, is one; near an unsure cell alone it
    is left out; any other is none, since in a reviewed region every mitosis is marked.

    Raises:
        InputError: for an image that cannot be read; ScaleError for one of unknown scale.
    """
    groups = {case.group for case in cases}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        model = _without_verifier(file, Path(folder) / f"map{SUFFIX}", threads)
        for case in cases:
            group = case.group if len(groups) > 1 else case.name
            found.append(_judge(case, group, file.spec, model, head))
            advance()
    return found


def _without_verifier(file: ModelFile, path: Path, threads: int | None) -> Model:
    """Return the model that makes the map in which candidates are sought."""
    settings = settings_of(file, str(path))
    spec = msgspec.structs.replace(
        file.spec, verifier=None, smoothing_sigma_um=settings.smoothing_sigma_um
    )
    graphs = {name: graph for name, graph in file.graphs.items() if name != VERIFIER}
    write_model_file(path, spec, graphs)
    return Model.load(path, "cpu", threads)


def settings_of(file: ModelFile, where: str) -> VerifierSettings:
    """Return the verifier's settings. Raises ModelError for a model that has none."""
    if file.spec.verifier is None or file.verifier is None:
        raise ModelError(
            f"{where} has no verifier, whose last layer is what adapts to a reader's marks; start "
            "from one that has, such as builtin:lite"
        )
    return file.spec.verifier


def _judge(
    case: Case, group: str, spec: ModelSpec, model: Model, head: VerifierHead
) -> JudgedCandidates:
    settings = spec.verifier
    assert settings is not None
    with case.open_image() as slide:
        view = SlideView(slide, spec.mpp)
        overview = view.overview()
        # The staining is that of the whole slide, as in detection.
        tissue = find_tissue(overview)
        view = view.stain_matched(spec.stain, tissue)
        accumulator = MapAccumulator(spec.map_mpp, spec.stride)
        tiles = select_tiles(view, model.spec, find_tissue(overview, case.regions))
        for tile, part, mask in predict_tiles(tiles, view, model, tissue):
            accumulator.add(part, tile.column, tile.row, mask)
        blobs = accumulator.blobs(max(FLOOR, settings.candidate_threshold))
        xy = np.stack([blobs.x_px, blobs.y_px], axis=1)
        places = rescale(xy, view.ratio)
        marked = case.mitoses_xy[case.is_reviewed(case.mitoses_xy)]
        reach = MATCH_UM / slide.require_mpp()
        counted = counted_detections(places, case.is_reviewed(places), marked, reach)
        xy, places, map_score = xy[counted], places[counted], blobs.score[counted]
        is_mitosis, left_out = _labels(places, marked, reach, case.ignored_xy)
        missed = int(len(marked) - is_mitosis.sum())
        xy, is_mitosis, map_score = xy[~left_out], is_mitosis[~left_out], map_score[~left_out]
        features = head.features(
            cut_patches(xy, settings.patch_px, view.width, view.height, view.read)
        )
    bound = float(log_odds(np.array(1.0)))
    verified = np.clip(features @ head.weights + head.bias, -bound, bound)
    score = (
        settings.intercept
        + settings.map_weight * log_odds(map_score)
        + settings.verifier_weight * verified
    )
    return JudgedCandidates(case.slide, group, features, score, is_mitosis, max(0, missed))


def _labels(places: Floats, marked: Floats, reach: float, ignored: Floats) -> tuple[Mask, Mask]:
    """Tell which places are marked mitoses, and which are near a cell to ignore alone."""
    match = match_points(places, marked, reach, ignored_xy=ignored)
    is_mitosis, left_out = np.zeros(len(places), bool), np.zeros(len(places), bool)
    is_mitosis[[detected for detected, _ in match.pairs]] = True
    left_out[list(match.ignored)] = True
    return is_mitosis, left_out
