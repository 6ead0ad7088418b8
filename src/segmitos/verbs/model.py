"""The verbs that make model files and tell what is in one."""

from __future__ import annotations

from typing import Any

import click

from segmitos.options import (
    FilePath,
    cases_option,
    data_argument,
    exclude_option,
    json_option,
    mpp_option,
    several,
    threads_option,
)

out_option = click.option(
    "-o", "--out", type=FilePath, required=True, help="Model file to write (.segmitos)."
)
probability = click.FloatRange(0, 1, max_open=True)


@click.group("model", no_args_is_help=True)
def model_app() -> None:
    """Make model files, and tell what is in one.

    A model file (NAME.segmitos) is a zip of model.json and plain ONNX graphs. `export` makes one of
    a training run, `combine` averages several and puts a proposal network in front of them,
    `quantize` makes an int8 version.
    """


@model_app.command("info")
@click.argument("model", help="Model file, or lite, lite-float, lite-single.")
@json_option
def info(model: str, json_out: bool) -> int:
    """Print a model card: what a model was trained on, how it was scored, what it is for.

    Example: segmitos model info lite
    """
    from segmitos.commands.model import run_info

    return run_info(model, json_out)


@model_app.command("export")
@click.argument("run", type=FilePath, help="Folder of a training run.")
@out_option
@click.option(
    "--thresholds", type=FilePath, help="thresholds.json that evaluate wrote when tuning."
)
@click.option("--name", help="Name of the model.")
@click.option("--license", default="unstated", show_default=True, help="License of the weights.")
@click.option(
    "--intended-use",
    default="research use only; not for diagnosis",
    show_default=True,
    help="What the model is for.",
)
@click.option("--description", default="", show_default=True, help="One line on the model.")
@click.option(
    "--stain-of", help="FORMAT:PATH whose staining every slide is matched to; default: none."
)
def export(**given: Any) -> int:
    """Turn a training run into a model file, and check that both agree.

    Example: segmitos model export runs/first -o first.segmitos
    """
    from segmitos.commands.model import run_export

    return run_export(**given)


@model_app.command("combine")
@click.argument(
    "networks",
    nargs=-1,
    required=True,
    callback=several,
    help="Model files of one scale; their maps are averaged.",
)
@out_option
@click.option(
    "--proposal-network",
    type=FilePath,
    help="Model file of a proposal network: the others see only patches round its proposals.",
)
@click.option(
    "--proposal-threshold",
    type=probability,
    default=0.15,
    show_default=True,
    help="Probability above which a local maximum of the proposal network is a proposal.",
)
@click.option(
    "--ensemble-threshold",
    type=probability,
    default=0.0,
    show_default=True,
    help="Networks after the first see patches in which the first found more; 0: every patch.",
)
@click.option("--patch-px", type=int, help="Side of a patch in pixels.")
@click.option("--block-px", type=int, help="A patch is cut round each such block with a proposal.")
@click.option("--margin-px", type=int, help="Border of a patch that is not used.")
@click.option(
    "--half-precision",
    is_flag=True,
    help="Store weights in float16: half the size; probabilities change by about 0.001.",
)
@click.option(
    "--thresholds",
    type=FilePath,
    help="thresholds.json that evaluate wrote; default: the first network's.",
)
@click.option("--name", help="Name of the model.")
@click.option("--description", help="One line on the model; default: the first network's.")
def combine(**given: Any) -> int:
    """Make one model file of several: networks averaged, behind a proposal network.

    Example: segmitos model combine a.segmitos b.segmitos -o both.segmitos
    """
    from segmitos.commands.model import run_combine

    return run_combine(**given)


@model_app.command("quantize")
@data_argument
@out_option
@click.option(
    "-m", "--model", default="lite-float", show_default=True, help="Model file in float32."
)
@cases_option
@exclude_option
@mpp_option
@threads_option
def quantize(**given: Any) -> int:
    """Make an int8 version of a model file: smaller, and faster on most CPUs.

    Calibrate on training images of every laboratory, never on test images.

    Example: segmitos model quantize mitos14:DIR --exclude H03 -m first.segmitos -o int8.segmitos
    """
    from segmitos.commands.model import run_quantize

    return run_quantize(**given)
