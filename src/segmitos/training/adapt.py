"""A model adapted to a reader's marks: the last layer of its verifiers, and the joining rule.

The networks stay as they are. Candidates of the map inside the reviewed regions are matched to the
reader's marks; on them a logistic regression is fitted that begins at the model's own score and is
held near it, so that few marks change little. Slides that it was not fitted to decide whether the
change is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from segmitos.detection.model import find_model
from segmitos.detection.model_file import (
    SUFFIX,
    VERIFIER,
    ModelFile,
    read_model_file,
    write_model_file,
)
from segmitos.errors import DataError, ModelError, UsageError
from segmitos.evaluation.matching import f_score
from segmitos.evaluation.scoring import ratio_text
from segmitos.io.datasets import Case
from segmitos.io.files import write_bytes, write_json, write_text
from segmitos.report.html import render
from segmitos.review.assisted import assisted_slides
from segmitos.training.adapt_fit import (
    MIN_MARKS,
    Change,
    Row,
    before_and_after,
    cut_of,
    fit_change,
    is_better,
    is_enough,
    pooled,
    validate_change,
)
from segmitos.training.checkpoint import PAGE, STATE
from segmitos.training.identity import IDENTITY, RunIdentity, check_split
from segmitos.training.judged_candidates import JudgedCandidates, judged_candidates, settings_of
from segmitos.training.recipe import AdaptRecipe
from segmitos.training.verifier_head import VerifierHead

RECIPE = "adapt"
BUILTIN = "builtin:"
RESULT = "adapted.json"
_BEFORE = ", before it was adapted"
_NOT_KEPT = "the model is the one that it started from"


@dataclass(frozen=True)
class Adapted:
    """What `adapt` left.

    Attributes:
        model: the model file.
        kept: whether the change is in it; False: it is as it was, since the change was no better.
        rows: a row for each slide, scored by a change that was not fitted to it, and their sum.
        how: what a row's change was fitted to.
        mitoses: candidates that were marked as mitoses, of those fitted to.
        others: those that were not.
        assisted: slides that were reviewed with a model's marks in sight.
        slides: all that were reviewed.
    """

    model: Path
    kept: bool
    rows: tuple[Row, ...]
    how: str
    mitoses: int
    others: int
    assisted: tuple[str, ...]
    slides: int

    def text(self) -> str:
        """Say what there is, and what it is worth."""
        lines = [f"fitted to {self.mitoses} mitoses and {self.others} other candidates"]
        if self.rows:
            lines.append(f"on reviewed slides, {self.how}:")
            width = max(5, *(len(row.slide) for row in self.rows))
            lines.append(f"{'slide':<{width}}  before    TP   FP   FN   after     TP   FP   FN")
            lines += [_line(row, width) for row in self.rows]
        if self.assisted:
            lines.append(self.note())
        lines.append(f"model: {self.model}")
        if not self.kept:
            lines.append(f"{_NOT_KEPT}: {self.reason()}")
        return "\n".join(lines)

    def note(self) -> str:
        """Say of what review the figures are."""
        return (
            f"{len(self.assisted)} of {self.slides} slides were reviewed with a model's marks in "
            "sight: both columns are too high, above all in recall; their difference less so"
        )

    def reason(self) -> str:
        """Say why the change was not kept."""
        if self.rows:
            return "on slides that it was not fitted to the change is no better"
        return "there is one image alone, and so nothing to test the change on; review another"


def adapt(
    cases: Sequence[Case],
    folder: Path | str,
    start: Path | str,
    validation_cases: Sequence[Case] = (),
    *,
    recipe: AdaptRecipe | None = None,
    restart: bool = False,
    threads: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Adapted:
    """Adapt a model to reviewed cases, and leave its model file in a folder.

    Args:
        cases: with mitoses, look-alikes, unsure cells and reviewed regions.
        folder: of the run; gets NAME.segmitos, adapted.json, identity.json and training.html.
        start: `builtin:NAME`, or the path of a model file with a verifier.
        validation_cases: what the change is tested on; without any, each patient's slides are
            tested by a change that was fitted to the others (each case, where there is one
            patient).
        recipe: how strongly the model is held; None takes `AdaptRecipe()`.
        restart: whether to replace another run in the folder.
        threads: of the CPU; None takes all that this process may use.
        advance: called after each case.

    Raises:
        UsageError: if the folder holds another run, or slides overlap.
        ModelError: for a model that cannot be adapted.
        DataError: for too few marks.
        InputError: for an image that cannot be read.
    """
    folder, recipe = Path(folder), recipe or AdaptRecipe()
    path = start_model(start)
    file = read_model_file(path)
    settings_of(file, str(start))
    check_split(cases, validation_cases, "adapt to")
    identity = RunIdentity.of(cases, validation_cases, recipe, path)
    _check_folder(folder, identity, restart)
    assert file.verifier is not None
    head = VerifierHead(file.verifier, str(start))
    found = judged_candidates(cases, file, head, threads, advance)
    held_out = judged_candidates(validation_cases, file, head, threads, advance)
    kinds = np.concatenate([one.is_mitosis for one in found])
    if not is_enough(found, MIN_MARKS):
        raise DataError(
            f"{int(kinds.sum())} mitoses and {int((~kinds).sum())} other candidates are marked in "
            f"the reviewed regions: adapting needs both, and {MIN_MARKS} in all; review more"
        )
    cut = cut_of(file.spec.thresholds)
    change = fit_change(found, head.count, cut, recipe)
    if held_out:
        scored = [(one, change.score(one)) for one in held_out]
    else:
        scored = validate_change(found, head.count, cut, recipe)
    kept = is_better(scored, cut, recipe)
    rows = before_and_after(scored, cut)
    every = [*cases, *validation_cases]
    result = Adapted(
        model=folder / f"{folder.resolve().name}{SUFFIX}",
        kept=kept,
        rows=(*rows, *([pooled(rows)] if len(rows) > 1 else [])),
        how=_how(cases, held_out),
        mitoses=int(kinds.sum()),
        others=int((~kinds).sum()),
        assisted=tuple(assisted_slides(case.image for case in every)),
        slides=len({case.image for case in every}),
    )
    _write(result, file, head, change if kept else None, every, start, identity)
    return result


def start_model(start: Path | str) -> Path:
    """Return the model file of `builtin:NAME`, or of a path. Raises ModelError."""
    return find_model(str(start).removeprefix(BUILTIN))


def is_model(start: Path | str | None) -> bool:
    """Tell whether what a training starts from is a model file, not a run."""
    return start is not None and (str(start).startswith(BUILTIN) or str(start).endswith(SUFFIX))


def _check_folder(folder: Path, identity: RunIdentity, restart: bool) -> None:
    """Refuse a folder that holds another run. The same one gives the same bytes again."""
    if restart:
        return
    if (folder / STATE).exists():
        raise UsageError(f"{folder} holds a training; name another folder")
    try:
        saved = (folder / IDENTITY).read_bytes()
    except OSError:
        return
    if saved != identity.to_json():
        raise UsageError(
            f"{folder} holds another run: other marks, slides or model. Name another folder, or "
            "--restart to replace it"
        )


def _how(cases: Sequence[Case], held_out: Sequence[JudgedCandidates]) -> str:
    if held_out:
        return "none of which the change was fitted to"
    if len({case.group for case in cases}) > 1:
        return "each by a change that was fitted to the others"
    return "each image by a change that was fitted to the slide's others, so that F is too high"


def _write(
    result: Adapted,
    file: ModelFile,
    head: VerifierHead,
    change: Change | None,
    cases: Sequence[Case],
    start: Path | str,
    identity: RunIdentity,
) -> None:
    spec, graphs = file.spec, file.graphs
    settings = settings_of(file, str(start))
    if change is not None:
        if settings.verifier_weight == 0:
            raise ModelError(f"{start}: its verifier has no weight in the score")
        shifted = settings.intercept + change.shift
        settings = msgspec.structs.replace(settings, intercept=shifted)
        graphs[VERIFIER] = head.changed(change.weights / settings.verifier_weight)
    content = _content(result, file, start)
    scored = spec.validation
    if change is not None and "data" in scored:
        data = f"{scored['data']}".removesuffix(_BEFORE)
        scored = {**scored, "data": f"{data}{_BEFORE}"}
    spec = msgspec.structs.replace(
        spec,
        name=result.model.stem,
        verifier=settings,
        description=f"{spec.name} adapted to reviewed slides" if change else spec.description,
        datasets=tuple(dict.fromkeys((*spec.datasets, *(case.dataset for case in cases)))),
        validation={**scored, "adapted": content},
    )
    folder = result.model.parent
    write_bytes(folder / IDENTITY, identity.to_json())
    write_model_file(result.model, spec, graphs)
    write_json(folder / RESULT, content)
    write_text(folder / PAGE, _page(result))


def _content(result: Adapted, file: ModelFile, start: Path | str) -> dict[str, Any]:
    return {
        "start": str(start),
        "start_sha256": file.sha256,
        "kept": result.kept,
        "fitted_to": {"mitoses": result.mitoses, "others": result.others},
        "rows": [asdict(row) for row in result.rows],
        "how": result.how,
        "assisted": list(result.assisted),
    }


def _f_text(counts: tuple[int, int, int]) -> str:
    """Return F of tp, fp and fn as text."""
    return ratio_text(f_score(*counts))


def _line(row: Row, width: int) -> str:
    sides = (
        f"{_f_text(one)}  " + "".join(f"{n:5d}" for n in one) for one in (row.before, row.after)
    )
    return f"{row.slide:<{width}}  " + "   ".join(sides)


def _page(result: Adapted) -> str:
    return render(
        "adaptation.html",
        name=result.model.stem,
        mitoses=result.mitoses,
        others=result.others,
        reason="" if result.kept else result.reason(),
        how=result.how,
        rows=[
            (row.slide, [_f_text(row.before), *row.before, _f_text(row.after), *row.after])
            for row in result.rows
        ],
        note=result.note() if result.assisted else "",
    )
