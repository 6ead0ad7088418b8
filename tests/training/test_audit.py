"""The audit of labels, and the patches and nuclei that it and the verifiers learn from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from segmitos.cli import main
from segmitos.detection.patches import OUTSIDE
from segmitos.errors import DataError
from segmitos.io.datasets import load_dataset
from segmitos.io.pairs import is_near
from segmitos.io.points.regions import Regions
from segmitos.training import audit
from segmitos.training.audit import AuditOptions, audit_labels
from segmitos.training.nuclei import find_dark_nuclei
from segmitos.training.patches import augmented_patches, draw_transforms, read_patch
from segmitos.training.sampling import load_training_images
from segmitos.training.train_verifier import Pool, divided, drawn_by_score
from tests.factories.points import rectangle
from tests.factories.synthetic_fields import write_cases


@pytest.mark.slow
def test_a_mitosis_that_nobody_labeled_is_suspected_and_no_label_that_is_right(tmp_path):
    cases = write_cases(tmp_path, slides=2, fields=3)
    hidden = cases[0].mitoses_xy[0]
    cases[0] = dataclasses.replace(cases[0], mitoses_xy=cases[0].mitoses_xy[1:])
    images = load_training_images(cases, 0.25)
    options = AuditOptions(
        folds=2, seeds=1, steps=40, batch=16, missed_above=0.5, doubtful_below=0.0
    )
    suspects = audit_labels(images, options)
    assert {suspect.kind for suspect in suspects} == {"missed mitosis"}
    surest = suspects[0]
    assert surest.source == 0
    assert np.hypot(surest.x - hidden[0], surest.y - hidden[1]) < 8
    assert surest.label == ""


def test_a_slide_alone_cannot_be_audited(tmp_path):
    images = load_training_images(write_cases(tmp_path, slides=1, fields=2), 0.25)
    with pytest.raises(DataError, match="at least two slides"):
        audit_labels(images, AuditOptions())


@pytest.fixture
def sure_networks(monkeypatch):
    """Networks that take every cell for a mitosis; returns the places that each learned from."""
    learned: list[Pool] = []

    def train(sources, pools, recipe, stains, target, on_step):
        for step in range(recipe.steps):
            on_step(step + 1, 0.5)
        learned.extend(pools.values())

    monkeypatch.setattr(audit, "train_verifier", train)
    monkeypatch.setattr(audit, "score_patches", lambda network, image, xy: np.full(len(xy), 5.0))
    return learned


def test_two_scans_of_a_patient_are_never_on_two_sides(tmp_path, sure_networks):
    cases = [
        dataclasses.replace(case, patient="1" if case.slide in ("S0", "S1") else "2")
        for case in write_cases(tmp_path, slides=3, fields=1)
    ]
    images = load_training_images(cases, 0.25)
    audit_labels(images, AuditOptions(folds=3, seeds=1))
    learned = [set(pool.positives[:, 0].astype(int)) for pool in sure_networks]
    assert sorted(learned, key=sorted) == [{0, 1}, {2}]
    with pytest.raises(DataError, match="of two patients"):
        audit_labels(images[:2], AuditOptions())


def test_progress_counts_the_steps_of_all_networks(tmp_path, sure_networks):
    images = load_training_images(write_cases(tmp_path, slides=2, fields=1), 0.25)
    told = []
    options = AuditOptions(folds=3, seeds=2, steps=5)
    audit_labels(images, options, lambda *news: told.append(news))
    # Two slides make two folds.
    assert [news[:2] for news in told] == [(done, 20) for done in range(1, 21)]
    assert told[4][2] == "fold 1 of 2, seed 0" and told[-1][2] == "fold 2 of 2, seed 1"


def test_where_nobody_looked_nothing_is_suspected_and_nothing_taught(tmp_path, sure_networks):
    cases = write_cases(tmp_path, slides=2, fields=1)
    left = Regions((rectangle(0, 0, 96, 192),))
    half = [
        dataclasses.replace(
            case,
            regions=left,
            mitoses_xy=case.mitoses_xy[:1],
            hard_negatives_xy=case.hard_negatives_xy[:0],
        )
        for case in cases
    ]
    suspects = audit_labels(load_training_images(half, 0.25), AuditOptions(folds=2, seeds=1))
    assert suspects and max(suspect.x for suspect in suspects) < 97
    assert max(pool.negatives[:, 1].max() for pool in sure_networks) < 97


def test_suspects_lie_on_the_file_whose_own_scale_holds(tmp_path, sure_networks):
    clicks = tmp_path / "clicks"
    cases = write_cases(clicks, slides=2, fields=1)
    (clicks / "mpp.txt").write_text("0.5")
    for case in cases:
        with Image.open(case.image) as image:
            image.save(case.image, dpi=(25_400 / 0.25,) * 2)
        rows = [f"{x:.2f},{y:.2f},non-mitosis" for x, y in case.hard_negatives_xy]
        rows += [f"{x:.2f},{y:.2f},mitosis" for x, y in case.mitoses_xy]
        case.image.with_suffix(".csv").write_text("\n".join(["x,y,label", *rows]) + "\n")
    given = ["--folds", "2", "--seeds", "1", "--threads", "1"]
    out = tmp_path / "audit"
    assert main(["dataset", "audit", f"points:{clicks}", "-o", str(out), *given]) == 0
    for case, doubted in zip(cases, load_dataset(f"points:{out / 'points'}"), strict=True):
        assert is_near(doubted.unsure_xy, case.hard_negatives_xy, 1).sum() >= 2
        assert len(doubted.hard_negatives_xy) + is_near(
            case.hard_negatives_xy, doubted.unsure_xy, 1
        ).sum() == len(case.hard_negatives_xy)


def test_dark_nuclei_are_found_where_they_are_and_pale_tissue_has_none():
    image = np.full((200, 240, 3), (225, 180, 215), np.uint8)
    rows, columns = np.mgrid[:200, :240]
    for x, y in ((60, 50), (180, 140)):
        image[np.hypot(columns - x, rows - y) <= 11] = (60, 20, 90)
    found = find_dark_nuclei(image, 0.25)
    assert len(found) == 2
    assert np.allclose(found[np.argsort(found[:, 0])], [[60, 50], [180, 140]], atol=1.5)
    assert len(find_dark_nuclei(image[:30, :30], 0.25)) == 0


def test_a_patch_beyond_the_border_is_gray_or_mirrored():
    image = np.arange(40 * 40 * 3, dtype=np.uint32).reshape(40, 40, 3).astype(np.uint8)
    inside, corner = read_patch(image, 20, 21, 8)
    assert corner == (17, 18) and np.array_equal(inside, image[18:26, 17:25])
    gray, _ = read_patch(image, 0, 20, 8)
    assert (gray[:, :3] == OUTSIDE).all() and np.array_equal(gray[:, 3:], image[17:25, :5])
    mirrored, _ = read_patch(image, 0, 20, 8, gray=False)
    assert np.array_equal(mirrored[:, 2], mirrored[:, 3])


def test_an_untouched_transform_keeps_the_point_in_the_middle():
    image = np.full((160, 160, 3), 220, np.uint8)
    image[70:73, 90:93] = 0
    centers = np.array([[91.0, 71.0]])
    matrix = np.eye(2, dtype=np.float32)[None]
    patches = augmented_patches(
        [image], [None], centers, matrix, [], None, np.random.default_rng(3), 64, False
    )
    row, column = np.unravel_index(int(patches[0].sum(0).argmin()), (64, 64))
    assert abs(row - 31.5) <= 1.5 and abs(column - 31.5) <= 1.5


def test_transforms_zoom_within_their_range_and_turn_by_right_angles_where_told():
    matrices = draw_transforms(200, np.random.default_rng(0), np.ones(200, bool))
    zoom = 1 / np.sqrt(np.abs(np.linalg.det(matrices)))
    assert zoom.min() >= 0.79 and zoom.max() <= 1.33
    scaled = matrices * zoom[:, None, None]
    assert np.allclose(scaled, np.round(scaled), atol=1e-5)


def test_a_batch_is_divided_by_shares_and_hard_negatives_come_more_often():
    assert divided(10, [1, 1, 2]) == [3, 2, 5]
    pool = Pool(np.zeros((0, 3)), np.zeros((50, 3)))
    pool.scores[:] = 0.0
    pool.scores[7] = 1.0
    drawn = drawn_by_score(pool, 400, 0, np.random.default_rng(0))
    # 0.7 of one against 0.02 of 49 others.
    assert 0.3 < (drawn == 7).mean() < 0.55
