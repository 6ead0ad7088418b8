"""Data sets by name: formats told apart, cases chosen, and what goes wrong said in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segmitos.commands.train import describe_split, split
from segmitos.errors import DataError, InputError, ScaleError, UsageError
from segmitos.evaluation.scoring import evaluate
from segmitos.io.datasets import FORMATS, Case, guess_format, load_dataset
from segmitos.io.datasets.load import _slides_apart, matches
from segmitos.io.points.detections import Detections
from tests.factories.dataset_layouts import LAYOUTS, draw, mitos14, points, save, write

FIELD = draw((96, 64), (70, 21), (30, 47))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def slides(tmp_path):
    """Two slides of two frames each, and one of a single frame."""
    for slide, frames in (("A03", 2), ("A04", 2), ("H03", 1)):
        for frame in range(frames):
            name = f"{slide}_0{frame}Aa"
            save(FIELD.pixels, tmp_path / slide / "frames" / "x40" / f"{name}.png")
            write(tmp_path / slide / "mitosis" / f"{name}_mitosis.csv", "70,21,1.0\n")
    return tmp_path


@pytest.mark.parametrize(
    ("cases", "exclude", "names"),
    [
        ((), (), ["A03_00Aa", "A03_01Aa", "A04_00Aa", "A04_01Aa", "H03_00Aa"]),
        (("A03",), (), ["A03_00Aa", "A03_01Aa"]),
        (("A*",), ("A04",), ["A03_00Aa", "A03_01Aa"]),
        (("?0[34]_00*",), (), ["A03_00Aa", "A04_00Aa", "H03_00Aa"]),
        ((), ("*_00Aa",), ["A03_01Aa", "A04_01Aa"]),
        (("H03", "A04_01Aa"), (), ["A04_01Aa", "H03_00Aa"]),
    ],
)
def test_cases_are_chosen_by_slide_or_name(slides, cases, exclude, names):
    found = load_dataset(f"mitos14:{slides}", cases, exclude)
    assert [case.name for case in found] == names


@pytest.mark.parametrize("option", ["cases", "exclude"])
def test_a_pattern_that_matches_nothing_names_the_slides(slides, option):
    with pytest.raises(DataError, match=f"--{option} H99 matches .* slides: A03, A04, H03$"):
        load_dataset(f"mitos14:{slides}", **{option: ["A03", "H99"]})


def test_nothing_left_is_an_error(slides):
    with pytest.raises(DataError, match="no case is left of 5"):
        load_dataset(f"mitos14:{slides}", ["A03"], ["A*"])


def test_scale_and_scanner_follow_the_slide_and_can_be_overridden(slides):
    found = {case.name: case for case in load_dataset(f"mitos14:{slides}")}
    assert (found["A03_00Aa"].mpp, found["A03_00Aa"].scanner) == (0.2455, "Aperio")
    assert (found["H03_00Aa"].mpp, found["H03_00Aa"].scanner) == (0.2273, "Hamamatsu")
    assert found["A03_00Aa"].patient == found["H03_00Aa"].patient == "03"
    insisted = load_dataset(f"mitos14:{slides}", mpp=0.5, override_mpp=True)
    assert {(case.mpp, case.override_mpp) for case in insisted} == {(0.5, True)}
    with pytest.raises(UsageError, match=r"--mpp 0\.5: the data set says .* --override-mpp"):
        load_dataset(f"mitos14:{slides}", mpp=0.5)
    with pytest.raises(ScaleError, match="--mpp"):
        load_dataset(f"mitos14:{slides}", mpp=-1)


def test_one_slide_or_a_doubled_folder_is_read_too(slides):
    assert len(load_dataset(f"mitos14:{slides / 'A03'}")) == 2
    doubled = slides.parent / "doubled"
    for slide in ("A03", "H03"):
        (doubled / slide).mkdir(parents=True)
        (slides / slide).rename(doubled / slide / slide)
    assert {case.slide for case in load_dataset(f"mitos14:{doubled}")} == {"A03", "H03"}


def test_names_of_several_data_sets_are_kept_apart(slides, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    mitos14(other, FIELD)
    (other / "A03" / "mitosis" / "A03_00Aa_not_mitosis.csv").unlink()
    points(other / "points", FIELD)
    both = load_dataset([f"mitos14:{slides}", f"points:{other / 'points'}"])
    assert [case.name for case in both][-1] == "s1_a"
    with pytest.raises(DataError, match=r"there twice, e\.g\. mitos14/A03/A03_00Aa"):
        load_dataset([f"mitos14:{slides}", f"mitos14:{other}"])


def test_slides_of_one_name_in_two_data_sets_are_two(slides, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "clicks"
    other.mkdir()
    for name in ("A03_5.png", "B01_0.png"):
        save(FIELD.pixels, other / name)
        (other / name).with_suffix(".csv").write_text("x,y\n70,21\n")
    both = [f"mitos14:{slides}", f"points:{other}"]
    found = load_dataset(both)
    assert {case.slide for case in found} == {"mitos14/A03", "A04", "H03", "clicks/A03", "B01"}
    assert [case.name for case in load_dataset(both, ["clicks/A03"])] == ["A03_5"]
    assert len(load_dataset(both, ["A03"])) == 3
    training, held_out = split(found, ["A03"])
    assert len(held_out) == 3 and not {case.name for case in training} & {"A03_5"}
    fields = [replace(case, mpp=0.25) for case in found]
    none = np.zeros(0)
    nothing = Detections(none, none, none, none, 0.25)
    scored = evaluate(fields, {case.name: nothing for case in fields}).slides
    assert (scored["mitos14/A03"].fn, scored["clicks/A03"].fn) == (2, 1)


@pytest.mark.parametrize(
    ("crop", "dataset", "number"),
    [
        ("MIDOG21/002", "midog", "002"),
        ("TUPAC16/01_stitched1", "amida13", "01"),
        ("tupac16/72", "tupac16", "72"),
        ("MIDOG++/2", "midog", "002"),
        ("TUPAC16/case_01", "", ""),
        ("ours/B_2", "", ""),
    ],
)
def test_crops_are_of_the_patient_whose_slide_they_were_cut_from(crop, dataset, number):
    none, one = np.zeros((0, 2)), np.full((1, 2), 64.0)
    crops = [
        Case(f"{n}.jpg", Path("a.jpg"), one, none, 0.25, slide, slide, "crops", centered_crop=True)
        for n, slide in enumerate((crop, crop.replace("/", "/9")))
    ]
    if not dataset:
        assert crops[0].group == f"crops/{crop}" != crops[1].group
        return
    fields = [
        Case(f"f{slide}", Path("a.png"), one, none, 0.25, slide, slide, dataset)
        for slide in (number, "70", "71", "73")
    ]
    assert fields[0].group == crops[0].group != crops[1].group
    assert replace(crops[0], slide=f"crops/{crop}").group == crops[0].group
    training, held_out = split([*fields[:1], *fields[2:], *crops], ["auto"])
    assert not {case.group for case in training} & {case.group for case in held_out}
    assert not any(case.centered_crop for case in held_out)
    if crops[0] not in training:
        assert "left out of both: 1 crop of" in describe_split(training, held_out, 1)


def test_crops_of_slides_that_validate_by_name_are_not_trained_on():
    none, one = np.zeros((0, 2)), np.full((1, 2), 64.0)
    fields = [
        Case(name, Path("a.png"), one, none, 0.25, name, name, "midog")
        for name in ("001", "002", "003")
    ]
    crops = [
        Case(name, Path("a.jpg"), one, none, 0.25, name, name, "crops", centered_crop=True)
        for name in ("MIDOG21/002", "MIDOG21/003")
    ]
    training, held_out = split([*fields, *crops], ["002"])
    assert [case.name for case in held_out] == ["002"]
    assert [case.name for case in training] == ["001", "003", "MIDOG21/003"]
    assert "left out of both: 1 crop of" in describe_split(training, held_out, 1)


def test_slides_of_amida13_are_those_of_tupac16():
    none = np.zeros((0, 2))
    apart = _slides_apart(
        [
            Case(name, Path("a.png"), none, none, 0.25, "01", dataset=name)
            for name in ("amida13", "tupac16", "clicks")
        ]
    )
    assert [one.slide for one in apart] == ["tupac16/01", "tupac16/01", "clicks/01"]
    for some in (apart, [replace(one, slide="01") for one in apart]):
        amida, tupac, clicks = (one.group for one in some)
        assert amida == tupac != clicks
    assert matches(apart[0], "01") and matches(apart[0], "tupac16/01")


def test_a_patients_other_scan_in_training_is_told(slides):
    cases = load_dataset(f"mitos14:{slides}")
    told = describe_split(*split(cases, ["H03"]))
    assert "warning: H03 is of the same patient as A03, which is trained on" in told
    assert "warning" not in describe_split(*split(cases, ["A04"]))
    assert "warning" not in describe_split(*split(cases, ["?03"]))


# AMIDA13 has TUPAC16's layout, a database may be of any set, `Info.txt` is too common a name.
TOLD = sorted(set(LAYOUTS) - {"amida13", "sliderunner", "mini_mias_published"})


@pytest.mark.parametrize("layout", TOLD)
def test_the_format_is_told_from_the_folder(tmp_path, layout):
    name, _, path = LAYOUTS[layout](tmp_path, FIELD).partition(":")
    assert guess_format(Path(path)) == name
    assert len(load_dataset(path)) == 1


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("tupac17:DIR", UsageError, "'tupac17' is no format; known: mitos14, mitos12"),
        ("mitos14:", UsageError, "names no path; write mitos14:PATH"),
        ("mitos14:DIR/none", DataError, "DIR/none does not exist"),
        ("DIR/none", DataError, "DIR/none does not exist"),
        ("DIR", DataError, "cannot be told; write FORMAT:DIR with one of"),
    ],
)
def test_specs_that_cannot_be_read(tmp_path, spec, error, message):
    spec, message = (text.replace("DIR", str(tmp_path)) for text in (spec, message))
    with pytest.raises(error) as caught:
        load_dataset(spec)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_folder_is_refused_in_one_line(tmp_path, name):
    with pytest.raises(InputError, match=str(tmp_path)) as caught:
        load_dataset(f"{name}:{tmp_path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "midog"])
def test_a_file_in_place_of_a_folder_is_refused_in_one_line(tmp_path, name):
    file = write(tmp_path / "notes.txt", "not a data set")
    with pytest.raises(DataError, match=str(file)) as caught:
        load_dataset(f"{name}:{file}")
    assert "\n" not in str(caught.value)


def test_cases_compare_by_identity():
    empty = np.zeros((0, 2))
    one, other = (Case("a", FIELD, empty, empty, None, "s") for _ in range(2))
    assert one == one and one != other and len({one, other}) == 2


def test_folders_of_one_name_are_two_data_sets(tmp_path):
    """As two conversions into a folder `points` make them."""
    for laboratory, image in (("a", "S1_0.png"), ("b", "S1_7.png")):
        folder = tmp_path / laboratory / "points"
        save(FIELD.pixels, folder / image)
        (folder / image).with_suffix(".csv").write_text("x,y\n70,21\n")
    both = load_dataset([f"points:{tmp_path / 'a/points'}", f"points:{tmp_path / 'b/points'}"])
    assert [case.dataset for case in both] == ["a/points", "b/points"]
    assert [case.slide for case in both] == ["a/points/S1", "b/points/S1"]
    assert [case.group for case in both] == ["a/points/S1", "b/points/S1"]
    assert [case.laboratory for case in both] == ["a/points", "b/points"]
    (alone,) = load_dataset(f"points:{tmp_path / 'a/points'}")
    assert (alone.dataset, alone.slide) == ("points", "S1")
    with pytest.raises(DataError, match="is a data set given twice"):
        load_dataset([f"points:{tmp_path / 'a/points'}", f"points:{tmp_path}/a/../a/points"])


def test_the_folder_one_is_in_has_its_name(tmp_path, monkeypatch):
    save(FIELD.pixels, tmp_path / "clicks" / "a_1.png")
    (tmp_path / "clicks" / "a_1.csv").write_text("x,y\n70,21\n")
    monkeypatch.chdir(tmp_path / "clicks")
    (case,) = load_dataset("points:.")
    assert (case.dataset, case.laboratory, case.group) == ("clicks", "clicks", "clicks/a")
