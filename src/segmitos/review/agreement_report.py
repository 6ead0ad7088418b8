"""The agreement of readers as files: JSON, a table, and a page with Bland and Altman's plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segmitos.io.files import json_text
from segmitos.io.outputs import PROGRAM
from segmitos.io.tables import table_text
from segmitos.report.html import render

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
    ends = [f"{name}{end}" for name in _FIGURES for end in ("", "_low", "_high")]
    rows = []
    for pair in content["pairs"]:
        figures = [pair[name][end] for name in _FIGURES for end in ("value", "low", "high")]
        limits = [pair["count_difference"][end] for end in ("mean", "low", "high")]
        rows.append([*(pair[name] for name in _COLUMNS), *figures, *limits])
    columns = [*_COLUMNS, *ends, "count_difference", "limit_low", "limit_high"]
    return table_text(columns, rows)


def _page(content: Mapping[str, Any]) -> str:
    plots = [_bland_altman(pair) for pair in content["pairs"]]
    return render("agreement.html", content=content, plots=plots, width=_WIDTH, height=_HEIGHT)


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
