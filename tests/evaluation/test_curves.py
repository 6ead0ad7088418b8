import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segmitos.detection.postprocess import MapAccumulator
from segmitos.errors import InputError, UsageError
from segmitos.evaluation import curves, gallery
from segmitos.evaluation.matching import f_score, match_points
from segmitos.evaluation.scoring import evaluate
from segmitos.evaluation.sweep import RankedDetections
from segmitos.evaluation.tuning import tune
from segmitos.io.datasets import Case
from segmitos.io.points.detections import Detections


def case_of(name, slide, mitoses_xy, mpp, image):
    return Case(name, image, mitoses_xy, np.zeros((0, 2)), mpp, slide)


def make_study(folder, images=6, side=600, mpp=0.25):
    """Images with a red dot on every mitosis and a blue one on every false positive."""
    cases, detections = [], {}
    for index in range(images):
        generator = np.random.default_rng(index)
        truth = generator.uniform(80, side - 80, (4, 2)).round()
        decoys = generator.uniform(80, side - 80, (3, 2)).round()
        # Apart, so that a decoy is never a hit and crops show one dot in their middle.
        decoys = decoys[[np.hypot(*(truth - d).T).min() > 80 for d in decoys]]
        picture = np.full((side, side, 3), 240, np.uint8)
        for color, points in (((200, 0, 0), truth), ((0, 0, 200), decoys)):
            for x, y in points.astype(int):
                picture[y - 3 : y + 4, x - 3 : x + 4] = color
        name = f"S{index % 3}_{index}"
        Image.fromarray(picture).save(folder / f"{name}.png")
        seen = truth[: 3 if index % 2 else 4]
        xy = np.concatenate([seen, decoys])
        score = np.concatenate(
            [generator.uniform(0.5, 1, len(seen)), generator.uniform(0.4, 0.8, len(decoys))]
        )
        area = generator.uniform(10, 60, len(xy))
        detections[name] = Detections(xy[:, 0], xy[:, 1], area, score, mpp, name)
        cases.append(case_of(name, name[:2], truth, mpp, folder / f"{name}.png"))
    return cases, detections


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path)


def opened(content):
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def test_curve_points_are_the_counts_at_every_threshold(study):
    cases, detections = study
    ranked = curves.rank_cases(cases, detections)
    recall, precision, thresholds = curves.precision_recall(ranked)
    for r, p, threshold in zip(recall, precision, thresholds, strict=True):
        matches = [
            match_points(found.xy[found.score >= threshold], case.mitoses_xy, 30)
            for case, found in ((case, detections[case.name]) for case in cases)
        ]
        tp, fp, fn = (sum(getattr(m, key) for m in matches) for key in ("tp", "fp", "fn"))
        assert (r, p) == pytest.approx((tp / (tp + fn), tp / (tp + fp)))
    pooled = evaluate(cases, detections).pooled
    assert (recall[-1], precision[-1]) == pytest.approx((pooled.recall, pooled.precision))
    assert pooled.f_score == f_score(pooled.tp, pooled.fp, pooled.fn)


def test_average_precision_of_known_rankings():
    def of(hits, mitoses):
        count = len(hits)
        score = np.linspace(1, 0.1, count)
        none = np.zeros(count, bool)
        ranked = RankedDetections(score, np.array(hits, bool), mitoses, 1, none)
        return curves.average_precision(ranked)

    assert of([1, 1, 1], 3) == 1
    assert of([1, 1, 0], 4) == 0.5
    assert of([0, 1], 1) == 0.5
    assert of([1, 0, 1], 2) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.slow
def test_all_pictures(study):
    cases, detections = study
    evaluation = evaluate(cases, detections)
    pictures = curves.evaluation_pictures(cases, detections, evaluation)
    assert list(pictures) == [
        "Precision and recall",
        "FROC",
        "F against score",
        "F against area",
        "F per slide",
        "True positives",
        "False positives",
        "False negatives",
    ]
    for title, content in pictures.items():
        pixels = opened(content)
        assert pixels.shape[0] > 100 and pixels.std() > 5, title
    assert pictures == curves.evaluation_pictures(cases, detections, evaluation)


def test_crops_are_what_they_say(study):
    cases, detections = study
    evaluation = evaluate(cases, detections)
    chosen = gallery.choose_crops(cases, detections, evaluation)
    assert len(chosen["True positives"]) == min(24, evaluation.pooled.tp)
    assert len(chosen["False positives"]) == evaluation.pooled.fp
    assert len(chosen["False negatives"]) == evaluation.pooled.fn == 3
    scores = [crop.score for crop in chosen["False positives"]]
    assert scores == sorted(scores, reverse=True)
    scores = [crop.score for crop in chosen["True positives"]]
    assert scores == sorted(scores)
    for title, middle in (("False negatives", (200, 0, 0)), ("False positives", (0, 0, 200))):
        pixels = opened(gallery.gallery_picture(cases, chosen[title]))
        for index in range(min(6, len(chosen[title]))):
            x, y = 8 + index * 136 + 64, 8 + 64
            assert np.abs(pixels[y, x].astype(int) - middle).max() < 40, (title, index)


