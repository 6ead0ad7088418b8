"""Cross-validation: nothing is tested by what was trained on it, figures are what they say."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from segmitos.cli import main
from segmitos.errors import DataError, UsageError
from segmitos.evaluation.threshold_grid import AREAS_UM2, MAP_THRESHOLDS, SCORES
from segmitos.io.datasets import Case
from segmitos.training import crossval
from segmitos.training.crossval import FoldCounts, cross_validate, summarize, table_lines
from segmitos.training.identity import RunIdentity
from segmitos.training.recipe import Recipe
from tests.factories.synthetic_fields import write_cases

SHAPE = (len(MAP_THRESHOLDS), len(AREAS_UM2), len(SCORES), 3)


def table(best_score: int, peak: tuple[int, int, int], elsewhere=(2, 8, 8)) -> np.ndarray:
    """Counts that are `peak` at one score threshold of a probability of 0.5, poor elsewhere."""
    counts = np.empty(SHAPE, np.int32)
    counts[:] = elsewhere
    counts[MAP_THRESHOLDS.index(0.5), :, best_score] = peak
    return counts


def test_common_own_and_held_out_thresholds_are_told_apart():
    one = FoldCounts("a", 0, {"S0": table(70, (9, 1, 1))}, {})
    two = FoldCounts("b", 0, {"S1": table(80, (10, 0, 0))}, {"C": table(80, (7, 3, 1))})
    result = summarize([one, two])
    assert result["thresholds"]["min_score"] == 0.8 and result["thresholds"]["threshold"] == 0.5
    rows = {row["fold"]: row for row in result["rows"]}
    assert rows["a"]["common"]["tp"] == 2 and rows["b"]["common"]["tp"] == 10
    assert rows["a"]["own_best"]["f_score"] == pytest.approx(0.9)
    # On the other fold the best score threshold is another one: honest, and poor.
    assert rows["a"]["held_out"]["tp"] == rows["b"]["held_out"]["tp"] == 2
    assert result["held_out"]["tp"] == 4 and result["validation"]["tp"] == 4
    assert rows["b"]["crops"]["recall"] == pytest.approx(7 / 8)
    assert "+0.700" in table_lines(result)[1]


def test_thresholds_are_not_chosen_on_another_scan_of_a_patient():
    """By laboratory the scans of a patient may be of two folds."""
    groups = {"A03": "d/03", "H03": "d/03", "H05": "d/05"}
    one = FoldCounts("aperio", 0, {"A03": table(70, (99, 0, 0))}, {}, groups)
    tables = {"H03": table(70, (99, 0, 0)), "H05": table(80, (10, 0, 0))}
    two = FoldCounts("hamamatsu", 0, tables, {}, groups)
    rows = {row["fold"]: row for row in summarize([one, two])["rows"]}
    # Tuned on H05 alone, whose best threshold is not that of patient 03.
    assert rows["aperio"]["held_out"]["tp"] == 2
    # Nothing is left to choose the thresholds of the other fold on.
    assert rows["hamamatsu"]["held_out"]["f_score"] is None


def test_several_seeds_are_no_more_slides():
    folds = (("a", {"S0": table(70, (9, 1, 1))}), ("b", {"S1": table(70, (10, 0, 0))}))
    once, twice = (
        summarize([FoldCounts(name, seed, fields, {}) for seed in seeds for name, fields in folds])
        for seeds in ((0,), (0, 4))
    )
    assert twice["held_out"]["tp"] == 2 * once["held_out"]["tp"] == 38
    for result in (once, twice):
        counts = {key: result["validation"][key] for key in ("tp", "fp", "fn")}
        assert counts == {"tp": 19, "fp": 1, "fn": 1}
        assert result["validation"]["data"].startswith("2 slides, ")
    assert "networks of 2 seeds" in twice["validation"]["data"]


def test_the_mean_of_seeds_loses_no_mitosis():
    seeds = [{"S0": table(70, (18, 0, 1))}, {"S0": table(70, (19, 0, 0))}]
    done = [FoldCounts("a", seed, fields, {}) for seed, fields in enumerate(seeds)]
    done += [FoldCounts("b", seed, {"S1": table(70, (5, 1, 0))}, {}) for seed in (0, 1)]
    counts = summarize(done)["validation"]
    assert (counts["tp"] + counts["fn"], counts["fp"]) == (19 + 5, 1)


def test_one_fold_alone_has_no_figure_at_thresholds_of_others():
    result = summarize([FoldCounts("a", seed, {"S0": table(70, (9, 1, 1))}, {}) for seed in (0, 1)])
    assert result["common"]["tp"] == 18 and result["held_out"]["f_score"] is None
    assert result["validation"] == {}
    assert table_lines(result)[1].split()[5:8] == ["0.900", "-", "0.900"]


def test_crops_alone_choose_no_thresholds():
    with pytest.raises(UsageError, match="crops alone"):
        summarize([FoldCounts("a", 0, {}, {"C": table(70, (1, 1, 1))})])


RECIPE = Recipe.from_dict(
    {
        "pretrained": False,
        "crop_px": 64,
        "batch": 2,
        "epochs": 1,
        "steps_per_epoch": 2,
        "mine_at": [],
        "precision": "32-true",
    }
)


@pytest.fixture
def trained(monkeypatch):
    """Which cases each training saw; networks are not needed here."""
    seen: dict[str, set[str]] = {}

    def train(cases, folder, recipe, on_event, accelerator, threads):
        seen[f"{folder.parent.name}/{folder.name}"] = {case.slide for case in cases}

    def count(run, fold, seed, tested, threads):
        tables = {case.slide: table(70, (9, 1, 1)) for case in tested}
        return FoldCounts(fold, seed, tables, {})

    monkeypatch.setattr(crossval, "train", train)
    monkeypatch.setattr(crossval, "_counted", count)
    return seen


def test_every_slide_is_tested_once_a_seed_by_networks_that_never_saw_it(trained, tmp_path):
    cases = write_cases(tmp_path / "fields", slides=5)
    result = cross_validate(cases, tmp_path / "cv", RECIPE, "slide", 3, (0, 4))
    assert sorted(trained) == [f"seed-{s}/fold-{f}" for s in (0, 4) for f in (1, 2, 3)]
    tested = [slide for row in result["rows"] for slide in row["slides"]]
    assert sorted(tested) == sorted([f"S{n}" for n in range(5)] * 2)
    for row in result["rows"]:
        assert not trained[f"seed-{row['seed']}/{row['fold']}"] & set(row["slides"])
    saved = json.loads((tmp_path / "cv" / "crossval.json").read_text())
    assert saved["settings"]["recipe"] == RECIPE.to_dict()
    assert saved == json.loads(json.dumps(result))


def test_laboratories_are_left_out_one_by_one(trained, tmp_path):
    cases = [
        dataclasses.replace(case, laboratory=f"lab {case.slide[1]}")
        for case in write_cases(tmp_path / "fields")
    ]
    result = cross_validate(cases, tmp_path / "cv", RECIPE, "laboratory")
    assert [row["fold"] for row in result["rows"]] == ["lab 0", "lab 1", "lab 2"]
    assert trained["seed-0/lab_1"] == {"S0", "S2"}


def test_laboratories_that_would_share_a_folder_are_named(trained, tmp_path):
    made = write_cases(tmp_path / "fields", slides=2, fields=1)
    names = ("lab 1", "lab/1")
    cases = [
        dataclasses.replace(case, laboratory=laboratory)
        for case, laboratory in zip(made, names, strict=True)
    ]
    message = r"'lab 1' and 'lab/1' would both be trained in the folder lab_1"
    with pytest.raises(DataError, match=message):
        cross_validate(cases, tmp_path / "cv", RECIPE, "laboratory")
    assert not trained


def test_a_laboratory_of_dots_is_trained_in_a_folder_of_its_own(trained, tmp_path):
    made = write_cases(tmp_path / "fields", slides=2, fields=1)
    cases = [
        dataclasses.replace(case, laboratory=laboratory)
        for case, laboratory in zip(made, (".", ".."), strict=True)
    ]
    result = cross_validate(cases, tmp_path / "cv", RECIPE, "laboratory")
    assert [row["fold"] for row in result["rows"]] == [".", ".."]
    assert set(trained) == {"seed-0/_", "seed-0/__"}


def test_a_seed_given_twice_is_one_training(trained, tmp_path):
    cases = write_cases(tmp_path / "fields", slides=2)
    result = cross_validate(cases, tmp_path / "cv", RECIPE, "slide", 2, (0, 0))
    assert len(result["rows"]) == 2 and result["settings"]["seeds"] == [0]


def test_a_patients_other_scan_is_not_trained_on(trained, tmp_path):
    made = write_cases(tmp_path / "fields", slides=4, fields=1)
    about = (("one", "1"), ("two", "1"), ("two", "2"), ("three", "3"))
    cases = [
        dataclasses.replace(case, laboratory=laboratory, patient=patient)
        for case, (laboratory, patient) in zip(made, about, strict=True)
    ]
    cross_validate(cases, tmp_path / "cv", RECIPE, "laboratory")
    assert trained["seed-0/one"] == {"S2", "S3"} and trained["seed-0/two"] == {"S3"}
    with pytest.raises(DataError, match="all other cases are of the patients"):
        cross_validate(cases[:3], tmp_path / "other", RECIPE, "laboratory")


def test_only_one_fold_is_done_where_asked(trained, tmp_path):
    cases = write_cases(tmp_path / "fields")
    result = cross_validate(cases, tmp_path / "cv", RECIPE, "slide", 3, only=["fold-2"])
    assert list(trained) == ["seed-0/fold-2"] and len(result["rows"]) == 1
    with pytest.raises(UsageError, match="'fold-9' is not one of fold-1"):
        cross_validate(cases, tmp_path / "cv", RECIPE, "slide", 3, only=["fold-9"])


def test_saved_counts_of_another_training_are_not_taken(tmp_path):
    cases: list[Case] = write_cases(tmp_path)
    identity = RunIdentity.of(cases, [], RECIPE).digest
    fields = {f"fields/{case.slide}": table(3, (1, 1, 1)) for case in cases}
    path = tmp_path / "counts.npz"
    np.savez_compressed(path, identity=np.array(identity), **fields)
    assert sorted(crossval._load_counts(path, identity, cases)) == sorted(fields)
    assert crossval._load_counts(path, "other", cases) is None
    assert crossval._load_counts(path, identity, cases[:2]) is None
    for content in (b"", b"PK\x03\x04 broken", b"\x80\x04K\x01."):
        path.write_bytes(content)
        assert crossval._load_counts(path, identity, cases) is None


def test_corrected_labels_of_a_tested_slide_are_counted_anew(monkeypatch, tmp_path):
    counted = []

    def count(cases):
        counted.append(cases)
        slides = sorted({case.slide for case in cases})
        return slides, np.stack([table(70, (9, 1, 1))] * len(slides)) if slides else []

    state = SimpleNamespace(identity="a training", recipe=RECIPE.to_dict(), stain=None)
    monkeypatch.setattr(crossval, "load_state", lambda run: state)
    monkeypatch.setattr(crossval, "map_cases", lambda run, cases, threads: cases)
    monkeypatch.setattr(crossval, "count_items", count)
    cases = write_cases(tmp_path)
    crossval._counted(tmp_path, "a", 0, cases, None)
    first = len(counted)
    crossval._counted(tmp_path, "a", 0, cases, None)
    assert len(counted) == first
    fewer = dataclasses.replace(cases[0], mitoses_xy=cases[0].mitoses_xy[1:])
    crossval._counted(tmp_path, "a", 0, [fewer, *cases[1:]], None)
    assert len(counted) == 2 * first


@pytest.mark.parametrize("changes", [True, False])
def test_counts_of_slides_that_were_matched_whatever_the_recipe_are_not_taken(
    monkeypatch, tmp_path, changes
):
    calm = {} if changes else {"stain_match": 0.0, "stain_transfer": 0.0, "stain_jitter": 0.0}
    settings = RECIPE.to_dict()
    recipe = Recipe.from_dict({**settings, "augmentation": {**settings["augmentation"], **calm}})
    stain = {"mean": [0.2, 0.3, 0.2], "std": [0.1, 0.1, 0.1]}
    state = SimpleNamespace(identity="a training", recipe=recipe.to_dict(), stain=stain)
    cases = write_cases(tmp_path)
    slides = sorted({case.slide for case in cases})
    fields = {f"fields/{slide}": table(3, (1, 1, 1)) for slide in slides}
    identity = f"a training {RunIdentity.of([], cases, recipe).digest}"
    np.savez_compressed(tmp_path / "counts.npz", identity=np.array(identity), **fields)
    monkeypatch.setattr(crossval, "load_state", lambda run: state)
    monkeypatch.setattr(crossval, "map_cases", lambda run, cases, threads: cases)
    counted = []

    def count(cases):
        counted.append(len(cases))
        return (slides, np.stack([table(70, (9, 1, 1))] * len(slides))) if cases else ([], [])

    monkeypatch.setattr(crossval, "count_items", count)
    crossval._counted(tmp_path, "a", 0, cases, None)
    assert (counted == []) == changes


@pytest.mark.slow
def test_the_command_trains_scores_and_goes_on(tmp_path, capsys):
    for case in write_cases(tmp_path / "clicks", slides=2):
        rows = [f"{x},{y}" for x, y in case.mitoses_xy]
        case.image.with_suffix(".csv").write_text("\n".join(["x,y", *rows]) + "\n")
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        "pretrained = false\ncrop_px = 64\nbatch = 2\nepochs = 1\nsteps_per_epoch = 2\n"
        'mine_at = []\nprecision = "32-true"\n'
    )
    given = ["crossval", f"points:{tmp_path / 'clicks'}", "--mpp", "0.25", "--recipe", str(recipe)]
    given += ["--folds", "2", "-o", str(tmp_path / "cv"), "--threads", "1", "--accelerator", "cpu"]
    assert main(given) == 0
    first = capsys.readouterr()
    assert "fold-1" in first.out and "all" in first.out and "common thresholds" in first.out
    assert main(given) == 0
    again = capsys.readouterr()
    assert again.out == first.out and "all 2 steps are done" in again.err
