"""The older methods of the benchmarks: candidates on synthetic fields, geometry of the window."""

from __future__ import annotations

import numpy as np
import pytest

from segmitos.training.sampling import TrainingImage, common_stain, load_training_images
from tests.factories.synthetic_fields import draw_field, write_cases

pytest.importorskip("skimage", reason="scikit-image is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")
from experiments import random_forest as ipal
from experiments import sliding_window as idsia


def apart(points_xy, others_xy):
    return np.hypot(*(points_xy[:, None] - others_xy[None]).transpose(2, 0, 1))


def lonely_field(seed):
    """A field on which no two things lie within 40 px."""
    rng = np.random.default_rng(seed)
    while True:
        image, mitoses, others = draw_field(rng, 256)
        every = np.concatenate([mitoses, others])
        if (apart(every, every) + 99 * np.eye(len(every))).min() >= 40:
            return image, mitoses


def test_blue_ratio_by_hand():
    pixel = np.array([[[60, 20, 90]]], np.uint8)
    assert ipal.blue_ratio(pixel)[0, 0] == pytest.approx(100 * 90 / 81 * 256 / 171, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_mitoses_are_the_strongest_candidates(seed):
    image, mitoses = lonely_field(seed)
    found = ipal.find_candidates(ipal.blob_response(ipal.blue_ratio(image)), 1.0)
    strongest = found[np.argsort(-found[:, 2])][:3]
    gaps = apart(strongest[:, :2], mitoses)
    assert gaps.min(axis=0).max() <= 2
    assert sorted(gaps.argmin(axis=1)) == [0, 1, 2]


@pytest.mark.slow
def test_the_forest_tells_mitoses_from_look_alikes(tmp_path, monkeypatch):
    # Low enough that the look-alikes, far paler than any real one, are candidates too.
    monkeypatch.setattr(ipal.CandidateForest, "_response_of_mitoses", lambda *_: 5.0)
    sources = load_training_images(write_cases(tmp_path, slides=4, fields=3), 0.25)
    forest = ipal.CandidateForest(0, common_stain(sources))
    forest.fit(sources[:9])
    right = 0
    for source in sources[9:]:
        found = forest.detect(source)
        sure = found[found[:, 2] >= 0.5]
        right += int((apart(sure[:, :2], source.mitoses_xy).min(axis=1) <= 8).sum())
        assert (apart(sure[:, :2], source.mitoses_xy).min(axis=1) <= 8).all()
    assert right >= 6


def test_a_blank_field_has_no_candidates():
    white = np.full((128, 128, 3), 255, np.uint8)
    none = np.zeros((0, 2))
    assert (
        len(ipal.CandidateForest(0, None).detect(TrainingImage("w", "w", white, none, none, False)))
        == 0
    )


def test_what_lies_between_is_neither_mitosis_nor_other():
    points = np.array([(100.0, 100.0), (125.0, 100.0), (140.0, 100.0)])
    true, false = ipal.sides(points, np.array([(100.0, 100.0)]))
    assert (true.tolist(), false.tolist()) == ([0], [2])


class Darkness:
    """Answers as a network would that looks at the middle 12 px of its patch."""

    def run(self, _, inputs):
        return [1 - inputs["image"][:, 42:54, 42:54].mean(axis=(1, 2, 3)) / 255]


@pytest.mark.parametrize("place", [(60, 84), (6, 6), (170, 100)])
def test_the_window_finds_where_the_dark_is(place):
    image = np.full((130, 200, 3), 255, np.uint8)
    rows, columns = np.mgrid[:130, :200]
    image[np.hypot(columns - place[0], rows - place[1]) < 11] = 0
    probability = idsia.window_map(Darkness(), image)
    assert probability.shape == (11, 17)
    found = idsia.maxima(probability, idsia.STRIDE_PX, 0.1, 0.25)
    assert len(found) == 1
    assert np.abs(found[0, :2] - place).max() <= 6


def test_of_near_points_the_best_is_kept():
    scored = np.array([(0, 0, 0.5), (5, 0, 0.9), (20, 0, 0.1), (9, 0, 0.8)])
    assert idsia.best_apart(scored, 10).tolist() == [[5, 0, 0.9], [20, 0, 0.1]]
