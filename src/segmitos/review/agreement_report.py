"""The agreement of readers as files: JSON, a table, and a page with Bland and Altman's plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from segmitos.io.files import json_text
from segmitos.io.outputs import PROGRAM

_COLUMNS = ("first", "second", "slides", "matched", "only_first", "only_second")
_FIGURES = ("f", "kappa", "score_kappa", "count_icc")
_WIDTH, _HEIGHT, _MARGIN = 420, 240, 36


def agreement_files(content: Mapping[str, Any]) -> dict[str, bytes]:
    """Return agreement.json, agreement.csv and agreement.html."""
    return {
        "agreement.json": json_text({"program": PROGRAM, **content}).encode("utf-8"),
        "agreement.csv": _table(content).encode("utf-8"),
        "agreement.html": _page(content).encode("utf-8"),
    }


def _table(content: Mapping[str, Any]) -> str:
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    ends = [f"{name}{end}" for name in _FIGURES for end in ("", "_low", "_high")]
    table.writerow([*_COLUMNS, *ends, "count_difference", "limit_low", "limit_high"])
    for pair in content["pairs"]:
        figures = [pair[name][end] for name in _FIGURES for end in ("value", "low", "high")]
        limits = [pair["count_difference"][end] for end in ("mean", "low", "high")]
        row = [*(pair[name] for name in _COLUMNS), *figures, *limits]
        table.writerow(["" if value is None else value for value in row])
    return stream.getvalue()


def _page(content: Mapping[str, Any]) -> str:
    html: str = _template().render(
        content=content,
        plots=[_bland_altman(pair) for pair in content["pairs"]],
        width=_WIDTH,
        height=_HEIGHT,
    )
    return html


def _bland_altman(pair: Mapping[str, Any]) -> dict[str, Any]:
    """Return places of the points and lines of a plot, in pixels."""
    values = pair["count_difference"]["values"]
    limits = {end: pair["count_difference"][end] for end in ("mean", "low", "high")}
    heights = [one["difference"] for one in values] + [v for v in limits.values() if v is not None]
    reach = float(max([abs(value) for value in heights] + [1.0])) * 1.15
    widest = float(max([one["mean"] for one in values] + [1.0])) * 1.05

    def y(value: float) -> float:
        return _HEIGHT / 2 - value / reach * (_HEIGHT / 2 - _MARGIN / 2)

    def x(value: float) -> float:
        return _MARGIN + value / widest * (_WIDTH - _MARGIN * 1.5)

    return {
        "title": f"{pair['first']} minus {pair['second']}",
        "points": [(x(one["mean"]), y(one["difference"]), one["slide"]) for one in values],
        "lines": [(name, y(v), v) for name, v in limits.items() if v is not None],
        "zero": y(0.0),
        "left": _MARGIN,
        "widest": widest,
    }


@lru_cache
def _template() -> Any:
    import jinja2

    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([here / "templates", here.parent / "report" / "templates"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("agreement.html")
