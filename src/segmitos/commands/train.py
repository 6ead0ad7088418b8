"""`segmitos train`, `segmitos export` and `segmitos quantize`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmitos.commands.training_progress import TrainingProgress
from segmitos.errors import DataError, UsageError

if TYPE_CHECKING:
    from segmitos.io.datasets import Case

# An integer model is calibrated on every n-th image, so that there are this many to twice as many.
CALIBRATION_CASES = 48
AUTO = "auto"


def require_training() -> None:
    needed = {
        "torch": "torch",
        "lightning_fabric": "lightning-fabric",
        "safetensors": "safetensors",
    }
    missing = [name for module, name in needed.items() if find_spec(module) is None]
    if missing:
        raise UsageError(
            f"training needs {', '.join(missing)}, which is not installed: pip install '.[train]'"
        )


def run_train(
    data: Sequence[str],
    out: Path,
    recipe: str,
    validation: Sequence[str] | None,
    cases: Sequence[str] | None,
    exclude: Sequence[str] | None,
    mpp: float | None,
    override_mpp: bool,
    start_from: str | None,
    epochs: int | None,
    seed: int | None,
    time_budget: float | None,
    accelerator: str,
    devices: int,
    threads: int | None,
    no_resume: bool,
    restart: bool,
) -> int:
    """Train, and leave a tuned model file with its score."""
    require_training()
    from segmitos.detection.model import available_threads
    from segmitos.io.datasets import load_dataset
    from segmitos.training.finish import finish
    from segmitos.training.recipe import load_recipe
    from segmitos.training.train import train

    if no_resume and restart:
        raise UsageError("--no-resume and --restart exclude each other")
    chosen = load_recipe(recipe, epochs=epochs, seed=seed)
    every = load_dataset(data, cases or (), exclude or (), mpp, override_mpp)
    training, held_out = split(every, validation or ())
    print(describe_split(training, held_out), flush=True)
    with TrainingProgress() as progress:
        train(
            training,
            out,
            chosen,
            held_out,
            start_from=start_from,
            existing="restart" if restart else "refuse" if no_resume else "resume",
            time_budget_s=time_budget,
            on_event=progress,
            accelerator=accelerator,
            devices=devices,
            threads=threads or available_threads(),
        )
    print(finish(out, held_out, threads).text())
    return 0


def split(cases: Sequence[Case], patterns: Sequence[str]) -> tuple[list[Case], list[Case]]:
    """Return the cases to train on and those to validate on.

    Args:
        cases: all of them.
        patterns: slides or cases to validate on; `auto` holds slides out by
            `evaluation.folds.hold_out`.

    Raises:
        DataError: for a pattern that names nothing, or fewer than two slides for `auto`.
    """
    from segmitos.evaluation.folds import hold_out

    kept: set[str] = set()
    for pattern in patterns:
        if pattern == AUTO:
            kept |= {case.name for case in hold_out(cases)}
            continue
        named = {c.name for c in cases if fnmatch(c.slide, pattern) or fnmatch(c.name, pattern)}
        if not named:
            slides = sorted({case.slide for case in cases})
            shown = ", ".join(slides[:12]) + (" ..." if len(slides) > 12 else "")
            raise DataError(f"--validation {pattern} names no slide or case; slides: {shown}")
        kept |= named
    training = [case for case in cases if case.name not in kept]
    return training, [case for case in cases if case.name in kept]


def describe_split(training: Sequence[Case], held_out: Sequence[Case]) -> str:
    """Say what is trained on and what validates, with a warning where nothing does."""
    lines = [f"training on {_described(training)}"]
    if held_out:
        slides = sorted({case.slide for case in held_out})
        shown = ", ".join(slides[:6]) + (" ..." if len(slides) > 6 else "")
        lines.append(f"validating on {_described(held_out)}: {shown}")
    else:
        lines.append(
            "warning: no validation slides, so that what the network is worth stays unknown and "
            "its thresholds are not tuned; give --validation SLIDE, or --validation auto"
        )
    return "\n".join(lines)


def _described(cases: Sequence[Case]) -> str:
    slides = len({case.slide for case in cases})
    mitoses = sum(len(case.mitoses_xy) for case in cases)
    return f"{len(cases)} images of {slides} slides, {mitoses} mitoses"


def run_export(
    run: Path,
    out: Path,
    thresholds: Path | None,
    name: str | None,
    license: str,
    intended_use: str,
    description: str,
    stain_of: str | None,
) -> int:
    """Write the model file of a run."""
    require_training()
    from segmitos.training.export import export_run

    if out.suffix != ".onnx":
        raise UsageError(f"--out {out} must end in .onnx")
    content = read_thresholds(thresholds) if thresholds is not None else None
    difference = export_run(
        run,
        out,
        tuned=content,
        name=name or out.stem,
        license=license,
        intended_use=intended_use,
        description=description,
        color=None if stain_of is None else _stain_of(stain_of),
    )
    size = out.stat().st_size / 1e6
    print(f"{out}: {size:.1f} MB, differs from the network by at most {difference:.1e}")
    return 0


def run_combine(
    networks: Sequence[str],
    out: Path,
    scout: Path | None,
    above: float,
    window: int,
    confirm_above: float,
    thresholds: Path | None,
    name: str | None,
    description: str | None,
) -> int:
    """Write several model files as one."""
    require_training()
    from segmitos.training.combine import combine

    if out.suffix != ".onnx":
        raise UsageError(f"--out {out} must end in .onnx")
    tuned = None if thresholds is None else read_thresholds(thresholds)
    paths = [Path(network) for network in networks]
    combine(paths, out, scout, above, window, confirm_above, tuned, name or out.stem, description)
    first = "" if scout is None else f", behind a first look by {scout}"
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(paths)} network(s){first}")
    return 0


def run_quantize(
    data: Sequence[str],
    out: Path,
    model: Path | None,
    cases: Sequence[str] | None,
    exclude: Sequence[str] | None,
    mpp: float | None,
    override_mpp: bool,
    threads: int | None,
) -> int:
    """Write the integer version of a model file."""
    require_training()
    from segmitos.detection.model import WHOLE_MODEL
    from segmitos.io.datasets import load_dataset
    from segmitos.training.quantize import quantize

    if out.suffix != ".onnx":
        raise UsageError(f"--out {out} must end in .onnx")
    found = load_dataset(data, cases or (), exclude or (), mpp, override_mpp)
    every = max(1, len(found) // CALIBRATION_CASES)
    made = quantize(model or WHOLE_MODEL, found[::every], out, threads)
    print(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, calibrated on {made.crops} crops; probability "
        f"changed by {made.difference[0]:.1g} on average, {made.difference[1]:.2g} at 999 in 1000 "
        f"cells (logits by {made.shift:+.3f}, taken back); score it with 'segmitos evaluate'"
    )
    return 0


def _stain_of(spec: str) -> Any:
    """Measure the staining of a data set: its images together, every eighth pixel."""
    import numpy as np

    from segmitos.detection.stain import od_statistics
    from segmitos.io.datasets import load_dataset

    pixels = []
    for case in load_dataset(spec):
        with case.open_image() as slide:
            whole = slide.read(0, 0, slide.width, slide.height)
        pixels.append(whole[::8, ::8].reshape(-1, 3))
    stain = od_statistics(np.concatenate(pixels))
    if stain is None:
        raise DataError(f"{spec} holds no tissue to measure a staining on")
    return stain


def read_thresholds(path: Path) -> dict[str, Any]:
    """Return the content of a thresholds.json; DataError where it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read thresholds {path}: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("thresholds"), dict):
        raise DataError(f"{path} holds no thresholds; 'segmitos evaluate --tune -o DIR' makes it")
    return content
