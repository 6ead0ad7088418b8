"""Every format's broken variants: one clear line with file, line, value and what to do."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from segmitos.errors import DataError, ScaleError
from segmitos.io.datasets import load_dataset
from segmitos.report.dataset_report import find_problems
from tests.factories.dataset_layouts import (
    CBIS_COLUMNS,
    LAYOUTS,
    Field,
    cbis_row,
    draw,
    midog_content,
    save,
    write,
)

FIELD = draw((96, 64), (70, 21), (30, 47))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


MITOS14 = "A03/mitosis/A03_00Aa_mitosis.csv"
NOT_MITOS14 = "A03/mitosis/A03_00Aa_not_mitosis.csv"
TUPAC = "mitoses_ground_truth/01/02.csv"
CROPS = "file,dataset,slide,x_px,y_px,label,subtype,is_centre\n"
MIAS = "file,tissue,abnormality,severity,x_px,y_px,radius_px\n"

CONTENTS = [
    ("mitos14", MITOS14, "70,ab,1.0\n", "{file}, line 1: y 'ab' is not a number"),
    ("mitos14", MITOS14, "1,2,1.0\n70,nan,1.0\n", "{file}, line 2: y 'nan' is not a number"),
    ("mitos14", MITOS14, "70,21\n", "{file}, line 1: 2 columns instead of x,y,confidence"),
    (
        "mitos14",
        MITOS14,
        "21,70,1.0\n",
        "{file}, line 1: point (21, 70) lies outside its image of 96 x 64 px; are x and y swapped?",
    ),
    (
        "mitos14",
        MITOS14,
        "5,6,1.0\n\n500,21,1.0\n",
        "{file}, line 3: point (500, 21) lies outside its image of 96 x 64 px",
    ),
    ("mitos14", MITOS14, "70,21,65\n", "{file}: confidence 65 is not between 0 and 1"),
    ("mitos14", NOT_MITOS14, "30,47,-1\n", "{file}: confidence -1 is not between 0 and 1"),
    ("mitos14", MITOS14, "70,5,21,5,0,8\n", "{file}, line 1: 6 numbers for x,y,confidence; are"),
    ("mitos14", NOT_MITOS14, "300,30,0.2\n", "{file}, line 1: point (300, 30) lies outside"),
    ("mitos14", MITOS14, None, "A03_00Aa.tiff has no annotations: {file} is missing"),
    ("mitos12", "H00_v2/H00_01.csv", None, "H00_01.bmp has no annotations: H00_01.csv is missing"),
    ("mitos12", "H00_v2/H00_01.csv", "1,2,3\n", "{file}, line 1: 3 numbers are no list of x,y"),
    ("mitos12", "H00_v2/H00_01.csv", "1,,2,3\n", "{file}, line 1: pixel '' is not a number"),
    ("mitos12", "H00_v2/H00_01.csv", "1,2\n21,70\n", "{file}, line 2: point (21, 70) lies outside"),
    ("mitos12_tiles", "masks/A00_01_2.png", None, "A00_01_2.png has no mask in"),
    ("mitos12_tiles", "masks/A00_01_2.png", "no picture", "cannot read mask {file}"),
    ("tupac16", TUPAC, "21,x\n", "{file}, line 1: column 'x' is not a number"),
    ("tupac16", TUPAC, "row,column\n21,70\n", "{file}, line 1: row 'row' is not a number"),
    ("tupac16", TUPAC, "21,5,70,5\n", "{file}, line 1: 4 numbers for row,column; are they decimal"),
    ("tupac16", TUPAC, "70,21\n", "are x and y swapped?"),
    ("amida13", "nonmitoses_ground_truth/01/02.csv", "999,1\n", "{file}, line 1: point (1, 999)"),
    (
        "midog",
        "MIDOG.json",
        "[1, 2]",
        "{file} is not COCO: expected arrays",
    ),
    ("midog", "MIDOG.json", "{", "{file}, line 1: not JSON"),
    ("midog", "MIDOG.json", '{"images": []}', "{file} is not COCO: expected arrays images"),
    ("midog", "MIDOG.json", None, "holds 0 JSON files; name the one to read"),
    ("crops", "crops.csv", None, "{file} is missing"),
    ("crops", "crops.csv", "", "{file} lacks the column 'file'; it has no header"),
    ("crops", "crops.csv", "file,slide,x\n", "{file} lacks the column 'dataset'; it has file, "),
    ("crops", "crops.csv", CROPS + "a,b,c,1,2,mitosis\n", "{file}, line 2: 6 values for 8 columns"),
    ("crops", "crops.csv", CROPS + "a,b,c,1,?,mitosis,,1\n", "{file}, line 2: y_px '?'"),
    ("crops", "crops.csv", CROPS + "a,b,c,1,2,cell,,1\n", "{file}, line 2: label is 'cell', not"),
    (
        "crops",
        "crops.csv",
        CROPS + "a,b,c,1,2,mitosis,,1\na,b,d,1,2,mitosis,,0\n",
        "{file}, line 3: a is of b/c and of b/d",
    ),
    ("points", "s1_a.csv", None, "s1_a.csv or s1_a.geojson is missing (an empty table means none)"),
    ("points", "s1_a.csv", "70,21\n", "{file}: the first line must name the columns x_px,y_px"),
    ("points", "s1_a.csv", "x,y\n70,a\n", "{file}, line 2: y 'a' is not a number"),
    ("points", "s1_a.csv", "x;y\n1;2\n21;70\n", "{file}, line 3: point (21, 70) lies outside"),
    ("points", "mpp.txt", "a quarter", "mpp.txt: 'a quarter' is not a scale in um/px"),
    ("mini_mias", "lesions.csv", "file,x_px\n", "{file} lacks the column 'tissue'"),
    ("mini_mias", "lesions.csv", MIAS + "a.png,G,CIRC,B,1,2,0\n", "{file}, line 2: radius_px 0 "),
    ("mini_mias", "lesions.csv", MIAS + "a.png,G,CIRC,B,1,1025,9\n", "(1, 1025) lies outside its"),
    ("mini_mias_published", "Info.txt", "mdb001 G CIRC B 1 2000 9\n", "(1, -976) lies outside its"),
    ("cbis_ddsm", "mass_case_description_train_set.csv", "patient_id\n", "lacks the column 'path"),
    ("cbis_ddsm", "mass_case_description_train_set.csv", None, "no mass_case_description CSV"),
    (
        "cbis_ddsm",
        "mass_case_description_train_set.csv",
        f"{CBIS_COLUMNS}\n{cbis_row(1, 'UNPROVEN', 'a/b.dcm', 'a/c.dcm')}",
        "pathology is 'UNPROVEN', not one of MALIGNANT, BENIGN",
    ),
]


@pytest.mark.parametrize(("layout", "file", "content", "message"), CONTENTS)
def test_a_broken_file_gives_one_clear_line(tmp_path, layout, file, content, message):
    spec = LAYOUTS[layout](tmp_path, FIELD)
    if content is None:
        (tmp_path / file).unlink()
    else:
        write(tmp_path / file, content)
    with pytest.raises(ScaleError if file == "mpp.txt" else DataError) as caught:
        load_dataset(spec)
    assert message.format(file=tmp_path / file) in str(caught.value)
    assert "\n" not in str(caught.value)


BOX = {"bbox": [1, 2, 3, 4], "category_id": 2, "image_id": 7}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"annotations": [BOX | {"bbox": [60, 20, 50, 50]}]},
            "its boxes are COCO's [x, y,",
        ),
        (
            {"annotations": [BOX | {"bbox": [1, 2, float("nan"), 4]}]},
            "[1.0, 2.0, nan, 4.0]",
        ),
        ({"annotations": [BOX | {"bbox": [1, 2, 3]}]}, "annotations[0].bbox: Expected `array` of"),
        ({"annotations": [BOX, BOX | {"bbox": "none"}]}, "at annotations[1].bbox: Expected"),
        (
            {"annotations": [BOX | {"image_id": 99}]},
            "names image 99, which is unknown",
        ),
        (
            {"annotations": [BOX | {"image_id": []}]},
            "[0].image_id: Expected `int | str`",
        ),
        (
            {"annotations": [BOX | {"category_id": 3}]},
            "names category 3, which is unknown",
        ),
        ({"annotations": 3}, "at annotations: Expected `array`, got `int`, found 3"),
        ({"annotations": [5]}, "at annotations[0]: Expected `object`, got `int`, found 5"),
        ({"images": [{"id": 7, "width": "a"}]}, "images[0].width: Expected `float | null`"),
        ({"images": [{"id": 7}]}, "image 7: '' is not the name of a file"),
        (
            {"categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "mf"}]},
            "class 'cell' is neither",
        ),
    ],
)
def test_a_midog_json_that_is_off_is_refused(tmp_path, changes, message):
    write(tmp_path / "m.json", json.dumps(midog_content(FIELD, **changes)))
    with pytest.raises(DataError) as caught:
        load_dataset(f"midog:{tmp_path}")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_polygons_are_refused_where_points_are_expected(tmp_path):
    spec = LAYOUTS["points"](tmp_path, FIELD)
    (tmp_path / "s1_a.csv").unlink()
    ring = [[10, 10], [20, 10], [20, 20], [10, 10]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": "Mitotic figure"}},
    }
    content = {"type": "FeatureCollection", "features": [feature]}
    write(tmp_path / "s1_a.geojson", json.dumps(content))
    with pytest.raises(DataError, match=r"s1_a\.geojson.*[Pp]olygon") as caught:
        load_dataset(spec)
    assert "\n" not in str(caught.value)


def test_an_image_that_is_none_is_named(tmp_path):
    spec = LAYOUTS["mitos14"](tmp_path, FIELD)
    write(tmp_path / "A03/frames/x40/A03_00Aa.tiff", "not a picture")
    (problem,) = find_problems(load_dataset(spec))
    assert "A03_00Aa.tiff: not an image of a known format" in problem


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"mitos12_tiles", "cbis_ddsm"}))
def test_a_truncated_image_loads_and_is_found_by_describe(tmp_path, layout):
    field = draw((480, 320), (70, 21), (30, 47))
    grain = np.random.default_rng(0).integers(-9, 9, field.pixels.shape)
    pixels = (field.pixels + grain).clip(0, 255).astype(np.uint8)
    spec = LAYOUTS[layout](tmp_path, Field(pixels, field.mitosis, field.other))
    (case,) = load_dataset(spec)
    content = case.image.read_bytes()
    case.image.write_bytes(content[: len(content) * 2 // 3])
    (case,) = load_dataset(spec, mpp=0.25, override_mpp=True)
    problems = [problem for problem in find_problems([case]) if str(case.image) in problem]
    assert len(problems) == 1 and "\n" not in problems[0]


def test_two_images_of_one_name_are_not_guessed_between(tmp_path):
    spec = LAYOUTS["tupac16"](tmp_path, FIELD)
    save(FIELD.pixels, tmp_path / "mitoses_image_data_part_2" / "01" / "02.tif")
    with pytest.raises(DataError, match="are both image 02 of 01"):
        load_dataset(spec)


def test_tables_of_another_data_set_are_refused(tmp_path):
    spec = LAYOUTS["tupac16"](tmp_path, FIELD)
    (tmp_path / "mitoses_ground_truth" / "01").rename(tmp_path / "mitoses_ground_truth" / "05")
    with pytest.raises(DataError, match=r"none of the tables in .* belongs to an image"):
        load_dataset(spec)


def test_a_mask_of_another_size_is_refused(tmp_path):
    spec = LAYOUTS["mitos12_tiles"](tmp_path, FIELD)
    save(FIELD.pixels[:32], tmp_path / "masks" / "A00_01_2.png")
    with pytest.raises(DataError, match="has 96 x 32 px, its image 96 x 64"):
        load_dataset(spec)


def test_a_lesion_without_its_mask_is_refused(tmp_path):
    spec = LAYOUTS["cbis_ddsm"](tmp_path, FIELD)
    series = tmp_path / "Mass-Training_P_00001_LEFT_CC_2" / "2.1" / "2.2"
    (series / "1-2.png").unlink()
    with pytest.raises(DataError, match="line 5: none of its images is a mask of two values"):
        load_dataset(spec)
    shutil.rmtree(series.parents[1])
    with pytest.raises(DataError, match=r"line 5: the ROI mask Mass-Training.* is missing"):
        load_dataset(spec)


def test_mammograms_in_dicom_are_refused_with_the_remedy(tmp_path):
    spec = LAYOUTS["cbis_ddsm"](tmp_path, FIELD)
    for image in tmp_path.rglob("*.png"):
        image.rename(image.with_suffix(".dcm"))
    with pytest.raises(DataError, match="is DICOM, which is not read; convert the images to PNG"):
        load_dataset(spec)
