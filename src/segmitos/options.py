"""Options of the command line: short ways to write them, and those that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FilePath = click.Path(path_type=Path)
Verb = Callable[..., Any]


def option(*names: str, **settings: Any) -> Callable[[Verb], Verb]:
    return click.option(*names, show_default=settings.get("default") is not None, **settings)


def several(context: click.Context, parameter: click.Parameter, value: Any) -> list[str] | None:
    return list(value) or None


def file(name: str, text: str, *more: str) -> Callable[[Verb], Verb]:
    return option(*more, name, type=FilePath, help=text)


def out(text: str, default: str | None = None) -> Callable[[Verb], Verb]:
    return option("-o", "--out", type=FilePath, help=text, required=not default, default=default)


def number(name: str, text: str, default: Any = None, kind: Any = float) -> Callable[[Verb], Verb]:
    return option(name, type=kind, default=default, help=text)


def word(name: str, text: str, default: str | None = None) -> Callable[[Verb], Verb]:
    return option(name, default=default, help=text)


def flag(name: str, text: str, *more: str) -> Callable[[Verb], Verb]:
    return option(name, *more, is_flag=True, help=text)


mpp_option = number(
    "--mpp", "Micrometres per pixel of the images, where they do not say it themselves."
)
model_option = file("--model", "Model file, or lite, lite-float, lite-whole; default: lite.", "-m")
device_option = word("--device", "auto, cpu, cuda or openvino; a forced one must be there.", "auto")
threads_option = number(
    "--threads", "CPU threads; default: all this process may use.", kind=click.IntRange(1, 512)
)
qupath_option = word(
    "--qupath",
    "What mitoses are in the GeoJSON: annotation (can be edited) or detection (lighter).",
    "annotation",
)
json_option = flag("--json", "Print JSON on standard output.", "json_out")
data_argument = click.argument(
    "data",
    nargs=-1,
    required=True,
    callback=several,
    help="Data sets as FORMAT:PATH, for example mitos14:DIR; see 'dataset list'.",
)
cases_option = option(
    "--cases",
    multiple=True,
    callback=several,
    help="Only these slides or cases; patterns allowed.",
)
exclude_option = option(
    "--exclude",
    multiple=True,
    callback=several,
    help="Not these slides or cases; patterns allowed.",
)
