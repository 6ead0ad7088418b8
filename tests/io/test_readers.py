"""The challenges' formats: exact counts, axis order, and each broken variant by name."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmitos.errors import DataError
from segmitos.io.datasets import load_dataset


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


SIZE = (120, 80)
# One figure well off the diagonal, so that swapped axes cannot pass.
X, Y = 90.0, 30.0


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((SIZE[1], SIZE[0], 3), 220, np.uint8)
    pixels[int(Y) - 4 : int(Y) + 5, int(X) - 4 : int(X) + 5] = 20
    Image.fromarray(pixels).save(path)
    return path


def under(case) -> float:
    """Brightness of the image where the case says a mitosis is."""
    (x, y) = case.mitoses_xy[0]
    return float(np.asarray(Image.open(case.image))[round(y), round(x)].mean())


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def make_tupac(folder: Path, text: str) -> Path:
    image(folder / "mitoses_image_data_part_1" / "01" / "02.tif")
    image(folder / "mitoses_image_data_part_1" / "30" / "01.tif")
    write(folder / "mitoses_ground_truth" / "01" / "02.csv", text)
    write(folder / "nonmitoses_ground_truth" / "01" / "02.csv", "10,15\n")
    return folder


OTHER_CLASSES = [{"id": 1, "name": "cell"}, {"id": 2, "name": "mitotic figure"}]


def make_midog(folder: Path, **changes) -> Path:
    image(folder / "001.tiff")
    content = {
        "images": [{"id": 1, "file_name": "001.tiff", "width": SIZE[0], "height": SIZE[1]}],
        "categories": [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "hard negative"}],
        "annotations": [
            {"bbox": [X - 25, Y - 25, X + 25.0, Y + 25], "category_id": 1, "image_id": 1},
            {"bbox": [0, 0, 50, 50], "category_id": 2, "image_id": 1},
        ],
    } | changes
    write(folder / "MIDOG.json", json.dumps(content))
    return folder


def make_mitos12(folder: Path, text: str | None) -> Path:
    image(folder / "A00_v2" / "A00_01.bmp")
    if text is not None:
        write(folder / "A00_v2" / "A00_01.csv", text)
    return folder


def make_database(path: Path, classes=("Mitosis", "Hard negative")) -> Path:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE Classes (uid INTEGER, name TEXT)")
        database.execute("CREATE TABLE Slides (uid INTEGER, filename TEXT)")
        database.execute(
            "CREATE TABLE Annotations (uid INTEGER, slide INTEGER, agreedClass INTEGER)"
        )
        database.execute(
            "CREATE TABLE Annotations_coordinates "
            "(coordinateX INTEGER, coordinateY INTEGER, annoId INTEGER)"
        )
        database.executemany("INSERT INTO Classes VALUES (?, ?)", list(enumerate(classes, 1)))
        database.execute("INSERT INTO Slides VALUES (1, 's.tif')")
        database.executemany("INSERT INTO Annotations VALUES (?, 1, ?)", [(1, 1), (2, 2)])
        corners = [(X - 25, Y - 25, 1), (X + 25, Y + 25, 1), (5, 6, 2)]
        database.executemany("INSERT INTO Annotations_coordinates VALUES (?, ?, ?)", corners)
    image(path.parent / "s.tif")
    return path


COCO_BOX = {"bbox": [60, 20, 50, 50], "category_id": 1, "image_id": 1}
FLAT = ",".join(f"{x},{y}" for x in range(86, 95) for y in range(26, 35))


@pytest.mark.parametrize("name", ["tupac16", "amida13", "midog", "mitos12", "database"])
def test_the_figure_is_where_every_format_says(tmp_path, name):
    if name in ("tupac16", "amida13"):
        spec = f"{name}:{make_tupac(tmp_path, f'{Y:g},{X:g}{chr(10)}')}"
    elif name == "midog":
        spec = f"midog:{make_midog(tmp_path)}"
    elif name == "mitos12":
        spec = f"mitos12:{make_mitos12(tmp_path, FLAT)}"
    else:
        spec = f"tupac16:{make_database(tmp_path / 'labels.sqlite')}"
    cases = load_dataset(spec)
    assert len(cases) == (2 if name == "tupac16" else 1)
    assert sum(len(case.mitoses_xy) for case in cases) == 1
    np.testing.assert_allclose(cases[0].mitoses_xy[0], (X, Y), atol=0.01)
    assert under(cases[0]) < 40
    if name != "mitos12":
        assert sum(len(case.hard_negatives_xy) for case in cases) == 1


def test_pixel_lists_become_masks(tmp_path):
    (case,) = load_dataset(f"mitos12:{make_mitos12(tmp_path, FLAT)}")
    mask = np.asarray(Image.open(case.mask)) > 0
    assert mask.sum() == 81 and mask[26:35, 86:95].all()
    assert case.mpp == 0.2456 and case.slide == "A00"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: f"tupac16:{make_tupac(p, '30,ninety')}", "line 1: column 'ninety'"),
        (lambda p: f"tupac16:{make_tupac(p, '90,30')}", "are x and y swapped"),
        (lambda p: f"tupac16:{make_tupac(p, '30')}", "1 columns instead of row,column"),
        (lambda p: f"tupac16:{p}", "no folder mitoses_ground_truth"),
        (lambda p: f"mitos12:{make_mitos12(p, '1,2,3')}", "no list of x,y pairs"),
        (lambda p: f"mitos12:{make_mitos12(p, '10,100')}", "outside its image"),
        (lambda p: f"mitos12:{make_mitos12(p, None)}", "A00_01.csv is missing"),
        (
            lambda p: f"midog:{make_midog(p, annotations=[dict(COCO_BOX)])}",
            "its boxes are COCO's",
        ),
        (lambda p: f"midog:{make_midog(p, categories=OTHER_CLASSES)}", "'cell'"),
        (lambda p: f"midog:{write(p / 'x.json', '{')}", "line 1: not JSON"),
        (lambda p: f"tupac16:{write(p / 'x.sqlite', 'no database at all')}", "not a SlideRunner"),
        (
            lambda p: f"tupac16:{make_database(p / 'l.sqlite', ('Tumour', 'Other'))}",
            "none of its classes is mitosis: Tumour",
        ),
        (lambda p: f"mini-mias:{write(p / 'lesions.csv', 'file,x_px').parent}", "lacks the column"),
    ],
)
def test_a_broken_variant_gives_one_clear_line(tmp_path, make, message):
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(make(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "cases", "mitoses", "others"),
    [
        ("midog:annotations/MIDOG.json", 150, 1721, 2714),
        ("midog:annotations/MIDOG++.json", 503, 11937, 14349),
        ("mitos12:annotations/MITOS2012.sqlite", 35, 226, 0),
        ("mitos12:annotations/MITOS2012_test.sqlite", 15, 101, 0),
        ("tupac16:annotations/TUPAC_alternativeLabels.sqlite", 73, 1999, 10483),
        ("mitos12:mitos12-tiles", 50, 23, 0),
        ("mini-mias:mini-mias", 89, 92, 0),
        ("mitos14:mitos-atypia-14", 290, 576, 750),
        ("crops:mitosis-crops", 3720, 3814, 0),
    ],
)
def test_real_files_give_their_published_counts(data_dir, spec, cases, mitoses, others):
    name, _, path = spec.partition(":")
    found = load_dataset(f"{name}:{data_dir / path}")
    assert len(found) == cases
    assert sum(len(case.mitoses_xy) for case in found) == mitoses
    assert sum(len(case.hard_negatives_xy) for case in found) == others
