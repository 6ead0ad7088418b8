"""What is held out: whole slides and patients, in shares of mitoses that are alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segmitos.errors import DataError, UsageError
from segmitos.evaluation.folds import assign_folds, hold_out
from segmitos.io.datasets import Case


def field(slide: str, mitoses: int, patient: str = "", number: int = 0, crop: bool = False) -> Case:
    points = np.zeros((mitoses, 2))
    return Case(
        name=f"{slide}_{number}",
        image=Path("x.png"),
        mitoses_xy=points,
        hard_negatives_xy=points[:0],
        mpp=0.25,
        slide=slide,
        patient=patient,
        dataset="d",
        centered_crop=crop,
    )


def mitoses(cases):
    return sum(len(case.mitoses_xy) for case in cases)


def test_folds_hold_whole_patients_and_as_many_mitoses():
    cases = [field(f"S{slide}", slide % 7, number=n) for slide in range(20) for n in range(3)]
    cases += [field("T1", 9, "t"), field("T2", 9, "t")]
    folds = assign_folds(cases, "slide", 4)
    assert sorted(folds) == ["fold-1", "fold-2", "fold-3", "fold-4"]
    assert sorted(c.name for f in folds.values() for c in f) == sorted(c.name for c in cases)
    keys = [{case.patient or case.slide for case in fold} for fold in folds.values()]
    assert sum(map(len, keys)) == len(set.union(*keys))
    counts = [mitoses(fold) for fold in folds.values()]
    assert max(counts) - min(counts) <= 18


def test_crops_of_a_patient_with_a_field_are_divided_as_the_field_is():
    cases = [field("C", 5, "a", crop=True), field("A", 5, "a"), field("B", 9)]
    cases += [field("D", 8, crop=True), field("E", 7, crop=True)]
    for order in (cases, cases[::-1]):
        folds = assign_folds(order, "slide", 2).values()
        assert [sorted(case.slide for case in fold) for fold in folds] == [list("ACD"), list("BE")]


def test_too_few_slides_for_the_folds_are_refused():
    cases = [field("S0", 1), field("S1", 1)]
    with pytest.raises(DataError, match="3 folds of 2 slides"):
        assign_folds(cases, "slide", 3)
    with pytest.raises(UsageError, match="two or more"):
        assign_folds(cases, "slide", 1)
    with pytest.raises(UsageError, match="two or more"):
        assign_folds(cases[:1], "slide")
    with pytest.raises(UsageError, match="each one is a fold"):
        assign_folds(cases, "laboratory", 2)
    with pytest.raises(DataError, match="laboratory is not known"):
        assign_folds(cases, "laboratory")


@pytest.mark.parametrize(
    "counts", [(5, 5), (9, 4, 2), (18,) * 4, (7,) * 5, (60, 9, 8, 7, 6, 5, 4), (3,) * 20]
)
def test_validation_is_about_a_fifth_of_the_mitoses_and_never_all(counts):
    cases = [field(f"S{index}", count) for index, count in enumerate(counts)]
    cases += [field("empty", 0), field("crop", 50, crop=True)]
    held = hold_out(cases)
    fraction = mitoses(held) / sum(counts)
    assert 0.15 <= fraction <= 0.5
    assert len(held) >= (2 if len(counts) >= 4 else 1)
    assert not {"empty", "crop"} & {case.slide for case in held}
    assert [case.name for case in hold_out(cases)] == [case.name for case in held]


def test_a_second_slide_within_a_third_comes_before_one_within_a_half():
    counts = (63, 60, 40, 34, 29)
    held = hold_out([field(f"S{index}", count) for index, count in enumerate(counts)])
    assert [case.slide for case in held] == ["S2", "S3"]


def test_one_slide_with_mitoses_cannot_be_split():
    with pytest.raises(DataError, match=r"1 slide\(s\) with mitoses"):
        hold_out([field("S0", 3), field("S1", 0)])
