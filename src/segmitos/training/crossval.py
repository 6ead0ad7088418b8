"""Cross-validation of a recipe: each slide or laboratory scored by networks that never saw it.

Three figures come out for every fold: F at one threshold common to all (chosen on all of them, so
it flatters a little), F at thresholds chosen on the other folds (honest), and F at the fold's own
best. How far the last lies above the first is the calibration gap: what a user of other slides
loses because probabilities shift there.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos._version import __version__
from segmitos.errors import DataError, UsageError
from segmitos.evaluation.folds import By, assign_folds
from segmitos.evaluation.scoring import Counts, ratio_text
from segmitos.evaluation.threshold_grid import best_place, count_items, thresholds_at
from segmitos.io.datasets import Case
from segmitos.io.files import write_bytes, write_json
from segmitos.io.outputs import PROGRAM, check_folder
from segmitos.training.checkpoint import load_state
from segmitos.training.export import training_stain
from segmitos.training.finish import map_cases
from segmitos.training.identity import RunIdentity, check_images, check_unseen, images_of
from segmitos.training.recipe import Recipe
from segmitos.training.run import OnEvent
from segmitos.training.train import train
from segmitos.training.weights import run_of_weights

RESULT = "crossval.json"
_COUNTS = "counts.npz"
_KINDS = ("common", "held_out", "own_best", "crops")
"""The three figures of a fold (see above), and of its external crops at the common thresholds."""
Counted = NDArray[np.int32]
OnFold = Callable[[str, int], OnEvent]


@dataclass(frozen=True)
class FoldCounts:
    """Counts of one fold by the network of one seed.

    Attributes:
        fold: name.
        seed: of the training.
        fields: per slide of fields, (map thresholds, areas, scores, 3) counts of the tuning grid.
        crops: the same of external crops, which say what recall is and little of precision.
        groups: the patient of a slide (`Case.group`), the slide where it is not there.
    """

    fold: str
    seed: int
    fields: dict[str, Counted]
    crops: dict[str, Counted]
    groups: Mapping[str, str] = field(default_factory=dict)


def cross_validate(
    cases: Sequence[Case],
    folder: Path,
    recipe: Recipe,
    by: By = "slide",
    folds: int | None = None,
    seeds: Sequence[int] = (0,),
    only: Sequence[str] = (),
    on_fold: OnFold = lambda fold, seed: lambda event, content: None,
    accelerator: str = "auto",
    threads: int | None = None,
) -> dict[str, Any]:
    """Train on all folds but one, test on that one, for every fold and seed; write the result.

    Folds that are done are not trained again; a training that was stopped goes on. Several
    processes may each do some folds (`only`) in one folder.

    Args:
        cases: all of them; they are divided by `evaluation.folds.assign_folds`.
        folder: gets seed-N/FOLD/ of each training, and crossval.json.
        recipe: of every training, but for its seed.
        by: `slide` or `laboratory`.
        folds: number of folds by slide.
        seeds: one training a fold for each.
        only: names of the folds to do now; the others are taken as they are.
        on_fold: told of each training before it begins; returns what is told of its events.
        accelerator: as for `train`.
        threads: as for `train`.

    Returns:
        The content of crossval.json: settings, common thresholds, and counts at them by fold, by
        seed and over all that is done.

    Raises:
        UsageError: for a fold that does not exist, a folder with other trainings, an image that is
            in two folds, or that the recipe's weights were trained on.
        OutputError: for a crossval.json that another program wrote.
        DataError: where the cases cannot be divided so.
    """
    check_folder(folder, (), RESULT)
    divided = assign_folds(cases, by, folds)
    unknown = sorted(set(only) - set(divided))
    if unknown:
        raise UsageError(f"fold {unknown[0]!r} is not one of {', '.join(divided)}")
    _check_names(divided)
    images = {name: images_of(tested) for name, tested in divided.items()}
    check_images(images, cases)
    if (start := run_of_weights(recipe.weights)) is not None:
        for name, digests in images.items():
            check_unseen(start, digests, divided[name])
    trained_on = {name: _others(divided, name) for name in divided}
    done = []
    # A seed given twice is one training, and counts once.
    for seed in dict.fromkeys(seeds):
        seeded = Recipe.from_dict({**recipe.to_dict(), "seed": seed})
        for name, tested in divided.items():
            run = folder / f"seed-{seed}" / _file_name(name)
            if only and name not in only and not (run / _COUNTS).exists():
                continue
            train(
                trained_on[name],
                run,
                seeded,
                on_event=on_fold(name, seed),
                accelerator=accelerator,
                threads=threads,
            )
            done.append(_counted(run, name, seed, tested, threads))
    result = {
        "program": PROGRAM,
        "settings": {
            "by": by,
            "folds": {
                name: sorted({case.slide for case in tested}) for name, tested in divided.items()
            },
            "seeds": list(dict.fromkeys(seeds)),
            "recipe": recipe.to_dict(),
            "version": __version__,
        },
        **summarize(done),
    }
    write_json(folder / RESULT, result)
    return result


def _others(divided: Mapping[str, Sequence[Case]], name: str) -> list[Case]:
    """Return what a fold is trained on: the other folds, but for its own slides and patients.

    Two scans of one patient show the same cells, though they may be of two laboratories.
    """
    slides = {case.slide for case in divided[name]}
    groups = {case.group for case in divided[name]}
    others = [case for fold, tested in divided.items() if fold != name for case in tested]
    kept = [case for case in others if case.slide not in slides and case.group not in groups]
    if not kept:
        raise DataError(
            f"{name}: all other cases are of the patients that it tests, so that there is nothing "
            "to train on"
        )
    return kept


def summarize(done: Sequence[FoldCounts]) -> dict[str, Any]:
    """Return common thresholds and the counts at them, by fold and seed and over all.

    Raises:
        UsageError: if there is nothing done, or no field among it to choose thresholds on.
    """
    tables = [table for one in done for table in one.fields.values()]
    if not tables:
        raise UsageError("no fold with fields is done: thresholds cannot be chosen on crops alone")
    common = best_place(np.stack(tables))
    rows = [_row(one, common, done) for one in done]
    total = {kind: sum((row[kind] for row in rows), Counts()) for kind in _KINDS}
    return {
        "thresholds": asdict(thresholds_at(common)),
        "rows": [{**row, **{kind: row[kind].to_dict() for kind in _KINDS}} for row in rows],
        **{kind: counts.to_dict() for kind, counts in total.items()},
        "validation": _validation(done, [row["held_out"] for row in rows]),
    }


def _validation(done: Sequence[FoldCounts], held_out: Sequence[Counts]) -> dict[str, Any]:
    """Return what `segmitos model export --thresholds` reads: the counts of one network a slide.

    Those of several seeds are averaged: the slides are no more for them. Nothing where no fold had
    thresholds of others.
    """
    seeds = Counter(one.fold for one in done)
    pairs = list(zip(done, held_out, strict=True))
    sums = [
        sum(getattr(counts, name) / seeds[one.fold] for one, counts in pairs)
        for name in ("tp", "fp", "fn")
    ]
    # Rounded so that no mitosis is lost or added.
    tp, truth = round(sums[0]), round(sums[0] + sums[2])
    counts = Counts(tp, round(sums[1]), truth - tp)
    if not counts.tp + counts.fn:
        return {}
    slides = {(one.fold, slide) for one in done for slide in one.fields}
    most = max(seeds.values())
    networks = "a network" if most == 1 else f"networks of {most} seeds (their mean)"
    return {
        **counts.to_dict(),
        "data": f"{len(slides)} slides, each by {networks} not trained on it, "
        "thresholds chosen on the other folds",
    }


def _row(
    one: FoldCounts, common: tuple[int, int, int], done: Sequence[FoldCounts]
) -> dict[str, Any]:
    """Return a row of the table: a fold and seed, and `Counts` of every one of `_KINDS`."""
    own = list(one.fields.values())
    seen = {one.groups.get(slide, slide) for slide in one.fields}
    # Thresholds are not chosen on another scan of a patient either.
    rest = [
        table
        for other in done
        if other.fold != one.fold
        for slide, table in other.fields.items()
        if other.groups.get(slide, slide) not in seen
    ]
    return {
        "fold": one.fold,
        "seed": one.seed,
        "slides": sorted([*one.fields, *one.crops]),
        "common": _at(own, common),
        # Without another fold there are no thresholds of others, and so no such figure.
        "held_out": _at(own if rest else [], best_place(np.stack(rest)) if rest else common),
        "own_best": _at(own, best_place(np.stack(own)) if own else common),
        "crops": _at(list(one.crops.values()), common),
    }


def _at(tables: Sequence[Counted], place: tuple[int, int, int]) -> Counts:
    """Return the counts of slides at a place of the grid, pooled."""
    total = Counts()
    for table in tables:
        tp, fp, fn = (int(value) for value in table[place])
        total += Counts(tp, fp, fn)
    return total


def _counted(
    run: Path, fold: str, seed: int, tested: Sequence[Case], threads: int | None
) -> FoldCounts:
    """Return the counts of a fold: saved ones if of this very training and labels, else anew."""
    path, state = run / _COUNTS, load_state(run)
    recipe = Recipe.from_dict(state.recipe, str(run))
    of_tested = RunIdentity.of([], tested, recipe).digest
    # Of the training, and of what is tested: its labels may have been corrected since.
    identity = f"{state.identity} {of_tested}"
    if training_stain(recipe, state) is None:
        # Not the counts of an older version, which matched the stain of slides here, too.
        identity += " stain as it is"
    saved = _load_counts(path, identity, tested)
    if saved is None:
        saved = {}
        for kind, centered in (("fields", False), ("crops", True)):
            items = map_cases(run, [c for c in tested if c.centered_crop == centered], threads)
            slides, table = count_items(items)
            saved |= {f"{kind}/{slide}": table[index] for index, slide in enumerate(slides)}
        content = io.BytesIO()
        arrays: dict[str, Any] = {"identity": np.array(identity), **saved}
        np.savez_compressed(content, **arrays)
        write_bytes(path, content.getvalue())
    kinds: dict[str, dict[str, Counted]] = {"fields": {}, "crops": {}}
    for key, table in saved.items():
        kind, _, slide = key.partition("/")
        kinds[kind][slide] = table
    groups = {case.slide: case.group for case in tested}
    return FoldCounts(fold, seed, kinds["fields"], kinds["crops"], groups)


def _load_counts(path: Path, identity: str, tested: Sequence[Case]) -> dict[str, Counted] | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
            saved = {key: content[key] for key in content.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    expected = {f"{'crops' if c.centered_crop else 'fields'}/{c.slide}" for c in tested}
    if str(saved.pop("identity", "")) != identity or set(saved) != expected:
        return None
    return saved


def _check_names(folds: Iterable[str]) -> None:
    """Refuse folds that would be trained in one folder. Raises DataError."""
    seen: dict[str, str] = {}
    for fold in folds:
        other = seen.setdefault(_file_name(fold), fold)
        if other != fold:
            raise DataError(
                f"the laboratories {other!r} and {fold!r} would both be trained in the folder "
                f"{_file_name(fold)}; give one of them another name"
            )


def _file_name(fold: str) -> str:
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in fold)
    # `.` and `..` are the folder itself and the one above.
    return name if name.strip(".") else "_" * len(name)


def table_lines(result: dict[str, Any]) -> list[str]:
    """Return the result as a plain-text table."""
    lines = [
        f"{'fold':<34} {'seed':>4} {'TP':>5} {'FP':>5} {'FN':>5}  F common  held out  own best"
        "   gap  recall on crops"
    ]
    every = {"fold": "all", "seed": "", **{key: result[key] for key in _KINDS}}
    for row in (*result["rows"], every):
        common, own = row["common"], row["own_best"]
        gap = _difference(own["f_score"], common["f_score"])
        lines.append(
            f"{row['fold'][:34]:<34} {row['seed']!s:>4} {common['tp']:5d} {common['fp']:5d} "
            f"{common['fn']:5d}  {ratio_text(common['f_score']):^5}     "
            f"{ratio_text(row['held_out']['f_score']):^5}     "
            f"{ratio_text(own['f_score']):^5}  {gap:>6}  {ratio_text(row['crops']['recall']):^5}"
        )
    return lines


def _difference(one: float | None, other: float | None) -> str:
    return "-" if one is None or other is None else f"{one - other:+.3f}"
