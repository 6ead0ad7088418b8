"""A model adapted to a reader's marks: what is fitted, on what, and what the new file then says."""

from __future__ import annotations

import dataclasses
import json

import msgspec
import numpy as np
import pytest
from PIL import Image

from segmitos.cli import main
from segmitos.detection.model import Model
from segmitos.detection.model_file import read_model_file, write_model_file
from segmitos.detection.pipeline import DetectOptions, detect_slide
from segmitos.detection.postprocess import FLOOR
from segmitos.errors import DataError, ModelError, UsageError
from segmitos.io.datasets import load_dataset
from segmitos.report.dataset_report import describe
from segmitos.training.adapt import adapt
from segmitos.training.adapt_fit import Change, counts_at, cut_of, fit_change
from segmitos.training.judged_candidates import JudgedCandidates, judged_candidates
from segmitos.training.recipe import AdaptRecipe
from segmitos.training.verifier_head import VerifierHead
from tests.factories.toy_models import verifier_graph, write_toy, write_toy_verified

SIDE, MPP = 640, 0.25
DARK, RED = (40, 40, 60), (90, 20, 60)


def draw_field(folder, slide, seed, marks=12):
    """A field of dark cells: the blue ones are mitoses, the red ones look-alikes."""
    rng = np.random.default_rng(seed)
    pixels = np.full((SIDE, SIDE, 3), (230, 200, 220), np.uint8)
    places = [(60 + 130 * (k % 5), 60 + 180 * (k // 5)) for k in range(marks)]
    rows = ["x_px,y_px,label"]
    rows_y, rows_x = np.mgrid[:SIDE, :SIDE]
    for number, (x, y) in enumerate(places):
        mitosis = bool(rng.random() < 0.5) if number > 1 else number == 0
        disc = (rows_x - x) ** 2 + (rows_y - y) ** 2 <= 14**2
        pixels[disc] = np.array(DARK if mitosis else RED) + rng.integers(0, 25)
        rows.append(f"{x},{y},{'mitosis' if mitosis else 'non-mitosis'}")
    folder = folder / slide
    folder.mkdir(parents=True)
    Image.fromarray(pixels).save(folder / f"{slide}.png")
    (folder / "mpp.txt").write_text(f"{MPP}\n")
    (folder / f"{slide}.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def reviewed(tmp_path):
    for number, slide in enumerate(("one", "two", "three")):
        draw_field(tmp_path / "mine", slide, number)
    return load_dataset([f"points:{tmp_path / 'mine'}"])


@pytest.fixture
def toy(tmp_path):
    return write_toy_verified(tmp_path / "toy.segmitos", half_precision=True)


def candidates_of(cases, path):
    file = read_model_file(path)
    head = VerifierHead(file.verifier, "toy")
    return judged_candidates(cases, file, head, 1), head


def test_the_score_before_is_that_of_detection(reviewed, toy):
    found, _ = candidates_of(reviewed, toy)
    model = Model.load(toy, "cpu", 1)
    for case, one in zip(reviewed, found, strict=True):
        with case.open_image() as slide:
            result = detect_slide(slide, model, DetectOptions())
        score = np.sort(1 / (1 + np.exp(-one.score)))
        # The corners, which the toy network's padding darkens, are below what detection keeps.
        assert score[4:] == pytest.approx(np.sort(result.candidates.score), abs=2e-3)
        assert len(score) == 16 and score[3] < FLOOR
        assert one.is_mitosis.sum() == len(case.mitoses_xy) and one.missed == 0


def test_the_new_file_scores_as_the_change_says(reviewed, toy, tmp_path):
    recipe = AdaptRecipe(weight_penalty=10.0)
    result = adapt(reviewed, tmp_path / "run", toy, recipe=recipe, threads=1)
    assert result.kept and result.model.name == "run.segmitos"
    found, head = candidates_of(reviewed, toy)
    file = read_model_file(toy)
    change = fit_change(found, head.count, cut_of(file.spec.thresholds), recipe)
    after, _ = candidates_of(reviewed, result.model)
    for old, new in zip(found, after, strict=True):
        assert new.score == pytest.approx(change.score(old), abs=1e-4)
        assert np.abs(new.score - old.score).max() > 0.05
    before, own = read_model_file(toy), read_model_file(result.model)
    assert before.networks == own.networks and before.verifier != own.verifier
    assert own.spec.validation["adapted"]["kept"] is True


@pytest.mark.parametrize("slides", [3, 1])
def test_a_score_from_before_the_change_says_so(reviewed, toy, tmp_path, slides):
    file = read_model_file(toy)
    spec = msgspec.structs.replace(file.spec, validation={"f_score": 0.8, "data": "2 slides"})
    write_model_file(tmp_path / "scored.segmitos", spec, file.graphs)
    start = tmp_path / "scored.segmitos"
    result = adapt(reviewed[:slides], tmp_path / "run", start, threads=1)
    assert result.kept == (slides > 1)
    told = read_model_file(result.model).spec.validation["data"]
    assert told == ("2 slides, before it was adapted" if result.kept else "2 slides")
    spec = msgspec.structs.replace(spec, validation={"data": "2 slides, before it was adapted"})
    write_model_file(start, spec, file.graphs)
    again = adapt(reviewed[:slides], tmp_path / "again", start, threads=1)
    told = read_model_file(again.model).spec.validation["data"]
    assert told == "2 slides, before it was adapted"


def test_the_same_marks_give_the_same_bytes(reviewed, toy, tmp_path):
    first = adapt(reviewed, tmp_path / "run", toy, threads=1).model.read_bytes()
    assert adapt(reviewed, tmp_path / "run", toy, threads=1).model.read_bytes() == first


def test_a_slide_is_scored_by_a_change_that_was_not_fitted_to_it(reviewed, toy, tmp_path):
    result = adapt(reviewed, tmp_path / "run", toy, threads=1)
    assert [row.slide for row in result.rows] == ["one", "three", "two", "all"]
    found, head = candidates_of(reviewed, toy)
    cut = cut_of(read_model_file(toy).spec.thresholds)
    change = fit_change(found[1:], head.count, cut, AdaptRecipe())
    assert result.rows[0].after == counts_at(found[0], change.score(found[0]), cut)
    held_out = adapt(reviewed[1:], tmp_path / "other", toy, reviewed[:1], threads=1)
    assert held_out.rows == result.rows[:1]


def test_two_scans_of_a_patient_are_held_out_together(reviewed, toy, tmp_path):
    patients = [
        dataclasses.replace(case, patient="1" if case.slide in ("one", "two") else "2")
        for case in reviewed
    ]
    found, _ = candidates_of(patients, toy)
    groups = {one.slide: one.group for one in found}
    assert groups["one"] == groups["two"] != groups["three"]
    only = [case for case in patients if case.patient == "1"]
    assert {one.group for one in candidates_of(only, toy)[0]} == {case.name for case in only}
    assert "F is too high" in adapt(only, tmp_path / "run", toy, threads=1).how
    assert describe(reviewed)["patients"] == 3
    two_sets = [dataclasses.replace(case, dataset=case.slide, patient="1") for case in reviewed]
    assert describe(two_sets)["patients"] == 3


def made(score, is_mitosis, features=None):
    score = np.asarray(score, float)
    features = np.zeros((len(score), 2)) if features is None else features
    return JudgedCandidates("s", "s", features, score, np.asarray(is_mitosis, bool), 0)


def test_few_marks_change_little_and_many_find_the_shift():
    rng = np.random.default_rng(0)
    recipe, sizes = AdaptRecipe(cut=0.5), []
    for count in (20, 2000):
        true = rng.normal(0, 2, count)
        is_mitosis = rng.random(count) < 1 / (1 + np.exp(-true))
        sizes.append(fit_change([made(true - 1.5, is_mitosis)], 1, 0.0, recipe).shift)
    assert 0 < sizes[0] < sizes[1] and sizes[1] == pytest.approx(1.5, abs=0.15)


def test_the_fit_is_at_the_minimum_of_the_penalized_loss():
    rng = np.random.default_rng(1)
    features = rng.normal(0, 1, (60, 2))
    found = made(rng.normal(0, 1, 60), features[:, 0] > 0, features)
    recipe, cut = AdaptRecipe(weight_penalty=3.0), 0.2

    def loss(shift, weights):
        score = Change(shift, weights).score(found) - cut + np.log(0.36 / 0.64)
        margin = np.where(found.is_mitosis, 1, -1) * score
        kept = 0.5 * 4.0 * shift**2 + 0.5 * 3.0 * (weights**2).sum()
        return np.logaddexp(0, -margin).sum() + kept

    best = fit_change([found], 1, cut, recipe)
    least = loss(best.shift, best.weights)
    assert best.weights[0] > 0.3
    for step in ((0.05, 0, 0), (0, 0.05, 0), (0, 0, 0.05), (-0.05, 0, 0), (0, -0.05, 0)):
        assert loss(best.shift + step[0], best.weights + step[1:]) > least


def test_what_lies_outside_of_reviewed_regions_or_is_unsure_counts_nowhere(reviewed, toy, tmp_path):
    folder = tmp_path / "mine" / "one"
    (case,) = [case for case in reviewed if case.slide == "one"]
    ring = [[20, 20], [620, 20], [620, 150], [20, 150], [20, 20]]
    region = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": "Region*"}},
    }
    text = json.dumps({"type": "FeatureCollection", "features": [region]})
    (folder / "one.regions.geojson").write_text(text)
    lines = (folder / "one.csv").read_text().splitlines()
    (folder / "one.csv").write_text("\n".join([*lines[:3], "320,60,unsure", *lines[4:]]) + "\n")
    (case,) = load_dataset([f"points:{tmp_path / 'mine'}"], ["one*"])
    (one,), _ = candidates_of([case], toy)
    # Five cells lie in the region, one of them unsure.
    assert len(one.score) == 4
    assert one.is_mitosis.sum() == case.is_reviewed(case.mitoses_xy).sum()


def test_weights_in_half_precision_are_read_and_written():
    for half in (False, True):
        head = VerifierHead(verifier_graph(2, half), "toy")
        assert head.weights == pytest.approx(np.array([-4, -2, 1, -5, -2, 1]) / 2)
        patches = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
        change = np.array([0.1, -0.2, 0.3, 0.4, 0.5, -0.6])
        features = head.features(patches)
        again = VerifierHead(head.changed(change), "toy")
        assert again.weights == pytest.approx(head.weights + change, abs=1e-6)
        # It also checks them against what the graph itself gives.
        assert again.features(patches) == pytest.approx(features)
        twice = VerifierHead(again.changed(-change), "toy")
        assert twice.weights == pytest.approx(head.weights, abs=1e-6)
        assert twice.features(patches) == pytest.approx(features)


def test_what_cannot_be_adapted_is_refused_in_one_line(reviewed, toy, tmp_path):
    plain = write_toy(tmp_path / "plain.segmitos")
    with pytest.raises(ModelError, match="no verifier"):
        adapt(reviewed, tmp_path / "run", plain)
    with pytest.raises(ModelError, match="built-in models: lite"):
        adapt(reviewed, tmp_path / "run", "builtin:other")
    with pytest.raises(UsageError, match="both training and validation"):
        adapt(reviewed, tmp_path / "run", toy, reviewed[:1])
    few = load_dataset([f"points:{tmp_path / 'mine'}"], ["one*"])
    (tmp_path / "mine" / "one" / "one.csv").write_text("x_px,y_px,label\n60,60,unsure\n")
    few = load_dataset([f"points:{tmp_path / 'mine'}"], ["one*"])
    with pytest.raises(DataError, match="0 mitoses and 15 other"):
        adapt(few, tmp_path / "run", toy, threads=1)
    assert not (tmp_path / "run").exists()


def test_another_run_is_not_replaced(reviewed, toy, tmp_path):
    adapt(reviewed, tmp_path / "run", toy, threads=1)
    with pytest.raises(UsageError, match="another run"):
        adapt(reviewed[:2], tmp_path / "run", toy, threads=1)
    adapt(reviewed[:2], tmp_path / "run", toy, restart=True, threads=1)


def test_where_the_change_is_no_better_the_start_stays(reviewed, toy, tmp_path):
    for case in reviewed:
        # What the reader says is as likely as not, whatever the cell looks like.
        table = case.image.with_suffix(".csv")
        lines = table.read_text().splitlines()
        rng = np.random.default_rng(len(case.slide))
        kinds = rng.permutation([line.rpartition(",")[2] for line in lines[1:]])
        swapped = [line.rpartition(",")[0] for line in lines[1:]]
        table.write_text(
            "\n".join([lines[0], *(f"{a},{b}" for a, b in zip(swapped, kinds, strict=True))]) + "\n"
        )
    cases = load_dataset([f"points:{tmp_path / 'mine'}"])
    result = adapt(cases, tmp_path / "run", toy, threads=1)
    assert not result.kept and "no better" in result.text()
    assert read_model_file(result.model).verifier == read_model_file(toy).verifier


def test_the_verb_prints_the_table_and_says_what_was_assisted(reviewed, toy, tmp_path, capsys):
    slides = {case.slide: {"assisted": case.slide != "two"} for case in reviewed}
    (tmp_path / "mine" / "review.json").write_text(json.dumps({"slides": slides}))
    given = [
        "train",
        f"points:{tmp_path / 'mine'}",
        "--recipe",
        "adapt",
        "-o",
        str(tmp_path / "run"),
    ]
    assert main([*given, "--start-from", str(toy)]) == 0
    text = capsys.readouterr().out
    assert "before    TP   FP   FN   after" in text and "2 of 3 slides were reviewed with" in text
    assert "2 of 3 slides" in (tmp_path / "run" / "training.html").read_text()
    content = json.loads((tmp_path / "run" / "adapted.json").read_text())
    assert content["assisted"] == ["one", "three"] and content["rows"][-1]["slide"] == "all"
    assert main(given) == 2
    assert "--start-from builtin:lite" in capsys.readouterr().err
    for unused in (["--epochs", "3"], ["--no-resume"], ["--devices", "2"], ["--seed", "0"]):
        assert main([*given, "--start-from", str(toy), *unused]) == 2
        assert f"{unused[0]} does not go with" in capsys.readouterr().err


def test_other_recipes_do_not_start_from_a_model_file(reviewed, toy, tmp_path, capsys):
    given = ["train", f"points:{tmp_path / 'mine'}", "-o", str(tmp_path / "run")]
    assert main([*given, "--start-from", "builtin:lite"]) == 2
    assert "--recipe adapt" in capsys.readouterr().err
