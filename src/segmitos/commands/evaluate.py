"""`segmitos evaluate`: score a detector on annotated cases, or tune its thresholds on them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segmitos.commands.progress import Bar, in_words, print_warnings
from segmitos.errors import DataError, UsageError
from segmitos.io.outputs import DETECTIONS_GEOJSON, PROGRAM, check_folder
from segmitos.options import (
    RULES,
    DataSets,
    FilePath,
    data_options,
    device_option,
    json_option,
    model_option,
    print_json,
    threads_option,
)

SCORES, TUNED = "evaluation.json", "thresholds.json"
_FILES = ("rules.json", "cases.csv", "evaluation.html")
_TUNING = ("thresholds.png",)
_MAX_ROWS = 200

if TYPE_CHECKING:
    from segmitos.detection.model_file import ModelFile
    from segmitos.detection.pipeline import SlideResult
    from segmitos.evaluation.scoring import Counts, Evaluation
    from segmitos.io.datasets import Case
    from segmitos.io.points.detections import Detections


@click.command()
@data_options
@model_option
@click.option("-o", "--out", type=FilePath, help="Folder for tables, curves and galleries.")
@click.option(
    "--detections",
    type=FilePath,
    help="Score saved detections (an output folder of detect) instead of running.",
)
@click.option(
    "--rule",
    type=click.Choice(["all", *RULES]),
    default="one-to-one",
    show_default=True,
    help="Scoring rule; 'all' shows every one.",
)
@click.option(
    "--tune", is_flag=True, help="Find thresholds on these cases: validation, never test."
)
@device_option
@threads_option
@json_option
def evaluate(
    data: DataSets,
    model: Path | None,
    out: Path | None,
    detections: Path | None,
    rule: str,
    tune: bool,
    device: str,
    threads: int | None,
    json_out: bool,
) -> None:
    """Score a detector on annotated images, or tune its thresholds on them.

    Example: segmitos evaluate mitos14:DIR --cases H03 -o scores
    """
    from segmitos.detection.model import find_model
    from segmitos.detection.model_file import read_model_file

    if tune and detections is not None:
        raise UsageError("--tune needs the model's maps; it does not go with --detections")
    if tune and rule != "one-to-one":
        raise UsageError(f"--tune counts one-to-one; it does not go with --rule {rule}")
    if detections is not None and (model is not None or device != "auto"):
        option = "--device" if model is None else "--model"
        raise UsageError(f"--detections scores what was found; it does not go with {option}")
    if tune and out is None:
        raise UsageError("--tune needs -o DIR to write thresholds.json to")
    if out is not None:
        check_folder(out, *((_TUNING, TUNED) if tune else (_FILES, SCORES)))
    chosen = data.load()
    print_warnings(data.left_out())
    if tune:
        assert out is not None
        _tune(chosen, model, out, device, threads, json_out)
        return
    if detections is not None:
        chosen, found, warnings, models = _saved(chosen, detections)
    else:
        results, warnings = _detected(chosen, model, device, threads)
        models = [_model_of(read_model_file(find_model(model)))]
        pairs = list(zip(chosen, results, strict=True))
        found = {case.name: result.detections for case, result in pairs}
        # What an image says of its scale wins.
        chosen = [replace(case, mpp=result.mpp) for case, result in pairs]
    print_warnings(of_training := _warnings_of_training(chosen, models))
    _score(chosen, found, [*warnings, *of_training], models, rule, out, json_out)


def _model_of(file: ModelFile) -> dict[str, Any]:
    """Say which model a file is, and the names of the data sets that it was trained on."""
    about = {key: file.about[key] for key in ("name", "sha256")}
    return {**about, "datasets": list(file.spec.datasets)}


def _warnings_of_training(cases: Sequence[Case], models: Sequence[dict[str, Any]]) -> list[str]:
    """Warn of models that were trained on data sets of the names of those scored."""
    scored = {case.dataset for case in cases}
    return [
        f"model {model['name']} was trained on data of this name, {', '.join(seen)}: F is too high "
        "on slides that it was trained or tuned on"
        for model in models
        if (seen := sorted(scored & set(model["datasets"])))
    ]


def _detected(
    cases: Sequence[Case], model_path: Path | None, device: str, threads: int | None
) -> tuple[list[SlideResult], list[str]]:
    """Detect on all cases; return what was found, and warnings."""
    from segmitos.detection.model import Model
    from segmitos.detection.pipeline import DetectOptions, detect_slide

    model = Model.load(model_path, device, threads)
    results: list[SlideResult] = []
    warnings: list[str] = []
    with Bar("evaluating", len(cases)) as bar:
        for case in cases:
            with case.open_image() as slide:
                results.append(detect_slide(slide, model, DetectOptions()))
            every = (*slide.warnings, *results[-1].warnings)
            warnings += [f"{case.name}: {one}" for one in every]
            bar.advance()
    print_warnings(warnings)
    return results, warnings


def _saved(
    cases: Sequence[Case], folder: Path
) -> tuple[list[Case], dict[str, Detections], list[str], list[dict[str, Any]]]:
    """Read saved detections.

    Returns:
        Cases at the scale that was read, what was found, warnings, the models that found it.
    """
    from segmitos.cohort.atomic_folder import find_results
    from segmitos.io.points.detections import read_detections

    results = find_results(folder, [case.image for case in cases])
    settled: list[Case] = []
    found: dict[str, Detections] = {}
    warnings: list[str] = []
    models: dict[str, dict[str, Any]] = {}
    for case in cases:
        result = results[case.image]
        if result is None:
            raise DataError(
                f"case {case.name} has no saved detections: {folder} holds no result of "
                f"{case.image}"
            )
        record = result.record()
        if (changed := result.changed_files()) or record is None:
            raise DataError(f"{result.path / changed[0]} is damaged or was changed; detect again")
        found[case.name] = read_detections(result.path / DETECTIONS_GEOJSON)
        summary = result.summary(record) or {}
        size = summary.get("width_px"), summary.get("height_px")
        if case.size_px is not None and size != case.size_px:
            raise DataError(
                f"case {case.name} has {case.size_px[0]} x {case.size_px[1]} px, and {result.path} "
                f"is of {size[0]} x {size[1]} px: another page of the file (detect --page)?"
            )
        about = {"name": "unknown", "sha256": "", **(summary.get("model") or {})}
        datasets = (summary.get("model_card") or {}).get("datasets", ())
        models[about["sha256"]] = {**about, "datasets": list(datasets)}
        warnings += [f"{case.name}: {one}" for one in summary.get("warnings", ())]
        if (summary.get("settings") or {}).get("roi"):
            warnings.append(
                f"{case.name}: detected in regions alone (--roi); mitoses outside of them count as "
                "missed"
            )
        # The file's own scale wins here as it did there.
        own = str(summary.get("mpp_source", "")).startswith("embedded")
        settled.append(replace(case, mpp=found[case.name].mpp) if own else case)
    print_warnings(warnings)
    return settled, found, warnings, [models[key] for key in sorted(models)]


def _score(
    cases: Sequence[Case],
    found: dict[str, Detections],
    warnings: Sequence[str],
    models: Sequence[dict[str, Any]],
    rule: str,
    out: Path | None,
    json_out: bool,
) -> None:
    from segmitos.evaluation.scoring import (
        compare_rules,
        evaluate,
        format_rules,
        warnings_of_crops,
    )
    from segmitos.io.files import write_json, write_text
    from segmitos.io.tables import table_text, text_cell
    from segmitos.review.assisted import NOTE, WARNING, assisted_slides

    assisted = assisted_slides(case.image for case in cases)
    if assisted:
        warning = WARNING.format(len(assisted), len({case.image for case in cases}), NOTE)
        print_warnings([warning])
        warnings = [*warnings, warning]
    print_warnings(of_crops := warnings_of_crops(cases))
    warnings = [*warnings, *of_crops]
    groups = "slide" if len({case.group for case in cases}) > 1 else "case"
    main = evaluate(cases, found, "one-to-one" if rule == "all" else rule, groups)
    every = compare_rules(cases, found, groups) if rule == "all" or out is not None else {}
    content = {"program": PROGRAM, "models": models, **main.to_dict(), "warnings": list(warnings)}
    if out is not None:
        write_json(out / SCORES, content)
        write_json(out / "rules.json", {name: one.to_dict() for name, one in every.items()})
        counted = [(one.name, one.slide, one.counts) for one in main.cases]
        rows = [(text_cell(name), text_cell(slide), n.tp, n.fp, n.fn) for name, slide, n in counted]
        columns = ("case", "slide", "tp", "fp", "fn")
        write_text(out / "cases.csv", table_text(columns, rows))
        _write_report(cases, found, main, every, warnings, models, out)
    if json_out:
        print_json(content)
        return
    _print_slides(main)
    if rule == "all":
        print()
        print(format_rules(every))
    if out is not None:
        print(f"written: {out / 'evaluation.html'}")


def _print_slides(result: Evaluation) -> None:
    from segmitos.evaluation.scoring import interval_text, ratio_text

    print(f"rule {result.rule}, within {result.distance_um:g} um; 95 % over {result.groups}s")
    width = max(8, *(len(name) for name in result.slides))
    print(f"{'slide':<{width}}    TP    FP    FN  prec.  recall  F      95 %")
    shown = result.slides if len(result.slides) <= 40 else {}
    rows = [(n, c, result.slide_intervals[n]) for n, c in shown.items()]
    rows.append(("pooled", result.pooled, result.intervals["f_score"]))
    for name, counts, interval in rows:
        values = (counts.precision, counts.recall, counts.f_score)
        ratios = "  ".join(f"{ratio_text(value):^5}" for value in values)
        print(
            f"{name:<{width}} {counts.tp:5d} {counts.fp:5d} {counts.fn:5d}  {ratios}  "
            f"{interval_text(interval)}"
        )


def _write_report(
    cases: Sequence[Case],
    found: dict[str, Detections],
    main: Evaluation,
    every: dict[str, Evaluation],
    warnings: Sequence[str],
    models: Sequence[dict[str, Any]],
    out: Path,
) -> None:
    from segmitos.evaluation.curves import evaluation_pictures
    from segmitos.evaluation.gallery import CAPTIONS
    from segmitos.evaluation.scoring import json_interval
    from segmitos.io.files import write_bytes, write_text
    from segmitos.report.html import render_evaluation

    def row(name: str, counts: Counts, interval: tuple[float, float]) -> dict[str, Any]:
        return {"name": name, **counts.to_dict(), "interval": json_interval(interval)}

    slides = [row(name, n, main.slide_intervals[name]) for name, n in main.slides.items()]
    rules = [row(name, one.pooled, one.intervals["f_score"]) for name, one in every.items()]
    content: dict[str, Any] = {
        "hidden": max(0, len(slides) - _MAX_ROWS),
        "about": (
            f"{in_words(len(cases), 'image')} of {in_words(len(main.slides), 'slide')}; "
            f"rule {main.rule}, within {main.distance_um:g} um; "
            f"intervals by bootstrap over {main.groups}s"
        ),
        "models": [f"{model['name']}, SHA-256 {model['sha256'][:12]}" for model in models],
        "warnings": list(warnings),
        "rows": [row("pooled", main.pooled, main.intervals["f_score"]), *slides[:_MAX_ROWS]],
        "rules": rules,
    }
    pictures = evaluation_pictures(cases, found, main)
    for title, picture in pictures.items():
        write_bytes(out / f"{title.lower().replace(' ', '-')}.png", picture)
    write_text(out / "evaluation.html", render_evaluation(content, pictures, CAPTIONS))


def _tune(
    cases: Sequence[Case],
    model: Path | None,
    out: Path,
    device: str,
    threads: int | None,
    json_out: bool,
) -> None:
    from segmitos.detection.model import find_model
    from segmitos.detection.model_file import read_model_file
    from segmitos.evaluation.curves import tuning_picture
    from segmitos.evaluation.scoring import ratio_text, warnings_of_crops
    from segmitos.evaluation.threshold_grid import Item
    from segmitos.evaluation.tuning import thresholds_content, tune
    from segmitos.io.files import write_bytes, write_json

    results, warnings = _detected(cases, model, device, threads)
    file = read_model_file(find_model(model))
    found = [*warnings_of_crops(cases), *_warnings_of_training(cases, [_model_of(file)])]
    print_warnings(found)
    warnings += found
    items = [Item.of(*pair) for pair in zip(cases, results, strict=True)]
    result = tune(items, otsu=file.spec.verifier is None)
    content = thresholds_content(result, len(cases))
    content |= {"model": file.about, "warnings": warnings}
    write_json(out / TUNED, content)
    write_bytes(out / "thresholds.png", tuning_picture(result))
    if json_out:
        print_json(content)
        return
    chosen = result.thresholds
    print(f"tuned on {content['validation']['data']}")
    print(
        f"threshold {chosen.threshold}, area from {chosen.min_area_um2:g} um2, "
        f"score from {chosen.min_score:g}"
    )
    if result.nothing_found:
        print(f"F 0: {result.nothing_found}")
    else:
        print(f"F on these cases {result.counts.f_score:.3f} (too high: it was tuned on them)")
    if result.cross_validated is not None:
        f = ratio_text(result.cross_validated.f_score)
        print(f"F with thresholds cross-validated over slides {f}")
    print(f"written: {out / TUNED}", file=sys.stderr)
