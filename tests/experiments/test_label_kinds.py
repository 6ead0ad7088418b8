"""The comparison of label kinds: what is counted, tuned elsewhere, and said of a difference."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.label_kinds import (
    KINDS,
    PUBLISHED,
    RECIPE,
    UNSURE_OUT,
    both_counts,
    counts_by_seed,
    main,
    needed_slides,
    pooled,
    runs,
)
from experiments.paper_ablations import AREAS_UM2, SCORES
from segmitos.detection.postprocess import MapAccumulator
from segmitos.training.recipe import Recipe
from segmitos.training.sampling import TrainingImage


def field_with(mitoses, unsure):
    return TrainingImage(
        name="field",
        slide="A",
        image=np.zeros((128, 128, 3), np.uint8),
        mitoses_xy=np.array(mitoses, float).reshape(-1, 2),
        hard_negatives_xy=np.zeros((0, 2)),
        centered=False,
        ignored_xy=np.array(unsure, float).reshape(-1, 2),
    )


def test_a_detection_at_an_unsure_cell_is_false_as_published_and_nothing_without_unsure_cells():
    probability = np.zeros((32, 32), np.float32)
    probability[4:8, 4:8] = 0.9  # at (22, 22) px: the mitosis
    probability[20:24, 20:24] = 0.9  # at (86, 86) px: the unsure cell
    held = MapAccumulator(2.0, 4, check_plausible=False)
    held.add(probability, 0, 0)
    counts = both_counts(held.blobs(0.5), field_with([(22, 22)], [(86, 86)]))
    half = int(np.searchsorted(SCORES, 0.5))
    assert counts[PUBLISHED, half, 0].tolist() == [1, 1, 0]
    assert counts[UNSURE_OUT, half, 0].tolist() == [1, 0, 0]
    assert counts[PUBLISHED, -1, 0].tolist() == [0, 0, 1]  # above 0.95 nothing is left


def entry(seed, slide, best, steps=200):
    """One trained network, whose counts are perfect at one threshold and empty elsewhere."""
    table = np.zeros((2, len(SCORES), len(AREAS_UM2), 3), int)
    table[..., 2] = 10
    table[:, best, 0] = 10, 0, 0
    return {
        "set": "mitos12",
        "labels": "r12",
        "completed": False,
        "steps": steps,
        "seed": seed,
        "slide": slide,
        "posts": {"full": table.tolist()},
    }


def test_thresholds_of_a_slide_are_those_that_suit_the_others():
    # A slide that wants another threshold than the others gets theirs, and finds nothing.
    entries = [entry(0, "A", 3), entry(0, "B", 3), entry(0, "C", 9)]
    found = counts_by_seed(entries, "mitos12", "r12", False, "full", PUBLISHED)
    assert found[0]["C"] == [0, 0, 10]
    assert found[0]["A"] in ([10, 0, 0], [0, 0, 10])


def test_a_seed_counts_once_all_of_its_slides_are_done():
    entries = [entry(seed, slide, 3) for seed in (0, 1) for slide in "ABC"][:-1]
    found = counts_by_seed(entries, "mitos12", "r12", False, "full", PUBLISHED)
    assert list(found) == [0]
    assert pooled(found).tolist() == [1.0]


@pytest.mark.parametrize(
    ("mean", "low", "high", "needed"),
    [
        (0.05, 0.01, 0.09, "enough"),
        (-0.05, -0.09, -0.01, "enough"),
        (0.05, -0.05, 0.15, "20"),  # half of the interval is twice the difference
        (-0.05, -0.15, 0.05, "20"),
        (0.0, -0.1, 0.1, "none is enough"),
    ],
)
def test_how_many_slides_a_difference_takes(mean, low, high, needed):
    assert needed_slides(5, mean, low, high) == needed


def test_masks_are_asked_of_the_set_that_has_them_and_seeds_come_whole():
    assert {kind for _, kind, _ in runs("mitos14", list(KINDS), [0], ["A"])} == set(KINDS) - {
        "mask"
    }
    order = list(runs("mitos12", ["r12", "random"], [0, 1], ["A", "B"]))
    assert [seed for seed, *_ in order] == [0] * 4 + [1] * 4


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_recipe_of_every_kind_of_label_is_valid(kind):
    recipe = Recipe.from_dict({**RECIPE, "labels": KINDS[kind], "seed": 0, "steps_per_epoch": 1})
    assert recipe.network == "lite-half"


def test_the_table_is_printed_of_what_is_there(tmp_path, monkeypatch, capsys):
    lines = [entry(seed, slide, 3) for seed in (0, 1) for slide in "ABC"]
    lines += [{**line, "labels": "r12R24"} for line in lines]
    # Of another length of training, and worse: not mixed in.
    lines += [{**line, "steps": 400} for line in [entry(0, slide, 9) for slide in "AB"]]
    lines += [entry(0, "C", 3, steps=400)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr("sys.argv", ["label_kinds", "--out", str(tmp_path), "--table"])
    main()
    out = capsys.readouterr().out
    assert "| r12R24 against r12 | 2 | 1.000 (s.d. 0.000) | 1.000 (s.d. 0.000) | +0.000" in out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--out", "here"], "--data is needed, or --table"),
        (["--data", "d", "--out", "file/results"], "--out file/results cannot be made"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(tmp_path, monkeypatch, capsys, given, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr("sys.argv", ["label_kinds", *given])
    with pytest.raises(SystemExit) as refused:
        main()
    assert refused.value.code == 2
    assert said in capsys.readouterr().err
