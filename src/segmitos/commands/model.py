"""`segmitos model info`, `export`, `combine` and `quantize`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from segmitos.commands.progress import in_words, print_warnings
from segmitos.errors import DataError, UsageError
from segmitos.options import (
    DataSets,
    FilePath,
    InOrder,
    data_options,
    json_option,
    print_json,
    several,
    threads_option,
)
from segmitos.training.packages import require_training

out_option = click.option(
    "-o", "--out", type=FilePath, required=True, help="Model file to write (.segmitos)."
)
probability = click.FloatRange(0, 1, max_open=True)


@click.group("model", cls=InOrder, no_args_is_help=True)
def model_app() -> None:
    """Make model files, and tell what is in one.

    A model file (NAME.segmitos) is a zip of model.json and plain ONNX graphs. `export` makes one of
    a training run, `combine` averages several and puts a proposal network in front of them,
    `quantize` makes an int8 version.
    """


@model_app.command("info")
@click.argument("model", help="Model file, or lite, the built-in one.")
@json_option
def info(model: str, json_out: bool) -> None:
    """Print a model card: what a model was trained on, how it was scored, what it is for.

    Example: segmitos model info lite
    """
    import msgspec

    from segmitos.detection.model import find_model
    from segmitos.detection.model_file import read_model_file

    path = find_model(model)
    file = read_model_file(path)
    about: dict[str, Any] = msgspec.to_builtins(file.spec)
    about["sha256"], about["bytes"] = file.sha256, path.stat().st_size
    about["networks"] = len(file.networks)
    if json_out:
        print_json(about)
    else:
        print(model_card(about))


def model_card(about: Mapping[str, Any]) -> str:
    """Return the model card as text.

    Args:
        about: the specification of a model file as plain values, its `sha256` and `bytes`, and the
            number of its `networks`.
    """
    thresholds, cascade, verifier = about["thresholds"], about["cascade"], about["verifier"]
    rows = [
        ("model", f"{about['name']}, {about['bytes'] / 1e6:.1f} MB, SHA-256 {about['sha256']}"),
        ("description", about["description"]),
        ("intended use", about["intended_use"]),
        ("license", about["license"]),
        ("trained on", ", ".join(about["datasets"])),
        ("laboratories", "; ".join(about["laboratories"])),
        ("label", _pairs(about["labels"])),
        ("commit", about["training_commit"]),
        ("reads", f"{about['mpp']:g} um per pixel; map at stride {about['stride']}"),
        ("context", f"{about['context_px']} px; smoothing {about['smoothing_sigma_um']:g} um"),
        ("stain", "matched to the training slides" if about["stain"] else "left as it is"),
        ("networks", f"{about['networks']}, averaged"),
    ]
    if cascade:
        used_px = cascade["patch_px"] - 2 * cascade["margin_px"]
        text = (
            f"{cascade['proposal_network']} at {cascade['proposal_mpp']:g} um per pixel, proposals "
            f"above {cascade['proposal_threshold']:g}{_screening(cascade)}; "
            f"patches of {cascade['patch_px']} px, their "
            f"middle {used_px} px used; all networks above {cascade['ensemble_threshold']:g}"
        )
        rows.append(("cascade", text))
    if verifier:
        rows.append(("verifier", f"on patches of {verifier['patch_px']} px"))
    text = (
        f"probability {thresholds['threshold']}, area from {thresholds['min_area_um2']:g} um2, "
        f"score from {thresholds['min_score']:g}"
    )
    rows.append(("thresholds", text))
    rows += [(f"validation: {key}", _figures(value)) for key, value in about["validation"].items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text or 'not stated'}" for name, text in rows)


def _screening(cascade: Mapping[str, Any]) -> str:
    side, threshold = cascade["screening_patch_px"], cascade["screening_threshold"]
    return f", screened on patches of {side} px above {threshold:g}" if side else ""


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_shown(value)}" for key, value in values.items())


def _figures(value: Any) -> str:
    """Say a figure; of a table of figures say what it holds, since a line has no room for it."""
    inner = value.values() if isinstance(value, Mapping) else ()
    if any(isinstance(one, Mapping | list) for one in inner):
        return f"{', '.join(value)}: see --json"
    return _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({_pairs(value)})"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


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
    "--stain-of",
    help="FORMAT:PATH whose staining every slide is matched to; default: the training slides', "
    "where the recipe varies staining.",
)
def export(
    run: Path,
    out: Path,
    thresholds: Path | None,
    name: str | None,
    stain_of: str | None,
    **given: Any,
) -> None:
    """Turn a training run into a model file, and check that both agree.

    Example: segmitos model export runs/first -o first.segmitos
    """
    require_training()
    from segmitos.evaluation.tuning import read_thresholds
    from segmitos.training.export import export_run

    _check_place(out)
    difference = export_run(
        run,
        out,
        tuned=None if thresholds is None else read_thresholds(thresholds),
        name=name or out.stem,
        stain=None if stain_of is None else _stain_of(stain_of),
        **given,
    )
    size = out.stat().st_size / 1e6
    print(f"{out}: {size:.1f} MB, differs from the network by at most {difference:.1e}")


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
@click.option("--patch-px", type=int, help="Side of a patch in pixels; default: 224.")
@click.option(
    "--block-px",
    type=int,
    help="A patch is cut round each block of this side that has a proposal; default: 32.",
)
@click.option("--margin-px", type=int, help="Border of a patch that is not used; default: 80.")
@click.option(
    "--grid-px",
    type=int,
    help="The networks' coarsest stride, on whose grid patches lie: 16 or 32 (default).",
)
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
def combine(
    networks: Sequence[str],
    out: Path,
    proposal_network: Path | None,
    thresholds: Path | None,
    name: str | None,
    **given: Any,
) -> None:
    """Make one model file of several: networks averaged, behind a proposal network.

    Example: segmitos model combine a.segmitos b.segmitos -o both.segmitos
    """
    require_training()
    from segmitos.detection.model import find_model
    from segmitos.evaluation.tuning import read_thresholds
    from segmitos.training.combine import combine

    paths = [find_model(network) for network in networks]
    proposal = None if proposal_network is None else find_model(proposal_network)
    _check_place(out, paths if proposal is None else [*paths, proposal])
    combine(
        paths,
        out,
        proposal,
        tuned=None if thresholds is None else read_thresholds(thresholds),
        name=name or out.stem,
        **{key: value for key, value in given.items() if value is not None},
    )
    behind = "" if proposal_network is None else f", behind {proposal_network}"
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {in_words(len(networks), 'network')}{behind}")


@model_app.command("quantize")
@data_options
@out_option
@click.option("-m", "--model", type=FilePath, required=True, help="Model file in float32.")
@threads_option
def quantize(
    data: DataSets,
    out: Path,
    model: Path,
    threads: int | None,
) -> None:
    """Make an int8 version of a model file: smaller, and faster on most CPUs.

    Calibrate on training images of every laboratory, never on test images.

    Example: segmitos model quantize mitos14:DIR --exclude H03 -m first.segmitos -o int8.segmitos
    """
    require_training()
    from segmitos.detection.model import find_model
    from segmitos.training.quantize import calibration_cases, quantize

    _check_place(out, [find_model(model)])
    cases = calibration_cases(data.load(), len(data.names))
    print_warnings(data.left_out())
    made = quantize(model, cases, out, threads)
    print_warnings(made.warnings)
    print(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, calibrated on {made.crops} crops; probability "
        f"changed by {made.difference[0]:.1g} on average, {made.difference[1]:.2g} at 999 in 1000 "
        f"map pixels (logits by {made.shift:+.3f}, taken back); score it with 'segmitos evaluate'"
    )


def _check_place(out: Path, sources: Sequence[Path] = ()) -> None:
    """Refuse to write a model where it would not be found, or over anything but a model."""
    from segmitos.detection.model_file import SUFFIX, is_model_file
    from segmitos.io.outputs import check_file

    if out.suffix != SUFFIX:
        raise UsageError(f"--out {out} must end in {SUFFIX}")
    check_file(out, is_own=is_model_file, sources=sources)


def _stain_of(spec: str) -> Any:
    """Measure the staining of a data set: its images together, every eighth pixel."""
    import numpy as np

    from segmitos.detection.stain import od_statistics
    from segmitos.detection.view import stain_pixels
    from segmitos.io.datasets import load_dataset

    pixels = []
    for case in load_dataset(spec):
        with case.open_image() as slide:
            print_warnings(slide.warnings)
            whole = slide.read(0, 0, slide.width, slide.height)
        # Where the scale is unknown, that of a x40 scan: only how far borders reach hangs on it.
        pixels.append(stain_pixels(whole, slide.mpp or 0.25, 8))
    stain = od_statistics(np.concatenate(pixels))
    if stain is None:
        raise DataError(f"{spec} holds no tissue to measure a staining on")
    return stain
