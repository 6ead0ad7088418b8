"""One small annotated field, written in the exact layout of every data set format."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

MITOSIS, OTHER, TISSUE = 20, 120, 220
HALF = 3


@dataclass(frozen=True)
class Field:
    """Pixels (h, w) with a dark mitosis and a gray look-alike, 7 x 7 px squares."""

    pixels: np.ndarray
    mitosis: tuple[int, int]
    other: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]


def draw(size: tuple[int, int], mitosis: tuple[int, int], other: tuple[int, int]) -> Field:
    pixels = np.full(size[::-1], TISSUE, np.uint8)
    for (x, y), value in ((mitosis, MITOSIS), (other, OTHER)):
        pixels[y - HALF : y + HALF + 1, x - HALF : x + HALF + 1] = value
    return Field(pixels, mitosis, other)


def save(pixels: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    color = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
    Image.fromarray(color).save(path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def mitos14(folder: Path, field: Field) -> str:
    slide = folder / "A03"
    save(field.pixels, slide / "frames" / "x40" / "A03_00Aa.tiff")
    (x, y), (u, v) = field.mitosis, field.other
    write(slide / "mitosis" / "A03_00Aa_mitosis.csv", f"{x},{y},0.8\n")
    write(slide / "mitosis" / "A03_00Aa_not_mitosis.csv", f"{u},{v},0.2\n")
    return f"mitos14:{folder}"


def pixel_list(x: int, y: int) -> str:
    places = [
        (column, row)
        for row in range(y - HALF, y + HALF + 1)
        for column in range(x - HALF, x + HALF + 1)
    ]
    return ",".join(f"{column},{row}" for column, row in places)


def mitos12(folder: Path, field: Field) -> str:
    save(field.pixels, folder / "H00_v2" / "H00_01.bmp")
    # The challenge's overlay, which is a picture of the same name and no field.
    save(field.pixels[::-1], folder / "H00_v2" / "H00_01.jpg")
    write(folder / "H00_v2" / "H00_01.csv", pixel_list(*field.mitosis) + "\n")
    return f"mitos12:{folder}"


def mitos12_tiles(folder: Path, field: Field) -> str:
    save(field.pixels, folder / "images" / "A00_01_2.png")
    mask = np.where(field.pixels == MITOSIS, 255, 0).astype(np.uint8)
    save(mask, folder / "masks" / "A00_01_2.png")
    return f"mitos12:{folder}"


def tupac16(folder: Path, field: Field) -> str:
    save(field.pixels, folder / "mitoses_image_data_part_1" / "01" / "02.tif")
    (x, y), (u, v) = field.mitosis, field.other
    write(folder / "mitoses_ground_truth" / "01" / "02.csv", f"{y},{x}\n")
    write(folder / "nonmitoses_ground_truth" / "01" / "02.csv", f"{v},{u}\n")
    return f"tupac16:{folder}"


def amida13(folder: Path, field: Field) -> str:
    return tupac16(folder, field).replace("tupac16", "amida13")


def sliderunner(folder: Path, field: Field, classes=("Mitose", "Hard negative")) -> str:
    """A database as SlideRunner writes it: boxes have two corners, spots one."""
    path = folder / "labels.sqlite"
    folder.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    save(field.pixels, folder / "30_stitched1.tif")
    (x, y), (u, v) = field.mitosis, field.other
    with sqlite3.connect(path) as database:
        for table in (
            "Classes (uid INTEGER, name TEXT)",
            "Slides (uid INTEGER, filename TEXT, width INTEGER, height INTEGER)",
            "Annotations (uid INTEGER, slide INTEGER, deleted INTEGER, agreedClass INTEGER)",
            "Annotations_coordinates (coordinateX INTEGER, coordinateY INTEGER, annoId INTEGER)",
        ):
            database.execute(f"CREATE TABLE {table}")
        names = list(enumerate((*classes, "Tumour cell"), 1))
        database.executemany("INSERT INTO Classes VALUES (?, ?)", names)
        database.execute("INSERT INTO Slides VALUES (1, '30_stitched1.tif', ?, ?)", field.size)
        marks = [(1, 1, 0, 1), (2, 1, 0, 2), (3, 1, 1, 1), (4, 1, 0, 3)]
        database.executemany("INSERT INTO Annotations VALUES (?, ?, ?, ?)", marks)
        corners = [(x - 25, y - 25, 1), (x + 25, y + 25, 1), (u, v, 2), (1, 1, 3), (2, 2, 4)]
        database.executemany("INSERT INTO Annotations_coordinates VALUES (?, ?, ?)", corners)
    database.close()
    return f"tupac16:{path}"


def midog_content(field: Field, **changes: object) -> dict[str, object]:
    (x, y), (u, v) = field.mitosis, field.other
    content: dict[str, object] = {
        "info": {"description": "MItosis DOmain Generalization Challenge (MIDOG) 2021"},
        "images": [
            {"id": 7, "file_name": "051.tiff", "width": field.size[0], "height": field.size[1]},
            {"id": 8, "file_name": "151.tiff", "width": 9, "height": 9},
        ],
        "categories": [{"id": 2, "name": "mitotic figure"}, {"id": 1, "name": "hard negative"}],
        "annotations": [
            {"bbox": [x - 25, y - 25.0, x + 25, y + 25], "category_id": 2, "image_id": 7},
            {"bbox": [u - 25, v - 25, u + 25, v + 25.0], "category_id": 1, "image_id": 7},
        ],
    }
    return content | changes


def midog(folder: Path, field: Field) -> str:
    save(field.pixels, folder / "images" / "051.tiff")
    write(folder / "MIDOG.json", json.dumps(midog_content(field)))
    return f"midog:{folder}"


def crops(folder: Path, field: Field) -> str:
    save(field.pixels, folder / "MIDOG21" / "002" / "6.png")
    (x, y), (u, v) = field.mitosis, field.other
    rows = f"MIDOG21/002/6.png,MIDOG21,002,{x},{y},mitosis,typical,1\n"
    rows += f"MIDOG21/002/6.png,MIDOG21,002,{u},{v},non-mitosis,,0\n"
    write(folder / "crops.csv", f"file,dataset,slide,x_px,y_px,label,subtype,is_centre\n{rows}")
    return f"crops:{folder}"


def points(folder: Path, field: Field) -> str:
    save(field.pixels, folder / "s1_a.png")
    (x, y), (u, v) = field.mitosis, field.other
    write(folder / "s1_a.csv", f"x,y,label\n{x},{y},mitosis\n{u},{v},non-mitosis\n")
    return f"points:{folder}"


def qupath(folder: Path, field: Field) -> str:
    save(field.pixels, folder / "s1_a.png")
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": list(place)},
            "properties": {"objectType": "annotation", "classification": {"name": name}},
        }
        for place, name in ((field.mitosis, "Mitotic figure"), (field.other, "Hard negative"))
    ]
    content = {"type": "FeatureCollection", "features": features}
    write(folder / "s1_a.geojson", json.dumps(content))
    return f"qupath:{folder}"


def film(field: Field) -> np.ndarray:
    """A mini-MIAS film is always 1024 x 1024; the field lies in its top left corner."""
    pixels = np.zeros((1024, 1024), np.uint8)
    pixels[: field.size[1], : field.size[0]] = field.pixels
    return pixels


def mini_mias(folder: Path, field: Field) -> str:
    save(film(field), folder / "mdb003.png")
    (x, y) = field.mitosis
    columns = "file,tissue,abnormality,severity,x_px,y_px,radius_px"
    write(folder / "lesions.csv", f"{columns}\nmdb003.png,G,CIRC,B,{x},{y},{HALF}\n")
    return f"mini-mias:{folder}"


def mini_mias_published(folder: Path, field: Field) -> str:
    save(film(field), folder / "mdb003.png")
    (x, y) = field.mitosis
    lines = [
        "INFORMATION:",
        "REFNUM BG CLASS SEVERITY X Y RADIUS",
        f"mdb003 G CIRC B {x} {1024 - y} {HALF}",
        "mdb004 D NORM ",
        "mdb209 G CALC M 647 503 87",
        "mdb216 D CALC M *NOTE 3*",
    ]
    write(folder / "Info.txt", "\n".join(lines) + "\n")
    return f"mini-mias:{folder}"


CBIS_COLUMNS = (
    "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,"
    "mass shape,mass margins,assessment,pathology,subtlety,image file path,"
    "cropped image file path,ROI mask file path"
)


def cbis_row(number: int, pathology: str, crop: str, mask: str) -> str:
    """A line of a case table, with the line break inside the quotes that the real ones have."""
    case = "Mass-Training_P_00001_LEFT_CC"
    return (
        f"P_00001,3,LEFT,CC,{number},mass,OVAL,ILL_DEFINED,4,{pathology},4,"
        f'{case}/1.1/1.2/000000.dcm,"{case}_{number}/2.1/{crop}\n","{case}_{number}/2.1/{mask}\n"\n'
    )


def cbis_ddsm(folder: Path, field: Field) -> str:
    """As TCIA gives it, converted to PNG in place; crop and mask of the second lesion swapped."""
    save(field.pixels, folder / "Mass-Training_P_00001_LEFT_CC" / "1.1" / "1.2" / "1-1.png")
    rows = ""
    for number, value in ((1, MITOSIS), (2, OTHER)):
        series = folder / f"Mass-Training_P_00001_LEFT_CC_{number}" / "2.1" / f"2.{number}"
        save(np.where(field.pixels == value, 255, 0).astype(np.uint8), series / "1-2.png")
        crop = np.arange(81, dtype=np.uint8).reshape(9, 9) * 3
        save(crop, series / "1-1.png")
        names = [f"2.{number}/000000.dcm", f"2.{number}/000001.dcm"]
        pathology = ("MALIGNANT", "BENIGN_WITHOUT_CALLBACK")[number - 1]
        rows += cbis_row(number, pathology, *(names if number == 1 else names[::-1]))
    write(folder / "mass_case_description_train_set.csv", f"{CBIS_COLUMNS}\n{rows}")
    return f"cbis-ddsm:{folder}"


LAYOUTS: dict[str, Callable[[Path, Field], str]] = {
    function.__name__: function
    for function in (
        mitos14,
        mitos12,
        mitos12_tiles,
        tupac16,
        amida13,
        sliderunner,
        midog,
        crops,
        points,
        qupath,
        mini_mias,
        mini_mias_published,
        cbis_ddsm,
    )
}
WITHOUT_OTHERS = ("mitos12", "mitos12_tiles", "mini_mias", "mini_mias_published")
