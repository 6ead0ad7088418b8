"""A reviewed slide whose scanned area begins at an offset: every format, and back from QuPath."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from segmitos.cli import main
from segmitos.io.datasets import load_dataset
from segmitos.io.slide import Slide
from segmitos.review.events import read_batch
from segmitos.review.export import _link, export_points
from segmitos.review.finish import finish
from segmitos.review.images import Images
from segmitos.review.results import Worklist
from segmitos.review.service import Service
from segmitos.review.store import Store
from tests.factories.dicom import save_dicom
from tests.factories.leica import save_scn
from tests.factories.reviews import event
from tests.factories.toy_models import write_toy, write_toy_verified

OFFSET = (640, 320)
# Where QuPath, which counts from the scanned area, has them.
MITOSES, LOOK_ALIKE, UNSURE, ADDED = [(60, 50), (200, 60)], (330, 250), (80, 270), (250, 180)


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory):
    """A signed review: two mitoses confirmed, one added, a look-alike, an unsure cell, a region."""
    folder = tmp_path_factory.mktemp("exchange")
    field = np.full((320, 400, 3), (222, 178, 200), np.uint8)
    for x, y in [*MITOSES, LOOK_ALIKE, UNSURE]:
        field[y - 9 : y + 10, x - 9 : x + 10] = (30, 20, 40)
    save_scn(folder / "slide.scn", field, OFFSET, canvas=(1400, 1000))
    model = write_toy(folder / "toy.segmitos")
    given = ["detect", str(folder / "slide.scn"), "-m", str(model), "-o", str(folder / "results")]
    assert main([*given, "--threads", "1", "--no-tissue-mask"]) == 0
    service = Service(Worklist(folder / "results"), Store.in_folder(folder / "results"))
    result = service.result("slide")
    events = []
    for place, label in [*((one, "mitosis") for one in MITOSES), (LOOK_ALIKE, "look-alike"),
                         (UNSURE, "unsure")]:  # fmt: skip
        apart = np.hypot(*(result.candidates.xy - np.array(place) - OFFSET).T)
        assert apart.min() < 3
        mark = result.candidates.ids[int(apart.argmin())]
        events.append(event("decide", mark=mark, label=label))
    x, y = ADDED[0] + OFFSET[0], ADDED[1] + OFFSET[1]
    events.append(event("add", mark="own-1", x_px=x, y_px=y, label="mitosis"))
    x0, y0, x1, y1 = OFFSET[0] + 10, OFFSET[1] + 10, OFFSET[0] + 390, OFFSET[1] + 310
    outline = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    events.append(event("region", mark="region-1", outline=outline, text="drawn"))

    def batch(*some):
        content = {"model": result.key.model_hash, "events": list(some)}
        return read_batch(json.dumps(content).encode())

    service.post("slide", "Anna", batch(*events))
    finish(service, Images(), "slide", "Anna", batch(event("finish", text="")))
    export_points(service, folder / "mine")
    service.store.close()
    return folder


def signed(reviewed):
    return reviewed / "results" / "reviews" / "slide" / "Anna" / "reviewed.geojson"


def near(found, expected):
    """Whether these are the places, within three pixels, in any order."""
    found, expected = np.reshape(found, (-1, 2)), np.reshape(expected, (-1, 2))
    if len(found) != len(expected):
        return False
    apart = np.hypot(*(found[:, None] - expected[None]).transpose(2, 0, 1))
    return bool((apart.min(axis=1) < 3).all() and (apart.min(axis=0) < 3).all())


def counted(reviewed, path, tmp_path):
    given = ["recount", str(reviewed / "results" / "slide"), "--with", str(path)]
    assert main([*given, "-o", str(tmp_path / "counted")]) == 0
    (found,) = (tmp_path / "counted").rglob("*.json")
    return json.loads(found.read_text())["reviewed"]["count"]


def test_qupath_gets_the_marks_from_the_bounds_and_gives_the_same_count_back(reviewed, tmp_path):
    content = json.loads(signed(reviewed).read_text())
    by_class = {}
    for feature in content["features"]:
        if feature["geometry"]["type"] == "Point":
            name = feature["properties"]["classification"]["name"]
            by_class.setdefault(name, []).append(feature["geometry"]["coordinates"])
    mitoses = [places for name, places in by_class.items() if near(places, [*MITOSES, ADDED])]
    assert len(mitoses) == 1, by_class
    assert counted(reviewed, signed(reviewed), tmp_path) == 3


def test_what_was_changed_in_qupath_is_counted(reviewed, tmp_path):
    content = json.loads(signed(reviewed).read_text())
    points = [one for one in content["features"] if one["geometry"]["type"] == "Point"]
    mitoses = [
        one
        for one in points
        if any(near(one["geometry"]["coordinates"], [place]) for place in [*MITOSES, ADDED])
    ]
    added = json.loads(json.dumps(mitoses[0]))
    added.pop("id", None)
    added["geometry"]["coordinates"] = [300, 100]
    more = json.loads(json.dumps(added))
    more["geometry"]["coordinates"] = [120, 160]
    content["features"] = [one for one in content["features"] if one is not mitoses[1]]
    content["features"] += [added, more]
    (tmp_path / "edited.geojson").write_text(json.dumps(content))
    assert counted(reviewed, tmp_path / "edited.geojson", tmp_path) == 4


def test_the_exported_data_set_has_level_0_positions_and_the_region(reviewed):
    (case,) = load_dataset([f"points:{reviewed / 'mine'}"])
    assert near(case.mitoses_xy, np.array([*MITOSES, ADDED]) + OFFSET)
    assert near(case.hard_negatives_xy, np.array([LOOK_ALIKE]) + OFFSET)
    assert near(case.unsure_xy, np.array([UNSURE]) + OFFSET)
    inside, outside = np.array([(15, 15), (385, 305)]), np.array([(3, 3), (395, 5)])
    assert case.is_reviewed(inside + OFFSET).all()
    assert not case.is_reviewed(outside + OFFSET).any()


def test_a_slide_of_several_files_is_exported_with_all_of_them(tmp_path):
    field = np.full((320, 400, 3), (222, 178, 200), np.uint8)
    field[191:210, 91:110] = (30, 20, 40)
    scan = tmp_path / "scan"
    scan.mkdir()
    save_dicom(scan / "a.dcm", field)
    save_dicom(scan / "b.dcm", field[::2, ::2], mpp=0.5)
    model = write_toy(tmp_path / "toy.segmitos")
    given = ["detect", str(scan), "-m", str(model), "-o", str(tmp_path / "results")]
    assert main([*given, "--threads", "1", "--no-tissue-mask"]) == 0
    service = Service(Worklist(tmp_path / "results"), Store.in_folder(tmp_path / "results"))
    (result,) = service.worklist.all().values()
    nearest = int(np.hypot(*(result.candidates.xy - (100, 200)).T).argmin())
    decided = event("decide", mark=result.candidates.ids[nearest], label="mitosis")
    content = {"model": result.key.model_hash, "events": [decided]}
    service.post(result.name, "Anna", read_batch(json.dumps(content).encode()))
    export_points(service, tmp_path / "mine")
    service.store.close()
    (case,) = load_dataset([f"points:{tmp_path / 'mine'}"])
    with case.open_image() as slide, Slide.open(scan / "a.dcm") as original:
        assert slide.level_downsamples == original.level_downsamples == (1, 2)
    assert near(case.mitoses_xy, [(100, 200)])


@pytest.mark.parametrize(
    ("kind", "name"),
    [("midog-labels", "labels.json"), ("coco", "labels.json"), ("sliderunner", "labels.sqlite")],
)
def test_a_reviewed_slide_goes_out_and_comes_back(reviewed, tmp_path, kind, name):
    slide = ["--slide", str(reviewed / "slide.scn")]
    assert main(["convert", str(signed(reviewed)), str(tmp_path / name), "--to", kind, *slide]) == 0
    # Without the slide: that it was told of QuPath's frame once is in the positions.
    assert main(["convert", str(tmp_path / name), str(tmp_path / "back.csv"), "--mpp", "0.25"]) == 0
    with (tmp_path / "back.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    places = {}
    for row in rows:
        places.setdefault(row["label"], []).append((float(row["x_px"]), float(row["y_px"])))
    assert near(places["mitosis"], np.array([*MITOSES, ADDED]) + OFFSET)
    assert near(places["non-mitosis"], np.array([LOOK_ALIKE]) + OFFSET)


def test_from_the_browser_to_a_new_model_is_two_commands(tmp_path, capsys):
    """Export, describe, adapt; squares of 32 um round each mark are all that was reviewed."""
    model = write_toy_verified(tmp_path / "toy.segmitos")
    (tmp_path / "slides").mkdir()
    mitosis = {}
    for name, seed in (("one", 0), ("two", 1)):
        rng = np.random.default_rng(seed)
        field = np.full((640, 640, 3), (222, 178, 200), np.uint8)
        for x, y in [(70 + 125 * (k % 5), 80 + 200 * (k // 5)) for k in range(15)]:
            mitosis[name, x, y] = bool(rng.random() < 0.5)
            color = (30, 20, 40) if mitosis[name, x, y] else (75, 15, 40)
            field[y - 9 : y + 10, x - 9 : x + 10] = color
        Image.fromarray(field).save(tmp_path / "slides" / f"{name}.png")
    results = str(tmp_path / "results")
    given = ["detect", str(tmp_path / "slides"), "-m", str(model), "-o", results, "--mpp", "0.25"]
    assert main([*given, "--threads", "1"]) == 0
    service = Service(Worklist(tmp_path / "results"), Store.in_folder(tmp_path / "results"))
    for name, result in service.worklist.all().items():
        events = []
        for mark, (x, y) in zip(result.candidates.ids, result.candidates.xy, strict=True):
            cell = min(mitosis, key=lambda c: (c[0] != name, np.hypot(c[1] - x, c[2] - y)))
            on_cell = np.hypot(cell[1] - x, cell[2] - y) < 5
            label = "mitosis" if on_cell and mitosis[cell] else "look-alike"
            events.append(event("decide", mark=mark, label=label))
        content = {"model": result.key.model_hash, "events": events}
        service.post(name, "Anna", read_batch(json.dumps(content).encode()))
    service.store.close()
    mine = str(tmp_path / "mine")
    assert main(["review", "export", results, "-o", mine]) == 0
    assert "its score on them would be too high" in capsys.readouterr().out
    described = ["dataset", "describe", f"points:{mine}"]
    assert main(described) == 0
    # 30 squares of 32 um.
    assert "0.03" in capsys.readouterr().out
    run = tmp_path / "run"
    given = ["train", f"points:{mine}", "--start-from", str(model), "--recipe", "adapt"]
    assert main([*given, "-o", str(run)]) == 0
    text = capsys.readouterr().out
    assert f"fitted to {sum(mitosis.values())} mitoses and " in text
    assert "2 of 2 slides were reviewed with a model's marks in sight" in text
    assert main(["model", "info", str(run / "run.segmitos")]) == 0


@pytest.mark.parametrize("has_links", [True, False])
def test_a_mirax_slide_behind_a_link_is_exported_with_its_folder(tmp_path, monkeypatch, has_links):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.mrxs").write_bytes(b"head")
    (tmp_path / "real" / "a").mkdir()
    (tmp_path / "real" / "a" / "Slidedat.ini").write_bytes(b"about")
    link = tmp_path / "b.mrxs"
    link.symlink_to(tmp_path / "real" / "a.mrxs")
    if not has_links:

        def refuse(*given, **named):
            raise OSError("no links here")

        monkeypatch.setattr("os.symlink", refuse)
    _link(link, tmp_path / "out")
    assert (tmp_path / "out" / "b.mrxs").read_bytes() == b"head"
    assert (tmp_path / "out" / "b" / "Slidedat.ini").read_bytes() == b"about"
