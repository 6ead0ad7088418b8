"""The command line: one thin function per verb. Everything heavy is imported inside them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from segmitos.errors import SegMitosError

app = typer.Typer(
    name="segmitos",
    help="Find mitoses in H&E images and slides; train a detector from one click per mitosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
dataset_app = typer.Typer(help="List, describe and convert data sets.", no_args_is_help=True)
app.add_typer(dataset_app, name="dataset")

Mpp = Annotated[
    float | None,
    typer.Option(help="Micrometres per pixel of the images, where they do not say it themselves."),
]
ModelFile = Annotated[
    Path | None, typer.Option("--model", "-m", help="Model file (.onnx); default: the one shipped.")
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or openvino; a forced one must be there.")
]
Threads = Annotated[
    int | None, typer.Option(help="CPU threads; default: all this process may use.")
]
QuPath = Annotated[
    str,
    typer.Option(
        "--qupath",
        help="What mitoses are in the GeoJSON: annotation (can be edited) or detection (lighter).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Data = Annotated[
    list[str],
    typer.Argument(help="Data sets as FORMAT:PATH, for example mitos14:DIR; see 'dataset list'."),
]
Cases = Annotated[
    list[str] | None, typer.Option("--cases", help="Only these slides or cases; patterns allowed.")
]
Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", help="Not these slides or cases; patterns allowed.")
]


def _version(value: bool) -> None:
    if value:
        from segmitos import __version__

        typer.echo(f"segmitos {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def detect(
    paths: Annotated[
        list[str], typer.Argument(help="Images, slides, folders, globs, or a .txt list of them.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path(
        "segmitos-out"
    ),
    mpp: Mpp = None,
    model: ModelFile = None,
    device: Device = "auto",
    threads: Threads = None,
    roi: Annotated[
        Path | None, typer.Option(help="GeoJSON of regions; work is limited to them.")
    ] = None,
    tissue_mask: Annotated[
        bool, typer.Option(help="Read tissue only; --no-tissue-mask reads all.")
    ] = True,
    binarisation: Annotated[
        str | None, typer.Option(help="'otsu' or a probability; default: the model's.")
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Mean probability of a mitosis.")] = None,
    min_area: Annotated[float | None, typer.Option(help="Area of a mitosis in um2.")] = None,
    hotspot_area: Annotated[float, typer.Option(help="Area of the hotspot window, mm2.")] = 2.0,
    hotspot_shape: Annotated[str, typer.Option(help="square, circle or box (4:3).")] = "square",
    field_diameter: Annotated[
        float, typer.Option(help="Field diameter in mm, for the Nottingham score.")
    ] = 0.55,
    probability_map: Annotated[
        bool, typer.Option("--map", help="Also write the probability map as pyramidal TIFF.")
    ] = False,
    qupath: QuPath = "annotation",
    workers: Annotated[int, typer.Option(help="Inputs worked on at once, in processes.")] = 1,
    cluster: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler, tcp://HOST:8786.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Do finished inputs again.")] = False,
    json_out: Json = False,
) -> None:
    """Detect mitoses in images and slides.

    Example: segmitos detect slides/ -o results --mpp 0.25
    """
    from segmitos.commands.detect import run_detect

    given = {name: value for name, value in locals().items() if name != "run_detect"}
    raise typer.Exit(run_detect(**given))


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the run; resumed if there.")],
    recipe: Annotated[Path | None, typer.Option(help="Recipe (TOML); default: our own.")] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help="Slides or cases to validate on, kept from training.")
    ] = None,
    cases: Cases = None,
    exclude: Exclude = None,
    mpp: Mpp = None,
    start_from: Annotated[
        Path | None, typer.Option(help="Folder of a finished run to start from.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes or GPUs.")] = 1,
    threads: Threads = None,
    restart: Annotated[bool, typer.Option(help="Refuse to resume a run that is there.")] = False,
) -> None:
    """Train a detector from clicks on mitoses.

    Example: segmitos train mitos14:DIR --validation H03 -o runs/first
    """
    from segmitos.commands.train import run_train

    given = {name: value for name, value in locals().items() if name != "run_train"}
    raise typer.Exit(run_train(**given))


@app.command()
def evaluate(
    data: Data,
    model: ModelFile = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for tables, curves and galleries.")
    ] = None,
    detections: Annotated[
        Path | None,
        typer.Option(
            help="Score saved detections (an output folder of detect) instead of running."
        ),
    ] = None,
    cases: Cases = None,
    exclude: Exclude = None,
    mpp: Mpp = None,
    rule: Annotated[str, typer.Option(help="Scoring rule; 'all' shows every one.")] = "one-to-one",
    tune: Annotated[
        bool, typer.Option("--tune", help="Find thresholds on these cases: validation, never test.")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
    json_out: Json = False,
) -> None:
    """Score a detector on annotated images, or tune its thresholds on them.

    Example: segmitos evaluate mitos14:DIR --cases H03 -o scores
    """
    from segmitos.commands.evaluate import run_evaluate

    given = {name: value for name, value in locals().items() if name != "run_evaluate"}
    raise typer.Exit(run_evaluate(**given))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Model file to write (.onnx).")],
    thresholds: Annotated[
        Path | None, typer.Option(help="thresholds.json that evaluate wrote when tuning.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "unstated",
    intended_use: Annotated[
        str, typer.Option(help="What the model is for.")
    ] = "research use only; not for diagnosis",
    description: Annotated[str, typer.Option(help="One line on the model.")] = "",
    stain_of: Annotated[
        str | None,
        typer.Option(help="FORMAT:PATH whose staining every slide is matched to; default: none."),
    ] = None,
) -> None:
    """Turn a training run into a model file, and check that both agree.

    Example: segmitos export runs/first -o first.onnx
    """
    from segmitos.commands.train import run_export

    given = {key: value for key, value in locals().items() if key != "run_export"}
    raise typer.Exit(run_export(**given))


@dataset_app.command("list")
def dataset_list(json_out: Json = False) -> None:
    """List the data set formats.

    Example: segmitos dataset list
    """
    from segmitos.commands.dataset import run_list

    raise typer.Exit(run_list(json_out))


@dataset_app.command("describe")
def dataset_describe(
    data: Data,
    cases: Cases = None,
    exclude: Exclude = None,
    mpp: Mpp = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Write a contact sheet of labelled crops (PNG).")
    ] = None,
    json_out: Json = False,
) -> None:
    """Count cases, slides and mitoses, and list what looks wrong.

    Example: segmitos dataset describe mitos14:DIR --sheet sheet.png
    """
    from segmitos.commands.dataset import run_describe

    given = {name: value for name, value in locals().items() if name != "run_describe"}
    raise typer.Exit(run_describe(**given))


@dataset_app.command("convert")
def dataset_convert(
    data: Data,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    cases: Cases = None,
    exclude: Exclude = None,
    mpp: Mpp = None,
) -> None:
    """Convert a data set to a folder of images with one CSV of points each.

    Example: segmitos dataset convert mitos14:DIR -o points
    """
    from segmitos.commands.dataset import run_convert

    given = {name: value for name, value in locals().items() if name != "run_convert"}
    raise typer.Exit(run_convert(**given))


@app.command()
def demo(
    image: Annotated[Path, typer.Argument(help="An H&E image, about 0.25 um per pixel.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the result.")] = Path(
        "segmitos-demo"
    ),
    mpp: Annotated[float, typer.Option(help="Micrometres per pixel.")] = 0.25,
) -> None:
    """Detect mitoses in one image and say where to look at the result.

    Example: segmitos demo field.png
    """
    from segmitos.commands.detect import run_demo

    raise typer.Exit(run_demo(image, out, mpp))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="An output folder of detect.")],
) -> None:
    """Make the HTML reports again from saved results, without the model.

    Example: segmitos report results
    """
    from segmitos.commands.detect import run_report

    raise typer.Exit(run_report(folder))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="GeoJSON, CSV, JSON, Grand Challenge or COCO.")],
    out: Annotated[Path, typer.Argument(help="File to write.")],
    to: Annotated[
        str | None,
        typer.Option(help="geojson, csv, json, midog or coco; default: by the ending of OUT."),
    ] = None,
    mpp: Annotated[
        float | None, typer.Option(help="Micrometres per pixel, where the file does not say it.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Name of the image to take from a COCO file of several.")
    ] = None,
    qupath: QuPath = "annotation",
    polygons: Annotated[
        bool, typer.Option("--polygons", help="Outlines of cells stand for their centroids.")
    ] = False,
) -> None:
    """Convert positions between QuPath, Grand Challenge (MIDOG), COCO, CSV and JSON.

    Example: segmitos convert detections.geojson mitoses.json --to midog
    """
    from segmitos.commands.convert import run_convert

    given = {name: value for name, value in locals().items() if name != "run_convert"}
    raise typer.Exit(run_convert(**given))


@app.command()
def bench(
    model: ModelFile = None,
    size: Annotated[int, typer.Option(help="Side of the field, pixels.")] = 2084,
    repeats: Annotated[int, typer.Option(help="Timed repetitions.")] = 5,
    threads: Threads = None,
    json_out: Json = False,
) -> None:
    """Time the model on this machine.

    Example: segmitos bench
    """
    from segmitos.commands.bench import run_bench

    raise typer.Exit(run_bench(model, size, repeats, threads, json_out))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; print one line for an expected error. Returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(args=given, prog_name="segmitos", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except TyperException as error:
        return _refuse(error, given)
    except typer.Abort:
        return _fail("stopped", 1)
    except SegMitosError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to go on", 130)
    except MemoryError:
        return _fail("out of memory; try fewer --workers", 1)


def _refuse(error: TyperException, given: list[str]) -> int:
    """Say in one line what is wrong with the call, with the value that was given."""
    message = error.format_message()
    if "\n" in message:
        # A verb without its arguments: the help, which typer raises as an error.
        print(message)
        return error.exit_code
    context = getattr(error, "ctx", None)
    where = "segmitos" if context is None else context.command_path
    names = getattr(getattr(error, "param", None), "opts", [])
    for index, argument in enumerate(given):
        name, equals, value = argument.partition("=")
        if name in names:
            value = value if equals else " ".join(given[index + 1 : index + 2])
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
