"""Options of the command line that several verbs share."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from segmitos.io.datasets import Case


class _FilePath(click.Path):
    """A path; one that no file can have is refused, and so is an empty one."""

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        """Return a Path."""
        if value in ("", b""):
            self.fail("'' is empty; name a file or folder", parameter, context)
        try:
            os.stat(value)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            # It may be about to be written, or its reader says what is wrong.
            pass
        except (OSError, ValueError) as error:
            self.fail(f"{value!r}: {getattr(error, 'strerror', None) or error}", parameter, context)
        return super().convert(value, parameter, context)


FilePath = _FilePath(path_type=Path)
POINT_FORMATS = (
    "geojson",
    "csv",
    "json",
    "grand-challenge",
    "midog",
    "coco",
    "midog-labels",
    "sliderunner",
)
"""Formats that points are written in; `io.points.write` has them, and is not imported at start."""
RULES = ("one-to-one", "icpr12", "icpr14", "amida13", "midog", "midog-training", "paper")
"""Scoring rules, of `evaluation.matching`."""
DEVICES = ("auto", "cpu", "cuda", "openvino")
"""Devices that a model runs on, of `detection.model`."""


class InOrder(click.Group):
    """Lists its verbs in the order in which they were added."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


class Several(click.Option):
    """An option that takes all values up to the next option or data set: `--cases H04 H05`."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Let the parser give every value to the option."""
        super().add_to_parser(parser, ctx)
        for name in self.opts:
            option = parser._long_opt.get(name)
            if option is not None:
                option.process = _taking_all(option.process)


def _taking_all(process: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def take(value: Any, state: Any) -> None:
        process(value, state)
        # What is written as FORMAT:PATH is a data set, and belongs to the verb.
        while state.rargs and not re.match(r"-|[a-z0-9-]+:", state.rargs[0]):
            process(state.rargs.pop(0), state)

    return take


def several(context: click.Context, parameter: click.Parameter, value: Any) -> list[str] | None:
    """Return what was given for an option that may be repeated; None for nothing."""
    return list(value) or None


def mpp_option(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The scale of images that do not say it, and whether it holds for those that do."""
    insist = click.option(
        "--override-mpp",
        is_flag=True,
        help="Use --mpp even where the images say otherwise.",
    )
    given = click.option(
        "--mpp",
        type=float,
        help="Micrometers per pixel of the images, where they do not say it themselves.",
    )
    return given(insist(verb))


# Name, type, meaning, and what a new result is counted with.
_COUNTING = (
    ("--min-score", click.FloatRange(0, 1), "Smallest mean probability of a mitosis.", None),
    ("--min-area-um2", click.FloatRange(min=0), "Smallest area of a mitosis, um2.", None),
    ("--hotspot-area-mm2", click.FloatRange(0.01, 1000), "Area of the hotspot window, mm2.", 2.0),
    (
        "--hotspot-shape",
        click.Choice(["square", "circle", "box"]),
        "Shape of the hotspot window; a box is 4:3.",
        "square",
    ),
    (
        "--field-diameter-mm",
        click.FloatRange(0.4, 0.69),
        "Field diameter in mm, for the Nottingham score.",
        0.55,
    ),
)


def counting_options(defaults: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What a result is counted with; without defaults, what is not given is None."""

    def add(verb: Callable[..., Any]) -> Callable[..., Any]:
        for name, kind, text, default in reversed(_COUNTING):
            shown = defaults and default is not None
            value = default if defaults else None
            verb = click.option(name, type=kind, default=value, show_default=shown, help=text)(verb)
        return verb

    return add


page_option = click.option(
    "--page",
    type=click.IntRange(min=1),
    help="Number of the image in a TIFF that holds several; default: the largest.",
)
model_option = click.option(
    "-m",
    "--model",
    type=FilePath,
    help="Model file, or lite, the built-in one; default: lite.",
)
device_option = click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="What to run the networks on; one that is named must be there.",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 512),
    help="CPU threads; default: all this process may use.",
)
qupath_option = click.option(
    "--qupath",
    type=click.Choice(["annotation", "detection"]),
    default="annotation",
    show_default=True,
    help="What mitoses are in the GeoJSON: annotation (can be edited) or detection (lighter).",
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace the file that is there under this name."
)
json_option = click.option(
    "--json", "json_out", is_flag=True, help="Print JSON on standard output."
)


def print_json(content: Any) -> None:
    """Print what `json_option` asks for: JSON with sorted keys, on standard output."""
    print(json.dumps(content, indent=2, sort_keys=True))


@dataclass(frozen=True)
class DataSets:
    """The data sets that were named on the command line, and which of their cases."""

    names: Sequence[str]
    cases: Sequence[str] | None
    exclude: Sequence[str] | None
    mpp: float | None
    override_mpp: bool

    def load(self, problems: list[str] | None = None) -> list[Case]:
        """Return their cases; what is wrong is added to `problems`. Raises as `load_dataset`."""
        from segmitos.io.datasets import load_dataset

        chosen = self.cases or (), self.exclude or ()
        return load_dataset(self.names, *chosen, self.mpp, self.override_mpp, problems)

    def left_out(self) -> list[str]:
        """Say what of them is never loaded, a line each."""
        from segmitos.io.datasets import left_out

        return left_out(self.names)


def data_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Data sets and which of their cases, for a verb that takes `data`, a `DataSets`."""

    @functools.wraps(verb)
    def run(
        data: Sequence[str],
        cases: Sequence[str] | None,
        exclude: Sequence[str] | None,
        mpp: float | None,
        override_mpp: bool,
        **given: Any,
    ) -> Any:
        return verb(data=DataSets(data, cases, exclude, mpp, override_mpp), **given)

    names = click.argument(
        "data",
        nargs=-1,
        required=True,
        callback=several,
        help="Data sets as FORMAT:PATH, for example mitos14:DIR; see 'dataset list'.",
    )
    cases_option, exclude_option = (
        click.option(f"--{name}", cls=Several, multiple=True, callback=several, help=text)
        for name, text in (
            ("cases", "Only these slides or cases; patterns allowed."),
            ("exclude", "Not these slides or cases; patterns allowed."),
        )
    )
    return names(cases_option(exclude_option(mpp_option(run))))
