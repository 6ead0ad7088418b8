"""Pictures of an evaluation: curves over thresholds and bars per slide, with the galleries.

Each function returns PNG bytes, the same for the same input. Curves rest on exact one-to-one counts
at every threshold (`sweep`), whatever rule the figures beside them use.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import UsageError
from segmitos.evaluation.gallery import choose_crops, gallery_picture
from segmitos.evaluation.matching import counted_detections
from segmitos.evaluation.scoring import Evaluation
from segmitos.evaluation.sweep import RankedDetections, rank
from segmitos.io.datasets import Case
from segmitos.io.outputs import PROGRAM
from segmitos.io.pairs import MATCH_UM
from segmitos.io.points.detections import Detections

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from segmitos.evaluation.tuning import Tuning

# Told apart by readers without red or green cones (Okabe and Ito).
_BLUE, _RED, _GREEN, _GRAY = "#0072b2", "#d55e00", "#009e73", "#666666"
_SIZE = (5.2, 3.9)
_DPI = 110
MAX_SLIDES = 60


def evaluation_pictures(
    cases: Sequence[Case], detections: Mapping[str, Detections], evaluation: Evaluation
) -> dict[str, bytes]:
    """Return all pictures of an evaluation by title.

    The curves begin at the thresholds that the detections were made with: nothing is known below
    them. Detections without scores have no curves.

    Args:
        cases: those evaluated, with their images.
        detections: by case name.
        evaluation: of the same cases.

    Raises:
        InputError: if an image cannot be read for the galleries.
    """
    pictures: dict[str, bytes] = {}
    curves = (("score", "score"), ("area_um2", "area"))
    for field, word in curves:
        ranked = rank_cases(cases, detections, field)
        if ranked is None:
            continue
        if field == "score":
            pictures["Precision and recall"] = precision_recall_picture(ranked)
            pictures["FROC"] = froc_picture(ranked)
        unit = " (um2)" if field == "area_um2" else ""
        pictures[f"F against {word}"] = threshold_picture(ranked, f"lowest {word} kept{unit}")
    pictures["F per slide"] = slides_picture(evaluation)
    for title, crops in choose_crops(cases, detections, evaluation).items():
        if crops:
            pictures[title] = gallery_picture(cases, crops)
    return pictures


def rank_cases(
    cases: Sequence[Case], detections: Mapping[str, Detections], field: str = "score"
) -> RankedDetections | None:
    """Rank all detections by `score` or `area_um2`; None where some do not have it, or none is."""
    images = []
    for case in cases:
        found = detections[case.name]
        mpp = found.mpp if case.mpp is None else case.mpp
        distance = MATCH_UM / mpp
        mitoses_xy = case.mitoses_xy[case.is_reviewed(case.mitoses_xy)]
        counted = counted_detections(found.xy, case.is_reviewed(found.xy), mitoses_xy, distance)
        images.append(
            (
                found.xy[counted],
                np.asarray(getattr(found, field))[counted],
                mitoses_xy,
                distance,
                case.ignored_xy,
            )
        )
    ranked = rank(images)
    return None if not len(ranked.score) or np.isnan(ranked.score).any() else ranked


def precision_recall(
    ranked: RankedDetections,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return (recall, precision, threshold) at every distinct score, the highest first.

    Raises:
        UsageError: if there are no mitoses, and so no recall.
    """
    if not ranked.mitoses:
        raise UsageError("without mitoses there is no recall to draw")
    threshold, tp, fp = ranked.at_distinct_scores()
    return tp / ranked.mitoses, tp / np.maximum(tp + fp, 1), threshold


def average_precision(ranked: RankedDetections) -> float:
    """Return the area under the precision-recall steps down to the lowest threshold known."""
    recall, precision, _ = precision_recall(ranked)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def precision_recall_picture(ranked: RankedDetections) -> bytes:
    """Draw precision against recall, with the point of all detections."""
    figure, axes = _figure("recall", "precision")
    axes.set(xlim=(0, 1.01), ylim=(0, 1.01))
    if not ranked.mitoses:
        return _without_mitoses(figure, axes)
    recall, precision, _ = precision_recall(ranked)
    for level in (0.2, 0.4, 0.6, 0.8):
        _iso_f(axes, level)
    axes.step(recall, precision, where="pre", color=_BLUE, linewidth=1.6)
    axes.plot(recall[-1:], precision[-1:], "o", color=_RED, markersize=6)
    average = average_precision(ranked)
    axes.set_title(f"average precision {average:.3f}; dot: at the thresholds used", fontsize=9)
    return _png(figure)


def froc_picture(ranked: RankedDetections) -> bytes:
    """Draw recall against false positives per image (free-response ROC)."""
    figure, axes = _figure("false positives per image", "recall")
    axes.set(ylim=(0, 1.01))
    if not ranked.mitoses:
        axes.set_xlim(left=0)
        return _without_mitoses(figure, axes)
    _, tp, fp = ranked.at_distinct_scores()
    per_image = fp / max(ranked.images, 1)
    axes.step(per_image, tp / ranked.mitoses, where="post", color=_BLUE, linewidth=1.6)
    axes.plot(per_image[-1:], tp[-1:] / ranked.mitoses, "o", color=_RED, markersize=6)
    axes.set_title(f"{ranked.images} images, {ranked.mitoses} mitoses", fontsize=9)
    axes.set_xlim(left=0)
    return _png(figure)


