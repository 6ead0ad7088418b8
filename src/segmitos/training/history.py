"""How a training goes: history.csv and training.html, whole at any moment and open to a browser."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from segmitos.io.files import image_bytes, write_text
from segmitos.io.tables import table_text
from segmitos.report.html import render
from segmitos.report.pictures import data_uri
from segmitos.training.checkpoint import HISTORY, PAGE
from segmitos.training.validate import FIXED_SCORE, Example

Entry = Mapping[str, float | int]

COLUMNS = (
    "epoch",
    "step",
    "loss",
    "learning_rate",
    "f_fixed",
    "precision_fixed",
    "recall_fixed",
    "f_best",
    "best_score",
    "precision_best",
    "recall_best",
)
_KINDS = {
    "found": "Right: the surest detections on mitoses",
    "wrong": "Wrong: the surest detections that are no labeled mitosis",
    "missed": "Missed: labeled mitoses without a detection",
}


def write_history(
    folder: Path,
    history: Sequence[Entry],
    *,
    title: str,
    steps: int,
    examples: Sequence[Example],
    running: bool,
    validated: bool,
) -> None:
    """Write history.csv and training.html of a run.

    Args:
        folder: of the run.
        history: one entry an epoch; keys are among `COLUMNS`.
        title: of the page.
        steps: of the whole training.
        examples: of the last validation.
        running: whether more is to come: the page reloads itself.
        validated: whether there are slides to validate on.

    Raises:
        OutputError: if they cannot be written.
    """
    rows = [[entry.get(column) for column in COLUMNS] for entry in history]
    write_text(folder / HISTORY, table_text(COLUMNS, rows))
    by_kind = [
        (words, [_shown(example) for example in examples if example.kind == kind])
        for kind, words in _KINDS.items()
    ]
    page = render(
        PAGE,
        title=title,
        step=history[-1]["step"] if history else 0,
        steps=steps,
        running=running,
        validated=validated,
        fixed_score=FIXED_SCORE,
        last=history[-1] if history else {},
        pictures=_pictures(history),
        examples=by_kind if examples else [],
    )
    write_text(folder / PAGE, page)


def _pictures(history: Sequence[Entry]) -> list[tuple[str, str]]:
    """Return titles and pictures (data URLs) of the curves."""
    if not history:
        return []
    curves: list[tuple[str, list[tuple[str, str]], bool]] = [
        ("Loss, mean of each epoch", [("loss", "loss")], False),
        ("Learning rate", [("learning_rate", "learning rate")], False),
    ]
    if any("f_fixed" in entry for entry in history):
        keys = [("f_fixed", f"score from {FIXED_SCORE:g}"), ("f_best", "best score threshold")]
        curves.insert(0, ("F on validation", keys, True))
    return [(title, _curve(history, keys, unit)) for title, keys, unit in curves]


def _curve(history: Sequence[Entry], keys: Sequence[tuple[str, str]], unit: bool) -> str:
    from segmitos.evaluation.curves import quiet_matplotlib

    quiet_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 2.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for key, name in keys:
        known = [(entry["step"], entry[key]) for entry in history if key in entry]
        axes.plot(*zip(*known, strict=True), marker="o", markersize=3, label=name)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    if unit:
        axes.set_ylim(0, 1)
        axes.legend()
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return data_uri(content.getvalue(), "png")


def _shown(example: Example) -> tuple[str, str, str]:
    """Return picture, caption and place of an example."""
    score = "not found" if example.score is None else f"score {example.score:.2f}"
    place = f"{example.image}, x {example.x_px:.0f}, y {example.y_px:.0f}"
    return data_uri(image_bytes(example.crop, "jpg", quality=90)), score, place
