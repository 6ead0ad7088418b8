"""`segmitos train`, `segmitos export` and `segmitos quantize`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segmitos.errors import DataError, UsageError

# An integer model is calibrated on every n-th image, so that there are this many to twice as many.
CALIBRATION_CASES = 48


def _require_training() -> None:
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
    start_from: Path | None,
    epochs: int | None,
    seed: int | None,
    accelerator: str,
    devices: int,
    threads: int | None,
    restart: bool,
) -> int:
    """Load data, split it by slide, train, say how it went."""
    _require_training()
    from segmitos.io.datasets import load_dataset
    from segmitos.training.recipe import load_recipe

    chosen = load_recipe(recipe, epochs=epochs, seed=seed)
    every = load_dataset(data, cases or (), exclude or (), mpp, override_mpp)
    kept = set()
    for pattern in validation or ():
        named = {c.name for c in every if fnmatch(c.slide, pattern) or fnmatch(c.name, pattern)}
        if not named:
            slides = sorted({case.slide for case in every})
            shown = ", ".join(slides[:12]) + (" ..." if len(slides) > 12 else "")
            raise DataError(f"--validation {pattern} names no slide or case; slides: {shown}")
        kept |= named
    training = [case for case in every if case.name not in kept]
    held_out = [case for case in every if case.name in kept]

    from segmitos.detection.model import available_threads
    from segmitos.training.train import train

    count = len({case.slide for case in training})
    print(
        f"training on {len(training)} cases of {count} slides, "
        f"{sum(len(case.mitoses_xy) for case in training)} mitoses; "
        f"validating on {len(held_out)} cases",
        flush=True,
    )
    train(
        training,
        chosen,
        out,
        held_out,
        start_from=start_from,
        resume=not restart,
        on_event=Progress(),
        accelerator=accelerator,
        devices=devices,
        threads=threads or available_threads(),
    )
    print(f"finished: {out}; next: segmitos export {out} -o model.onnx")
    return 0


class Progress:
    """Prints training events: a moving line on a terminal, a line now and then in a log."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first: int | None = None
        self._total = 0
        self._terminal = sys.stderr.isatty()
        self._loss = 0.0

    def __call__(self, event: str, content: dict[str, Any]) -> None:
        if event == "loaded":
            self._total = content["steps"]
            self._began = time.monotonic()
        elif event == "step":
            self._step(content["step"], content["loss"])
        elif event == "mined":
            self._line(f"step {content['step']}: {content['places']} false positives mined")
        elif event == "epoch":
            scores = ""
            if "f_score" in content:
                scores = (
                    f", validation F {content['f_score']:.3f} (P {content['precision']:.3f}, "
                    f"R {content['recall']:.3f} at score {content['min_score']:.3f})"
                )
            self._line(f"epoch {content['epoch']}: loss {content['loss']:.4f}{scores}")

    def _step(self, step: int, loss: float) -> None:
        if self._first is None:
            self._first = step - 1
        self._loss = loss if self._loss == 0 else 0.95 * self._loss + 0.05 * loss
        rate = (time.monotonic() - self._began) / max(1, step - self._first)
        left = (self._total - step) * rate
        text = f"step {step}/{self._total}, loss {self._loss:.4f}, {left / 60:.0f} min left"
        if self._terminal:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif step % 100 == 0:
            print(text, file=sys.stderr, flush=True)

    def _line(self, text: str) -> None:
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr)
        print(text, flush=True)


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
    _require_training()
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
    _require_training()
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
    _require_training()
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
