"""Only the same run is resumed or called finished; what differs is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmitos.errors import InputError, ModelError, UsageError
from segmitos.io.datasets import Case
from segmitos.io.points.regions import Regions
from segmitos.training.checkpoint import TrainingState, load_state, save_checkpoint
from segmitos.training.crossval import cross_validate
from segmitos.training.identity import (
    IDENTITY,
    RunIdentity,
    check_unseen,
    images_of,
    resume_recipe,
)
from segmitos.training.recipe import Recipe
from segmitos.training.train import train
from tests.factories.synthetic_fields import write_cases

RECIPE = Recipe(pretrained=False)


@pytest.fixture
def cases(tmp_path):
    return write_cases(tmp_path / "fields")


@pytest.fixture
def saved(cases, tmp_path):
    """A run on four cases that two others validate."""
    identity = RunIdentity.of(cases[:4], cases[4:], RECIPE)
    run = tmp_path / "run"
    state = TrainingState(step=3, recipe=RECIPE.to_dict(), identity=identity.digest)
    save_checkpoint(run, {}, state)
    (run / IDENTITY).write_bytes(identity.to_json())
    return run


def test_the_same_run_is_resumed_wherever_its_images_lie(cases, saved, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    again = []
    for case in cases:
        path = moved / case.image.name
        path.write_bytes(case.image.read_bytes())
        again.append(dataclasses.replace(case, image=path))
    assert resume_recipe(saved, RunIdentity.of(again[:4], again[4:], RECIPE)) == RECIPE
    assert resume_recipe(tmp_path / "absent", RunIdentity.of(cases, [], RECIPE)) is None


# Every field of a case that is not its name or where it lies.
CHANGES = {
    "mitoses_xy": np.array([[1.0, 2.0]]),
    "hard_negatives_xy": np.array([[1.0, 2.0]]),
    "mpp": 0.5,
    "slide": "other",
    "patient": "other",
    "dataset": "other",
    "radii_px": np.array([1.0]),
    "centered_crop": True,
    "confidence": np.array([0.5]),
    "scanner": "other",
    "size_px": (3, 4),
    "tumour": "other",
    "unsure_xy": np.array([[1.0, 2.0]]),
    "laboratory": "other",
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Case)])
def test_a_case_that_changed_in_any_field_is_named(cases, saved, name, tmp_path):
    change = CHANGES.get(name)
    if name == "image":
        change = tmp_path / "other.png"
        Image.new("RGB", (192, 192)).save(change)
    elif name == "mask":
        change = cases[1].image
    elif name == "name":
        change = "other"
    elif name == "regions":
        change = Regions(((np.array([[0.0, 0.0], [90.0, 0.0], [90.0, 90.0]]),),))
    changed = dataclasses.replace(cases[0], **{name: change})
    identity = RunIdentity.of([changed, *cases[1:4]], cases[4:], RECIPE)
    with pytest.raises(UsageError, match=r"holds another run: case (S0_0|other)") as caught:
        resume_recipe(saved, identity)
    assert "--restart" in str(caught.value) and "\n" not in str(caught.value)


def test_a_training_slide_never_becomes_validation(cases, saved):
    identity = RunIdentity.of(cases[2:], cases[:2], RECIPE)
    with pytest.raises(UsageError, match="S0_0, S0_1, S2_0 and 1 more changed between"):
        resume_recipe(saved, identity)


def test_other_recipes_budgets_and_splits_are_named(cases, saved):
    other = Recipe.from_dict({**RECIPE.to_dict(), "seed": 3, "labels": {"kind": "circle"}})
    for identity, message in (
        (
            RunIdentity.of(cases[:4], cases[4:], other),
            'labels.kind is "circle", was "random"; recipe seed is 3, was 0',
        ),
        (RunIdentity.of(cases[:3], cases[4:], RECIPE), "case S1_1 left out of training"),
        (RunIdentity.of(cases[:4], [], RECIPE), "case S2_0, S2_1 left out of validation"),
        (RunIdentity.of(cases[:4], cases[4:], RECIPE, None, 60.0), "time budget"),
        (RunIdentity.of(cases[:4], cases[4:], RECIPE, saved), "--start-from"),
    ):
        with pytest.raises(UsageError, match=message):
            resume_recipe(saved, identity)


def test_a_run_whose_identity_is_gone_or_of_another_is_refused(cases, saved):
    identity = RunIdentity.of(cases[:4], cases[4:], RECIPE)
    (saved / IDENTITY).write_bytes(RunIdentity.of(cases, [], RECIPE).to_json())
    with pytest.raises(UsageError, match="not of the same run"):
        resume_recipe(saved, identity)
    for content in (b"{", b"[]", b'{"recipe": 3}', b"\xff"):
        (saved / IDENTITY).write_bytes(content)
        with pytest.raises(UsageError, match="does not say what it was trained on"):
            resume_recipe(saved, identity)
    (saved / IDENTITY).unlink()
    with pytest.raises(UsageError, match="does not say what it was trained on"):
        resume_recipe(saved, identity)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", float("nan")),
        ("step", -1),
        ("step", "3"),
        ("step", 1e400),
        ("tensors", "../elsewhere.safetensors"),
        ("tensors", "/etc/passwd"),
        ("tensors", 3),
        ("mined", {"a": [[1.0]]}),
        ("history", 3),
        ("format", 99),
    ],
)
def test_a_checkpoint_that_was_edited_is_one_line(saved, key, value):
    path = saved / "checkpoint.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {key: value}))
    with pytest.raises(ModelError, match=r"checkpoint\.json|format 99") as caught:
        load_state(saved)
    assert "\n" not in str(caught.value)


def test_a_missing_image_is_named(cases):
    gone = dataclasses.replace(cases[0], image=Path("gone.png"))
    with pytest.raises(InputError, match=r"cannot read gone\.png"):
        RunIdentity.of([gone], [], RECIPE)


def test_slides_that_the_start_was_trained_on_do_not_score(cases, saved, tmp_path):
    seen = f"case {cases[2].name} would be scored on, but the run .*run, was trained there"
    training, validation = [*cases[:2], *cases[4:]], cases[2:3]
    with pytest.raises(UsageError, match=seen):
        check_unseen(saved, images_of(validation), validation)
    check_unseen(saved, images_of(cases[4:]), cases[4:])
    check_unseen(tmp_path / "absent", images_of(cases), cases)
    (saved / load_state(saved).tensors).touch()
    with pytest.raises(UsageError, match=seen):
        train(training, tmp_path / "new", RECIPE, validation, start_from=saved)
    weights = Recipe(pretrained=False, weights=f"run:{saved}")
    with pytest.raises(UsageError, match=seen):
        train(training, tmp_path / "new", weights, validation)
    with pytest.raises(UsageError, match="would be scored on, but the run"):
        cross_validate(cases, tmp_path / "cv", weights, "slide", 2)
    assert not (tmp_path / "new").exists() and not (tmp_path / "cv").exists()


def test_a_copy_of_an_image_neither_validates_nor_tests_it(cases, tmp_path):
    """Another name, or another data set, does not make it another slide."""
    copy = tmp_path / "copy.png"
    copy.write_bytes(cases[0].image.read_bytes())
    again = dataclasses.replace(cases[4], name="again", slide="T0", image=copy)
    message = f"again of validation and {cases[0].name} of training are the same image"
    with pytest.raises(UsageError, match=message):
        RunIdentity.of(cases[:4], [again], RECIPE)
    others = [dataclasses.replace(again, name=f"again{number}") for number in range(3)]
    with pytest.raises(UsageError, match=r"file for file, and 2 more pairs like these; --exclude"):
        RunIdentity.of(cases[:4], others, RECIPE)
    link = tmp_path / "link.png"
    link.symlink_to(cases[0].image)
    linked = dataclasses.replace(again, patient="", image=link)
    with pytest.raises(UsageError, match=r"of fold-. are the same image"):
        cross_validate([*cases[:4], linked], tmp_path / "cv", RECIPE, "slide", 3)
    assert not (tmp_path / "cv").exists()
    # Twice on one side it only counts twice.
    RunIdentity.of([*cases[:4], again], cases[4:], RECIPE)


def test_tiles_without_tissue_may_be_alike(cases, tmp_path):
    blank = []
    for number in range(3):
        path = tmp_path / f"blank{number}.png"
        Image.new("RGB", (90, 70), (243, 241, 244)).save(path)
        about = {"name": path.stem, "slide": f"B{number}", "patient": "", "image": path}
        none = np.zeros((0, 2))
        blank.append(
            dataclasses.replace(cases[0], mitoses_xy=none, hard_negatives_xy=none, **about)
        )
    assert len(set(images_of(blank).values())) == 1
    identity = RunIdentity.of([*cases[:4], blank[0]], [*cases[4:], blank[1]], RECIPE)
    run = tmp_path / "run"
    run.mkdir()
    (run / IDENTITY).write_bytes(identity.to_json())
    check_unseen(run, images_of([*cases[4:], blank[2]]), [*cases[4:], blank[2]])
    with pytest.raises(UsageError, match="would be scored on"):
        check_unseen(run, images_of([cases[0], blank[2]]), [cases[0], blank[2]])
