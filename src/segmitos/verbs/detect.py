"""The verbs that detect and show what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from segmitos.options import (
    FilePath,
    device_option,
    json_option,
    model_option,
    mpp_option,
    page_option,
    qupath_option,
    several,
    threads_option,
)


def shard_of(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    """Read a part of a job array, `3/8`."""
    first, slash, second = value.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal()):
        raise click.BadParameter(f"{value!r} is not I/N, such as 3/8", context, parameter)
    if not 1 <= int(first) <= int(second):
        raise click.BadParameter(f"{value!r}: I must be from 1 to N", context, parameter)
    return int(first), int(second)


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    callback=several,
    help="Images, slides, folders, globs, a .txt list, or a .csv table path,mpp,roi,name.",
)
@click.option(
    "-o",
    "--out",
    type=FilePath,
    default="segmitos-out",
    show_default=True,
    help="Folder for the results.",
)
@mpp_option
@page_option
@model_option
@device_option
@threads_option
@click.option("--roi", type=FilePath, help="GeoJSON of regions, or a folder of them.")
@click.option(
    "--tissue-mask/--no-tissue-mask",
    default=True,
    show_default=True,
    help="Read tissue only; --no-tissue-mask reads all.",
)
@click.option("--threshold", help="'otsu' or a probability; default: the model's.")
@click.option("--min-score", type=click.FloatRange(0, 1), help="Mean probability of a mitosis.")
@click.option("--min-area-um2", type=click.FloatRange(min=0), help="Area of a mitosis in um2.")
@click.option(
    "--hotspot-area",
    type=click.FloatRange(0.01, 1000),
    default=2.0,
    show_default=True,
    help="Area of the hotspot window, mm2.",
)
@click.option(
    "--hotspot-shape",
    type=click.Choice(["square", "circle", "box"]),
    default="square",
    show_default=True,
    help="square, circle or box (4:3).",
)
@click.option(
    "--field-diameter",
    type=click.FloatRange(0.4, 0.69),
    default=0.55,
    show_default=True,
    help="Field diameter in mm, for the Nottingham score.",
)
@click.option(
    "--map",
    "probability_map",
    is_flag=True,
    help="Also write the probability map as pyramidal TIFF.",
)
@qupath_option
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Inputs worked on at once, in processes.",
)
@click.option("--cluster", help="Address of a Dask scheduler, tcp://HOST:8786.")
@click.option(
    "--shard",
    default="1/1",
    callback=shard_of,
    help="I/N: only every N-th input from the I-th on, for job arrays into one folder.",
)
@click.option("--overwrite", is_flag=True, help="Do finished inputs again.")
@json_option
@click.option("-v", "--verbose", is_flag=True, help="Also say how each result was made.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--log", type=FilePath, help="File to append events to, one JSON line each.")
def detect(**given: Any) -> int:
    """Detect mitoses in images and slides.

    Example: segmitos detect slides/ -o results --mpp 0.25
    """
    from segmitos.commands.detect import run_detect

    return run_detect(**given)


@click.command()
@click.argument("image", type=FilePath, help="An H&E image, about 0.25 um per pixel.")
@click.option(
    "-o",
    "--out",
    type=FilePath,
    default="segmitos-demo",
    show_default=True,
    help="Folder for the result.",
)
@click.option(
    "--mpp",
    type=float,
    help="Micrometres per pixel, where the image does not say it itself; default: 0.25.",
)
@click.option("--override-mpp", is_flag=True, help="Use --mpp even where the image says otherwise.")
@page_option
def demo(image: Path, out: Path, mpp: float | None, override_mpp: bool, page: int | None) -> int:
    """Detect mitoses in one image and say where to look at the result.

    Example: segmitos demo field.png
    """
    from segmitos.commands.detect import run_demo

    return run_demo(image, out, mpp, override_mpp, page)


@click.command()
@click.argument("folder", type=FilePath, help="An output folder of detect.")
def report(folder: Path) -> int:
    """Make the HTML reports again from saved results, without the model.

    Example: segmitos report results
    """
    from segmitos.commands.detect import run_report

    return run_report(folder)
