"""The command line: one thin function per verb. Everything heavy is imported inside them."""

from __future__ import annotations

import sys
from typing import Any

import click

from segmitos.console import run_app, run_console
from segmitos.options import (
    POINT_FORMATS,
    FilePath,
    cases_option,
    data_argument,
    device_option,
    exclude_option,
    json_option,
    model_option,
    mpp_option,
    qupath_option,
    threads_option,
)
from segmitos.verbs.detect import demo, detect, report
from segmitos.verbs.model import model_app
from segmitos.verbs.recount import recount
from segmitos.verbs.review import review
from segmitos.verbs.train import crossval, train


class _InOrder(click.Group):
    """Lists its verbs in the order of this file."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True
)
@click.version_option(package_name="segmitos", message="%(prog)s %(version)s")
def app() -> None:
    """Find mitoses in H&E images and slides; train a detector from one click per mitosis."""


app.add_command(detect)
app.add_command(recount)
app.add_command(train)
app.add_command(crossval)


@app.command()
@data_argument
@model_option
@click.option("-o", "--out", type=FilePath, help="Folder for tables, curves and galleries.")
@click.option(
    "--detections",
    type=FilePath,
    help="Score saved detections (an output folder of detect) instead of running.",
)
@cases_option
@exclude_option
@mpp_option
@click.option(
    "--rule", default="one-to-one", show_default=True, help="Scoring rule; 'all' shows every one."
)
@click.option(
    "--tune", is_flag=True, help="Find thresholds on these cases: validation, never test."
)
@device_option
@threads_option
@json_option
def evaluate(**given: Any) -> int:
    """Score a detector on annotated images, or tune its thresholds on them.

    Example: segmitos evaluate mitos14:DIR --cases H03 -o scores
    """
    from segmitos.commands.evaluate import run_evaluate

    return run_evaluate(**given)


app.add_command(model_app)


@app.group("dataset", cls=_InOrder, no_args_is_help=True)
def dataset_app() -> None:
    """List, describe, audit and convert data sets."""


@dataset_app.command("list")
@json_option
def dataset_list(json_out: bool) -> int:
    """List the data set formats.

    Example: segmitos dataset list
    """
    from segmitos.commands.dataset import run_list

    return run_list(json_out)


@dataset_app.command("describe")
@data_argument
@cases_option
@exclude_option
@mpp_option
@click.option(
    "--sheet",
    type=FilePath,
    help="Write all labels as crops (PNG pages), their table, and the regions.",
)
@json_option
def dataset_describe(**given: Any) -> int:
    """Count cases, slides and mitoses, and list what looks wrong.

    Example: segmitos dataset describe mitos14:DIR --sheet sheet.png
    """
    from segmitos.commands.dataset import run_describe

    return run_describe(**given)


@dataset_app.command("audit")
@data_argument
@click.option("-o", "--out", type=FilePath, required=True, help="New folder to write.")
@cases_option
@exclude_option
@mpp_option
@click.option(
    "--folds",
    type=click.IntRange(2),
    default=3,
    show_default=True,
    help="Parts that the slides are divided in; each is judged by networks of the others.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Networks for each part, whose probabilities are averaged.",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=600,
    show_default=True,
    help="Steps of each training, about half a second each on one CPU core.",
)
@click.option(
    "--missed-above",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="Probability from which a cell without the label of a mitosis is suspected.",
)
@click.option(
    "--doubtful-below",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Probability up to which a labelled mitosis is suspected.",
)
@threads_option
def dataset_audit(**given: Any) -> int:
    """List labels that look wrong, and write a copy in which they are unsure.

    Each slide is judged by networks that were trained on the other slides. Look at the sheets: what
    the networks suspect is not what a pathologist would say.

    Example: segmitos dataset audit points:DIR -o audit
    """
    from segmitos.commands.audit import run_audit

    return run_audit(**given)


@dataset_app.command("convert")
@data_argument
@click.option("-o", "--out", type=FilePath, required=True, help="Folder to write.")
@cases_option
@exclude_option
@mpp_option
def dataset_convert(**given: Any) -> int:
    """Convert a data set to a folder of images with one CSV of points each.

    Example: segmitos dataset convert mitos14:DIR -o points
    """
    from segmitos.commands.dataset import run_convert

    return run_convert(**given)


app.add_command(demo)
app.add_command(report)
app.add_command(review)


@app.command()
@click.argument(
    "source", type=FilePath, help="CSV, GeoJSON, JSON, Grand Challenge, COCO, MIDOG, SlideRunner."
)
@click.argument("out", type=FilePath, help="File to write.")
@click.option(
    "--to",
    type=click.Choice(POINT_FORMATS),
    help="Format; default: by the ending of OUT. midog is MIDOG's output, midog-labels its labels.",
)
@click.option("--mpp", type=float, help="Micrometres per pixel, where the file does not say it.")
@click.option("--image", help="Name of the image to take from a file of several.")
@click.option(
    "--slide",
    type=FilePath,
    help="The image the points are of: gives its scale, its size, and where QuPath's frame begins.",
)
@qupath_option
@click.option("--polygons", is_flag=True, help="Outlines of cells stand for their centroids.")
@click.option(
    "--boxes",
    type=click.Choice(["sizes", "corners"]),
    help="Boxes are [x, y, width, height] (COCO) or [x1, y1, x2, y2] (MIDOG); default: by numbers.",
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME=LABEL",
    help="What a class is: mitosis, non-mitosis, unsure or ignore. May be repeated.",
)
def convert(**given: Any) -> int:
    """Convert points between QuPath, Grand Challenge, COCO, MIDOG, SlideRunner, CSV and JSON.

    Classes are kept; what a format cannot hold is counted on the console.

    Example: segmitos convert detections.geojson mitoses.json --to midog
    """
    from segmitos.commands.convert import run_convert

    return run_convert(**given)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; print one line for an expected error. Returns the exit code."""
    return run_app(app, sys.argv[1:] if arguments is None else arguments)


def console() -> None:
    """Entry point of the `segmitos` script."""
    run_console(main)


if __name__ == "__main__":
    console()