def test_crops_take_the_scale_of_the_case(tmp_path):
    cases, _ = make_study(tmp_path, images=1, mpp=0.5)
    x, y = cases[0].mitoses_xy[0]
    crop = gallery.Crop(cases[0].name, x, y, 0.9)
    pixels = opened(gallery.gallery_picture(cases, [crop]))
    red = (pixels[8:136, 8:136, 0] > 150) & (pixels[8:136, 8:136, 1] < 90)
    # The dot is 7 px of 0.5 um, hence about 14 px of 0.25 um, in the middle.
    assert 13 <= red.any(axis=0).sum() <= 15
    ys, xs = np.nonzero(red[40:90, 40:90])
    assert (xs.mean() + 40, ys.mean() + 40) == pytest.approx((63.5, 63.5), abs=1)


def test_crops_are_at_the_scale_that_a_case_insists_on(tmp_path):
    pixels = np.full((400, 400, 3), 230, np.uint8)
    pixels[190:211, 190:211] = 20
    oblong = (10_000 / 0.5, 10_000 / 1.0)
    tifffile.imwrite(tmp_path / "a.tif", pixels, resolution=oblong, resolutionunit="CENTIMETER")
    none = np.zeros((0, 2))
    case = Case("a", tmp_path / "a.tif", none, none, 0.25, "a", override_mpp=True)
    drawn = opened(gallery.gallery_picture([case], [gallery.Crop("a", 200, 200, math.nan)]))
    dark = (drawn[8:110, 8:136].max(axis=2) < 60).sum()
    # Without the scale that was insisted on, each of its pixels would be two or more.
    assert dark == pytest.approx(21 * 21, 0.1)


def test_no_scores_no_curves(study):
    cases, detections = study
    bare = {name: Detections.from_points(found.xy, 0.25) for name, found in detections.items()}
    pictures = curves.evaluation_pictures(cases, bare, evaluate(cases, bare))
    assert "FROC" not in pictures and "F per slide" in pictures and "False negatives" in pictures


def test_nothing_to_draw(tmp_path):
    Image.new("RGB", (50, 50)).save(tmp_path / "a.png")
    case = case_of("a", "a", np.zeros((0, 2)), 0.25, tmp_path / "a.png")
    none = {"a": Detections.from_points(np.zeros((0, 2)), 0.25)}
    assert list(curves.evaluation_pictures([case], none, evaluate([case], none))) == ["F per slide"]
    one = np.array([5.0])
    false = {"a": Detections(one, one, one, one / 10, 0.25)}
    pictures = curves.evaluation_pictures([case], false, evaluate([case], false))
    assert {"FROC", "False positives"} <= set(pictures) and "False negatives" not in pictures
    with pytest.raises(UsageError, match="no recall"):
        curves.precision_recall(curves.rank_cases([case], false))


def test_many_slides_show_the_worst(tmp_path):
    place = np.array([[20.0, 20.0]])
    cases = [case_of(f"c{i}", f"slide {i}", place, 0.25, tmp_path) for i in range(70)]
    found = {
        case.name: Detections.from_points(place if i % 2 else place[:0], 0.25)
        for i, case in enumerate(cases)
    }
    few = opened(
        curves.slides_picture(evaluate(cases[:5], {c.name: found[c.name] for c in cases[:5]}))
    )
    many = opened(curves.slides_picture(evaluate(cases, found)))
    assert many.shape[0] > 4 * few.shape[0] and many.shape[0] < 2000


def test_tuning_picture():
    accumulator = MapAccumulator(1.0, 4, check_plausible=False)
    part = np.zeros((40, 40), np.float32)
    part[10:14, 20:24] = 0.9
    accumulator.add(part, 0, 0)
    result = tune([(accumulator, np.array([[87.5, 47.5]]), 0.25, "S")])
    assert result.counts.tp == 1
    assert opened(curves.tuning_picture(result)).shape[1] > 900


def test_bad_calls_are_named(study):
    cases, _ = study
    with pytest.raises(UsageError, match="at least one crop"):
        gallery.gallery_picture(cases, [])
    with pytest.raises(UsageError, match="'x' of a crop"):
        gallery.gallery_picture(cases, [gallery.Crop("x", 1, 1, math.nan)])
    cases[0] = replace(cases[0], image=Path("gone.png"))
    with pytest.raises(InputError, match=r"gone\.png"):
        gallery.gallery_picture(cases, [gallery.Crop(cases[0].name, 1, 1, math.nan)])
