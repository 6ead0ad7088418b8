"""How a training goes: history.csv and training.html, whole at any moment and open to a browser."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmitos.io.files import image_bytes, write_text
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
_REFRESH_S = 20
_KINDS = {
    "found": "Right: the surest detections on mitoses",
    "wrong": "Wrong: the surest detections that are no labelled mitosis",
    "missed": "Missed: labelled mitoses without a detection",
}


@dataclass(frozen=True)
class TrainingPage:
    """What training.html shows beside the history."""

    title: str
    steps: int
    examples: Sequence[Example] = ()
    running: bool = True
    validated: bool = True


def write_history(folder: Path, history: Sequence[Entry], page: TrainingPage) -> None:
    """Write history.csv and training.html of a run.

    Args:
        folder: of the run.
        history: one entry an epoch; keys are among `COLUMNS`.
        page: what else the page shows.

    Raises:
        OutputError: if they cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(folder / "history.csv", text.getvalue())
    write_text(folder / "training.html", _page(history, page))


def _page(history: Sequence[Entry], page: TrainingPage) -> str:
    from jinja2 import Environment

    template = Environment(autoescape=True).from_string(_TEMPLATE)
    examples = [
        (words, [_shown(example) for example in page.examples if example.kind == kind])
        for kind, words in _KINDS.items()
    ]
    result: str = template.render(
        title=page.title,
        step=history[-1]["step"] if history else 0,
        steps=page.steps,
        running=page.running,
        refresh_s=_REFRESH_S,
        validated=page.validated,
        fixed_score=FIXED_SCORE,
        last=history[-1] if history else None,
        pictures=_pictures(history),
        examples=examples if page.examples else [],
    )
    return result


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
    return _data_url(content.getvalue(), "png")


def _shown(example: Example) -> tuple[str, str, str]:
    """Return picture, caption and place of an example."""
    score = "not found" if example.score is None else f"score {example.score:.2f}"
    place = f"{example.image}, x {example.x_px:.0f}, y {example.y_px:.0f}"
    return _data_url(image_bytes(example.crop, "jpg", quality=90), "jpeg"), score, place


def _data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def ratios(counts: Any, suffix: str) -> dict[str, float]:
    """Return F, precision and recall as a history entry; a ratio of nothing is left out."""
    values = {"f": counts.f_score, "precision": counts.precision, "recall": counts.recall}
    return {f"{name}_{suffix}": value for name, value in values.items() if not math.isnan(value)}


_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{% if running %}<meta http-equiv="refresh" content="{{ refresh_s }}">{% endif %}
<title>{{ title }}</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 62rem;
  padding: 0 1rem; color: #222; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 1.6rem; }
.row { display: flex; flex-wrap: wrap; gap: .8rem; }
figure { margin: 0; } figcaption { font-size: .8rem; color: #555; max-width: 7rem; }
.curve img { width: 100%; max-width: 29rem; } .example img { width: 7rem; image-rendering: auto; }
.note { color: #555; }
@media (prefers-color-scheme: dark) { body { background: #16181b; color: #ddd; }
  figcaption, .note { color: #aaa; } .curve img { background: #fff; } }
</style></head><body>
<h1>{{ title }}</h1>
<p>{% if running %}Running: step {{ step }} of {{ steps }} when this page was written, after each
epoch. It reloads itself.{% else %}Finished: {{ step }} steps.{% endif %}</p>
{% if not validated %}<p class="note">No validation slides: what this network is worth is not
known. Give <code>--validation SLIDE</code> or <code>--validation auto</code>.</p>{% endif %}
{% if last and last.f_fixed is defined %}
<p>On validation, F {{ "%.3f"|format(last.f_fixed) }} at a score of {{ fixed_score }}
{%- if last.f_best is defined %}; {{ "%.3f"|format(last.f_best) }} at the best score threshold,
{{ "%.2f"|format(last.best_score) }}, which flatters: it was chosen on these slides{% endif %}.</p>
{% endif %}
<div class="row">{% for title, picture in pictures %}
<figure class="curve"><h2>{{ title }}</h2><img src="{{ picture }}" alt="{{ title }}"></figure>
{% endfor %}</div>
{% for words, shown in examples %}<h2>{{ words }}</h2>
{% if shown %}<div class="row">{% for picture, score, place in shown %}
<figure class="example" title="{{ place }}"><img src="{{ picture }}" alt="{{ place }}">
<figcaption>{{ score }}<br>{{ place }}</figcaption></figure>{% endfor %}</div>
{% else %}<p class="note">None.</p>{% endif %}{% endfor %}
</body></html>
"""