def threshold_picture(ranked: RankedDetections, label: str) -> bytes:
    """Draw F, precision and recall against a threshold on what `ranked` is ranked by."""
    figure, axes = _figure(label, "")
    axes.set(ylim=(0, 1.01))
    if not ranked.mitoses:
        return _without_mitoses(figure, axes)
    recall, precision, threshold = precision_recall(ranked)
    _, tp, fp = ranked.at_distinct_scores()
    f = 2 * tp / (tp + fp + ranked.mitoses)
    curves = ((f, _RED, "F"), (precision, _BLUE, "precision"), (recall, _GREEN, "recall"))
    for values, color, name in curves:
        width = 2.0 if name == "F" else 1.0
        axes.step(threshold, values, where="post", color=color, linewidth=width, label=name)
    best = int(np.argmax(f))
    axes.set_title(
        f"F {f[-1]:.3f} with all; {f[best]:.3f} at best, from {threshold[best]:.3g} "
        "(too high: chosen here)",
        fontsize=9,
    )
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    return _png(figure)


def tuning_picture(tuning: Tuning) -> bytes:
    """Draw F along each of the three thresholds, the other two as chosen."""
    figure, axes = _figure("", "", columns=3, width=2.0)
    for part, name in zip(axes, ("threshold", "min_area_um2", "min_score"), strict=True):
        curve = tuning.curve(name)
        numbers = [(value, f) for value, f in curve if value != "otsu"]
        part.plot([v for v, _ in numbers], [f for _, f in numbers], ".-", color=_BLUE, markersize=4)
        for value, f in curve:
            if value == "otsu":
                part.axhline(f, color=_GRAY, linestyle="--", linewidth=1, label="otsu")
                part.legend(fontsize=8, frameon=False)
        chosen = getattr(tuning.thresholds, name)
        if chosen != "otsu":
            part.axvline(chosen, color=_RED, linewidth=1)
        part.set_xlabel(f"{name} (chosen: {chosen})", fontsize=9)
        part.set_ylim(0, 1)
    axes[0].set_ylabel("F", fontsize=9)
    return _png(figure)


def slides_picture(evaluation: Evaluation) -> bytes:
    """Draw F of each slide with its interval, the counts beside it, and the pooled F.

    Of many slides the worst sixty are shown.
    """
    slides = sorted(
        evaluation.slides.items(), key=lambda item: (_sortable(item[1].f_score), item[0])
    )
    shown = slides[:MAX_SLIDES][::-1]
    figure, axes = _figure("F", "", height=max(1.8, 0.24 * len(shown) + 1.1))
    for row, (name, counts) in enumerate(shown):
        if math.isnan(counts.f_score):
            axes.text(0.01, row, "nothing to find, nothing found", fontsize=7, va="center")
            continue
        low, high = evaluation.slide_intervals[name]
        axes.barh(row, counts.f_score, height=0.7, color=_BLUE, alpha=0.75)
        if not math.isnan(low):
            axes.plot([low, high], [row, row], color="black", linewidth=1.2)
        axes.text(1.02, row, f"{counts.tp} / {counts.fp} / {counts.fn}", fontsize=7, va="center")
    axes.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=8)
    pooled = evaluation.pooled.f_score
    if not math.isnan(pooled):
        axes.axvline(pooled, color=_RED, linewidth=1.2)
    hidden = len(slides) - len(shown)
    axes.set_title(
        f"line: pooled {pooled:.3f}; right: TP / FP / FN"
        + (f"; the worst {len(shown)} of {len(slides)}" if hidden else ""),
        fontsize=9,
    )
    axes.set(xlim=(0, 1.0), ylim=(-0.6, len(shown) - 0.4))
    return _png(figure)


def quiet_matplotlib() -> None:
    """Keep from the console what it says of its cache where HOME cannot be written."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def _figure(
    x_label: str, y_label: str, columns: int = 1, width: float = 1.0, height: float | None = None
) -> tuple[Figure, Any]:
    """Make a figure without pyplot, whose state would be shared by all callers."""
    quiet_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_SIZE[0] * width, height or _SIZE[1]), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns)
    for part in np.atleast_1d(np.asarray(axes, dtype=object)):
        part.grid(True, color="#dddddd", linewidth=0.6)
        part.set_axisbelow(True)
        part.tick_params(labelsize=8)
        for side in ("top", "right"):
            part.spines[side].set_visible(False)
        part.set_xlabel(x_label, fontsize=9)
        part.set_ylabel(y_label, fontsize=9)
    return figure, axes


def _iso_f(axes: Axes, level: float) -> None:
    """Draw the line of equal F behind a precision-recall curve."""
    recall = np.linspace(level / (2 - level), 1, 100)
    axes.plot(recall, level * recall / (2 * recall - level), color="#cccccc", linewidth=0.8)
    axes.text(
        1.0, level / (2 - level), f" F {level}", fontsize=7, color=_GRAY, va="center", ha="left"
    )


def _without_mitoses(figure: Figure, axes: Axes) -> bytes:
    text = "no mitoses in these cases"
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", fontsize=9, color=_GRAY)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    # Without the program's version in it, the file depends on the data alone.
    figure.savefig(content, format="png", metadata={"Software": PROGRAM})
    return content.getvalue()


def _sortable(value: float) -> float:
    return -1.0 if math.isnan(value) else value
