"""From a finished training to a model file: thresholds tuned on validation, and an honest score."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmitos.detection.model import Model
from segmitos.detection.model_file import SUFFIX, read_model_file
from segmitos.detection.pipeline import DetectOptions, detect_slide
from segmitos.errors import InputError
from segmitos.evaluation.scoring import ratio_text
from segmitos.evaluation.threshold_grid import Item
from segmitos.evaluation.tuning import Tuning, thresholds_content, tune
from segmitos.io.datasets import Case
from segmitos.io.files import write_json
from segmitos.training.checkpoint import THRESHOLDS
from segmitos.training.export import export_run


@dataclass(frozen=True)
class Finished:
    """What `finish` left.

    Attributes:
        model: the model file.
        tuning: of its thresholds; None without a mitosis to tune on.
        slides: that validation held.
        problem: why nothing could be tuned; empty where it was.
    """

    model: Path
    tuning: Tuning | None
    slides: int
    problem: str = ""

    def text(self) -> str:
        """Say what there is, what it is worth, and what is missing for more."""
        lines = [f"model: {self.model}"]
        if self.tuning is None:
            lines.append(f"thresholds: those of an untuned model, and no score: {self.problem}")
            return "\n".join(lines)
        chosen, own = self.tuning.to_dict(), self.tuning.counts
        if not own.tp:
            lines.append(
                f"{self.tuning.nothing_found}: the network has not learned them yet; train it "
                "longer, or on more mitoses"
            )
            return "\n".join(lines)
        values = ", ".join(f"{name} {value}" for name, value in chosen["thresholds"].items())
        lines.append(f"thresholds tuned on {_slides(self.slides)} of validation: {values}")
        held_out = self.tuning.cross_validated
        if held_out is None:
            lines.append(
                f"F {ratio_text(own.f_score)} on {'the slide' if self.slides == 1 else 'slides'} "
                "that the thresholds were tuned on, which is too high. For a held-out score, "
                "validate on slides of two patients or more, or score on others: segmitos evaluate"
            )
        else:
            lines.append(
                f"held-out F {ratio_text(held_out.f_score)} "
                f"(precision {ratio_text(held_out.precision)}, "
                f"recall {ratio_text(held_out.recall)}): each slide unseen in "
                "training, at thresholds tuned on the other validation slides"
            )
        return "\n".join(lines)


def finish(run: Path, validation_cases: Sequence[Case], threads: int | None = None) -> Finished:
    """Tune a run's thresholds on its validation cases and write its model file beside them.

    The model file, named after the folder, and thresholds.json go into the folder of the run.

    Args:
        run: folder that `train` left.
        validation_cases: of that training; may be empty.
        threads: of the CPU; None takes all that this process may use.

    Raises:
        ModelError: for a run without a whole checkpoint.
        InputError: for a case that cannot be read.
    """
    path = run / f"{run.resolve().name}{SUFFIX}"
    tuning = None
    content: dict[str, Any] | None = None
    problem = "no validation slide holds a mitosis; give --validation SLIDE or --validation auto"
    if any(len(case.mitoses_xy) for case in validation_cases):
        try:
            tuning = tune(map_cases(run, validation_cases, threads))
        except InputError as error:
            # A network that was trained too little calls everything a mitosis.
            problem = str(error)
        else:
            content = thresholds_content(tuning, len(validation_cases))
    export_run(run, path, content, name=run.resolve().name)
    if content is not None:
        write_json(run / THRESHOLDS, content | {"model": read_model_file(path).about})
    return Finished(path, tuning, len({case.slide for case in validation_cases}), problem)


def map_cases(run: Path, cases: Sequence[Case], threads: int | None = None) -> list[Item]:
    """Run the model of a training on cases as detection does, and return maps to tune on."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"untuned{SUFFIX}"
        export_run(run, file)
        model = Model.load(file, "cpu", threads)
        items: list[Item] = []
        for case in cases:
            with case.open_image() as slide:
                result = detect_slide(slide, model, DetectOptions())
            items.append(Item.of(case, result))
    return items


def _slides(count: int) -> str:
    return "one slide" if count == 1 else f"{count} slides"
