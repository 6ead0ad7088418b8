"""The command line: one thin function per verb. Everything heavy is imported inside them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from segmitos.errors import SegMitosError
from segmitos.options import (
    FilePath,
    cases_option,
    data_argument,
    device_option,
    exclude_option,
    file,
    flag,
    json_option,
    model_option,
    mpp_option,
    number,
    option,
    out,
    qupath_option,
    several,
    threads_option,
    word,
)


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


@app.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    callback=several,
    help="Images, slides, folders, globs, or a .txt list of them.",
)
@out("Folder for the results.", "segmitos-out")
@mpp_option
@model_option
@device_option
@threads_option
@file("--roi", "GeoJSON of regions; work is limited to them.")
@option(
    "--tissue-mask/--no-tissue-mask",
    default=True,
    help="Read tissue only; --no-tissue-mask reads all.",
)
@word("--binarization", "'otsu' or a probability; default: the model's.")
@number("--min-score", "Mean probability of a mitosis.")
@number("--min-area", "Area of a mitosis in um2.")
@number("--hotspot-area", "Area of the hotspot window, mm2.", 2.0)
@word("--hotspot-shape", "square, circle or box (4:3).", "square")
@number("--field-diameter", "Field diameter in mm, for the Nottingham score.", 0.55)
@flag("--map", "Also write the probability map as pyramidal TIFF.", "probability_map")
@qupath_option
@number("--workers", "Inputs worked on at once, in processes.", 1, int)
@word("--cluster", "Address of a Dask scheduler, tcp://HOST:8786.")
@flag("--overwrite", "Do finished inputs again.")
@json_option
def detect(**given: Any) -> int:
    """Detect mitoses in images and slides.

    Example: segmitos detect slides/ -o results --mpp 0.25
    """
    from segmitos.commands.detect import run_detect

    return run_detect(**given)


@app.command()
@data_argument
@out("Folder of the run; resumed if there.")
@file("--recipe", "Recipe (TOML); default: our own.")
@option(
    "--validation",
    multiple=True,
    callback=several,
    help="Slides or cases to validate on, kept from training.",
)
@cases_option
@exclude_option
@mpp_option
@file("--start-from", "Folder of a finished run to start from.")
@number("--epochs", "Instead of the recipe's.", kind=int)
@number("--seed", "Instead of the recipe's.", kind=int)
@word("--accelerator", "auto, cpu or cuda.", "auto")
@number("--devices", "Processes or GPUs.", 1, int)
@threads_option
@flag("--restart", "Refuse to resume a run that is there.")
def train(**given: Any) -> int:
    """Train a detector from clicks on mitoses.

    Example: segmitos train mitos14:DIR --validation H03 -o runs/first
    """
    from segmitos.commands.train import run_train

    return run_train(**given)


@app.command()
@data_argument
@model_option
@file("--out", "Folder for tables, curves and galleries.", "-o")
@file("--detections", "Score saved detections (an output folder of detect) instead of running.")
@cases_option
@exclude_option
@mpp_option
@word("--rule", "Scoring rule; 'all' shows every one.", "one-to-one")
@flag("--tune", "Find thresholds on these cases: validation, never test.")
@device_option
@threads_option
@json_option
def evaluate(**given: Any) -> int:
    """Score a detector on annotated images, or tune its thresholds on them.

    Example: segmitos evaluate mitos14:DIR --cases H03 -o scores
    """
    from segmitos.commands.evaluate import run_evaluate

    return run_evaluate(**given)


@app.command()
@click.argument("run", type=FilePath, help="Folder of a training run.")
@out("Model file to write (.onnx).")
@file("--thresholds", "thresholds.json that evaluate wrote when tuning.")
@word("--name", "Name of the model.")
@word("--license", "License of the weights.", "unstated")
@word("--intended-use", "What the model is for.", "research use only; not for diagnosis")
@word("--description", "One line on the model.", "")
@word("--stain-of", "FORMAT:PATH whose staining every slide is matched to; default: none.")
def export(**given: Any) -> int:
    """Turn a training run into a model file, and check that both agree.

    Example: segmitos export runs/first -o first.onnx
    """
    from segmitos.commands.train import run_export

    return run_export(**given)


@app.command()
@click.argument(
    "networks",
    nargs=-1,
    required=True,
    callback=several,
    help="Model files (.onnx) of one scale; their maps are averaged.",
)
@out("Model file to write (.onnx).")
@file("--scout", "Model file of a scout: the networks see only what it points at.")
@number("--above", "Probability of the scout from which on a place is looked at.", 0.1)
@number("--window", "Side of what the networks see of a place, px.", 128, int)
@number(
    "--confirm-above",
    "Probability of the first network from which on the others look at a place, too; 0: always.",
    0.0,
)
@file("--thresholds", "thresholds.json that evaluate wrote; default: the first network's.")
@word("--name", "Name of the model.")
@word("--description", "One line on the model; default: the first network's.")
def combine(**given: Any) -> int:
    """Make one model file of several: networks averaged, a scout in front of them.

    Example: segmitos combine one.onnx two.onnx --scout scout.onnx -o both.onnx
    """
    from segmitos.commands.train import run_combine

    return run_combine(**given)


@app.command()
@data_argument
@out("Model file to write (.onnx).")
@file("--model", "Model file (.onnx) in floats; default: lite-whole.", "-m")
@cases_option
@exclude_option
@mpp_option
@threads_option
def quantize(**given: Any) -> int:
    """Make an integer version of a model file: smaller, and faster on most CPUs.

    Example: segmitos quantize mitos14:DIR --exclude H03 -m first.onnx -o first-int8.onnx
    """
    from segmitos.commands.train import run_quantize

    return run_quantize(**given)


@app.group("dataset", cls=_InOrder, no_args_is_help=True)
def dataset_app() -> None:
    """List, describe and convert data sets."""


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
@file("--sheet", "Write a contact sheet of labelled crops (PNG).")
@json_option
def dataset_describe(**given: Any) -> int:
    """Count cases, slides and mitoses, and list what looks wrong.

    Example: segmitos dataset describe mitos14:DIR --sheet sheet.png
    """
    from segmitos.commands.dataset import run_describe

    return run_describe(**given)


@dataset_app.command("convert")
@data_argument
@out("Folder to write.")
@cases_option
@exclude_option
@mpp_option
def dataset_convert(**given: Any) -> int:
    """Convert a data set to a folder of images with one CSV of points each.

    Example: segmitos dataset convert mitos14:DIR -o points
    """
    from segmitos.commands.dataset import run_convert

    return run_convert(**given)


@app.command()
@click.argument("image", type=FilePath, help="An H&E image, about 0.25 um per pixel.")
@out("Folder for the result.", "segmitos-demo")
@number("--mpp", "Micrometres per pixel.", 0.25)
def demo(image: Path, out: Path, mpp: float) -> int:
    """Detect mitoses in one image and say where to look at the result.

    Example: segmitos demo field.png
    """
    from segmitos.commands.detect import run_demo

    return run_demo(image, out, mpp)


@app.command()
@click.argument("folder", type=FilePath, help="An output folder of detect.")
def report(folder: Path) -> int:
    """Make the HTML reports again from saved results, without the model.

    Example: segmitos report results
    """
    from segmitos.commands.detect import run_report

    return run_report(folder)


@app.command()
@click.argument("source", type=FilePath, help="GeoJSON, CSV, JSON, Grand Challenge or COCO.")
@click.argument("out", type=FilePath, help="File to write.")
@word("--to", "geojson, csv, json, midog or coco; default: by the ending of OUT.")
@number("--mpp", "Micrometres per pixel, where the file does not say it.")
@word("--image", "Name of the image to take from a COCO file of several.")
@qupath_option
@flag("--polygons", "Outlines of cells stand for their centroids.")
def convert(**given: Any) -> int:
    """Convert positions between QuPath, Grand Challenge (MIDOG), COCO, CSV and JSON.

    Example: segmitos convert detections.geojson mitoses.json --to midog
    """
    from segmitos.commands.convert import run_convert

    return run_convert(**given)


@app.command()
@model_option
@number("--size", "Side of the field, pixels.", 2084, int)
@number("--repeats", "Timed repetitions.", 5, int)
@file("--image", "A field of tissue at the model's scale to time on; default: a drawn one.")
@threads_option
@json_option
def bench(**given: Any) -> int:
    """Time the model on this machine.

    Example: segmitos bench
    """
    from segmitos.commands.bench import run_bench

    return run_bench(**given)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; print one line for an expected error. Returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(args=given, prog_name="segmitos", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except click.ClickException as error:
        return _refuse(error, given)
    except click.Abort:
        return _fail("stopped", 1)
    except SegMitosError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to go on", 130)
    except MemoryError:
        return _fail("out of memory; try fewer --workers", 1)


def _refuse(error: click.ClickException, given: list[str]) -> int:
    """Say in one line what is wrong with the call, with the value that was given."""
    message = error.format_message()
    if "\n" in message:
        # A verb without its arguments: the help, which click raises as an error.
        print(message)
        return error.exit_code
    context = getattr(error, "ctx", None)
    where = "segmitos" if context is None else context.command_path
    names = getattr(getattr(error, "param", None), "opts", [])
    for index, argument in enumerate(given):
        name, equals, value = argument.partition("=")
        if name in names:
            value = value if equals else " ".join(given[index + 1 : index + 2])
            if repr(value) not in message:
                message = f"{message.rstrip('.')}, not {value!r}"
    return _fail(f"{message.rstrip('.')}; see '{where} --help'", error.exit_code)


def _fail(message: str, code: int) -> int:
    print(f"segmitos: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def console() -> None:
    """Entry point of the `segmitos` script."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output, `head` say, has seen enough; nothing more can be told to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    console()
