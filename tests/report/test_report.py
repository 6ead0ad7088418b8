"""The report of a result: whatever was found, from saved files alone, with nothing from outside."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from segmitos.cli import main
from segmitos.counting.saved import read_saved
from segmitos.detection.tissue import TissueMask
from segmitos.errors import InputError
from segmitos.io.slide import Slide
from segmitos.report.html import render_report, write_cohort_report
from segmitos.report.pictures import CROP_PX, MAX_CROPS
from segmitos.report.result_files import (
    read_pictures,
    recounted_files,
    render_saved_report,
    shown_crops,
)
from tests.factories.results import (
    detections_at,
    draw_slide,
    make_files,
    save_result,
    scatter,
    tissue_of,
)
from tests.factories.toy_models import write_toy

MPP = 1.25


class Page(HTMLParser):
    """Text, tags and every reference of a page; fails on tags that do not match."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.references: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self.references += [values[k] for k in ("src", "href", "srcset", "action") if k in values]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(files: dict[str, bytes]) -> Page:
    return Page(files["report.html"].decode("utf-8"))


def crops_of(page: Page) -> int:
    classes = [str(values.get("class")).split() for tag, values in page.tags if tag == "div"]
    return sum("crop" in names for names in classes)


def made(folder, count, name="made", **settings):
    points = scatter(count)
    slide = draw_slide(cells=points[:200])
    return make_files(folder, slide, detections_at(points, MPP, name), tissue_of(slide), **settings)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return made(tmp_path_factory.mktemp("many"), 150)


def test_a_report_tells_count_hotspot_scores_cut_offs_and_provenance(many):
    page = page_of(many)
    summary = json.loads(many["summary.json"])
    text = page.text
    assert "150 mitotic figures in all" in text
    assert f"{summary['hotspot']['count']} in the hotspot of 2.00 mm²" in text
    assert "up to 7 / 8 to 14 / 15 and more" in text and "up to 8 / 9 to 17 / 18 and more" in text
    assert "For research use only. Not for diagnosis." in text
    assert summary["model"]["sha256"] in text and "synthetic" in text
    assert "hotspot_area_mm2=2.0" in text and "None" not in text and "nan" not in text.lower()


def shown_scores(files):
    """Scores of the crops as shown: those in the hotspot, those outside."""
    rows = {row["id"]: row for row in csv.DictReader(io.StringIO(files["candidates.csv"].decode()))}
    hotspot = json.loads(files["summary.json"])["hotspot"]
    parts = ([], [])
    for identity in json.loads(files["crops.json"])["crops"]:
        x, y = (float(rows[identity][name]) for name in ("x_px", "y_px"))
        held = (
            hotspot["x_px"] <= x <= hotspot["x_px"] + hotspot["width_px"]
            and hotspot["y_px"] <= y <= hotspot["y_px"] + hotspot["height_px"]
        )
        parts[not held].append(float(rows[identity]["score"]))
    return parts


def test_crops_are_the_hotspots_first_the_surest_and_those_nearest_the_threshold(many):
    page = page_of(many)
    assert crops_of(page) == MAX_CROPS
    assert "54 detections are not shown as crops" in page.text
    text = page.text
    inside = text.count("in the hotspot (") - text.count("not in the hotspot (")
    order = [m.group() for m in re.finditer(r"(not )?in the hotspot \(", text)]
    assert order == ["in the hotspot ("] * inside + ["not in the hotspot ("] * (96 - inside)
    assert inside == 64
    # crops.json is sorted by id; its scores are those shown.
    scores = json.loads(many["summary.json"])["hotspot"]["count"], shown_scores(many)
    count, (in_window, outside) = scores
    assert (len(in_window), len(outside)) == (64, 32) and count == 84
    rows = list(csv.DictReader(io.StringIO(many["detections.csv"].decode())))
    everything = sorted((float(row["score"]) for row in rows), reverse=True)
    assert max(in_window + outside) == everything[0]
    assert min(in_window + outside) == everything[-1]


def test_every_crop_shows_its_own_cell(tmp_path):
    points = np.array([[1000.0, 1500.0], [1500.0, 1600.0], [2000.0, 1700.0]])
    slide = draw_slide(cells=points[1:2])  # only the second has a dark cell
    files = make_files(tmp_path, slide, detections_at(points, MPP), tissue_of(slide))
    crops = json.loads(files["crops.json"])
    rows = list(csv.DictReader(io.StringIO(files["candidates.csv"].decode())))
    assert crops["um"] == 64 and crops["px"] == CROP_PX
    for row in rows:
        jpeg = base64.b64decode(crops["crops"][row["id"]])
        crop = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"))
        assert crop.shape == (CROP_PX, CROP_PX)
        middle = crop[78:98, 78:98].mean()
        assert middle < 70 if float(row["x_px"]) == 1500 else middle > 140


def test_a_crop_leads_to_its_place_on_the_map_and_back(many):
    page = page_of(many)
    anchors = {values["id"] for _, values in page.tags if "id" in values}
    links = [link for link in page.references if link.startswith("#")]
    assert len(links) == 2 * MAX_CROPS and {link[1:] for link in links} <= anchors


def test_the_map_has_both_windows_the_density_and_its_scale(many):
    html = many["report.html"].decode()
    assert 'class="window hotspot"' in html and 'class="window fields"' in html
    assert '<image class="density"' in html and "averaged over about 2 mm²" in html
    ticks = re.search(r'class="ticks">(.*?)</div>', html)[1]
    assert re.sub("<.*?>", " ", ticks).split() == ["1", "2", "4", "8", "16", "32", "64+"]


def test_scores_stand_at_the_top_and_warnings_before_them(tmp_path):
    text = page_of(made(tmp_path, 21)).text
    assert "mitotic score, WHO 2019" in text and "mitotic score, Nottingham" in text
    warning = text.index("The score would change within the interval")
    assert warning < text.index("Count")


def test_nothing_is_fetched_from_outside(many):
    page = page_of(many)
    assert page.references and all(link.startswith(("data:", "#")) for link in page.references)
    html = many["report.html"].decode("utf-8")
    bare = re.sub(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]+", "", html)
    assert "<script" not in bare
    assert "http://" not in bare and "https://" not in bare and "//" not in bare
    assert all(target.startswith('"') for target in re.findall(r"url\(([^)]*)\)", bare))
    policy = [
        values["content"]
        for tag, values in page.tags
        if tag == "meta" and values.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policy) == 1 and policy[0].startswith("default-src 'none'; img-src data:;")


def test_no_mitosis(tmp_path):
    files = made(tmp_path, 0)
    text = page_of(files).text
    assert "0 mitotic figures in all" in text and "No mitotic figure was found." in text
    assert "No hotspot: no mitoses were found." in text and "WHO 2019 , hotspot" in text
    assert json.loads(files["crops.json"])["crops"] == {} and crops_of(page_of(files)) == 0


def test_without_a_mitosis_the_nearest_candidates_are_shown_and_not_counted(tmp_path):
    slide = draw_slide()
    faint = scatter(20)
    files = make_files(
        tmp_path, slide, detections_at(np.zeros((0, 2)), MPP), tissue_of(slide), faint
    )
    page = page_of(files)
    assert crops_of(page) == 12 and "Candidates, none of them counted" in page.text
    assert "0 mitotic figures in all" in page.text
    folder = save_result(tmp_path / "out" / "made", files)
    assert render_saved_report(folder).encode() == files["report.html"]
    # With a lower threshold they are detections, and no longer called candidates.
    lower = page_of(recounted_files(folder, {"min_score": 0.5}, None))
    assert crops_of(lower) == 12 and "8 detections are not shown" in lower.text
    assert "not counted" not in lower.text


def test_one_mitosis(tmp_path):
    page = page_of(made(tmp_path, 1))
    assert "Every detection, the hotspot's first" in page.text and crops_of(page) == 1
    assert "1 in the hotspot" in page.text


@pytest.mark.slow
def test_fifty_thousand_mitoses_stay_small_and_quick(tmp_path):
    points = scatter(50_000)
    slide = draw_slide()
    detections, tissue = detections_at(points, MPP), tissue_of(slide)
    began = time.process_time()
    files = make_files(tmp_path, slide, detections, tissue)
    assert time.process_time() - began < 15
    assert len(files["report.html"]) < 5_000_000
    page = page_of(files)
    assert "50000 mitotic figures in all" in page.text
    assert "49904 detections are not shown as crops" in page.text
    # All are on the map, in one path but for those with a crop.
    html = files["report.html"].decode()
    paths = re.findall(r'<path class="line" d="([^"]*)"', html)
    assert 'class="marks small"' in html and "".join(paths).count("h0") == 50_000


def test_no_tissue(tmp_path):
    slide = Slide.from_array(np.full((2000, 2000, 3), 245, np.uint8), 1.0, "glass.svs")
    nothing = TissueMask(np.zeros((250, 250), bool), 8.0, 0.0)
    text = page_of(make_files(tmp_path, slide, detections_at(scatter(0), 1.0), nothing)).text
    assert "No tissue was found, so there is no density." in text and "– per mm²" in text
    assert "No score: nowhere does" in text and "there is no tissue in the image" in text


def test_a_field_smaller_than_the_window(tmp_path):
    points = np.array([[200.0, 300.0]])
    slide = draw_slide(side=800, mpp=0.25, cells=points)
    text = page_of(make_files(tmp_path, slide, detections_at(points, 0.25), tissue_of(slide))).text
    assert "No score: the image is 0.2 x 0.2 mm: smaller than the 1.41 x 1.41 mm window" in text
    assert crops_of(page_of(made(tmp_path, 1))) == 1


def test_names_cannot_inject_html(tmp_path):
    name = "<script>alert('x')</script> & \"quotes\""
    files = made(tmp_path, 2, name)
    page = page_of(files)
    assert name in page.text
    assert "<script>" not in files["report.html"].decode()
    assert not any(tag == "script" for tag, _ in page.tags)


@pytest.mark.parametrize(
    ("validation", "shown"),
    [
        ({"f_score": 0.5}, "F 0.500"),
        (
            {"f_score": 0.5, "precision": 0.25, "data": "made up"},
            "F 0.500, precision 0.250: made up",
        ),
        ({"f_score": "high", "data": "made up"}, "not stated"),
        ({}, "not stated"),
    ],
)
def test_a_model_that_says_little_of_its_validation_has_a_report(tmp_path, validation, shown):
    model = write_toy(tmp_path / "toy.segmitos", validation=validation)
    image = np.full((96, 96, 3), 200, np.uint8)
    Image.fromarray(image).save(tmp_path / "field.png")
    command = ["detect", str(tmp_path / "field.png"), "--mpp", "0.25", "-m", str(model)]
    assert main([*command, "-o", str(tmp_path / "out")]) == 3  # no tissue
    page = Page((tmp_path / "out" / "field" / "report.html").read_text(encoding="utf-8"))
    assert f"Validation {shown} " in page.text


def saved(folder, files):
    save_result(folder, files)


def test_report_remakes_the_same_page_from_saved_files(tmp_path, many, capsys):
    saved(tmp_path / "out" / "made", many)
    page = tmp_path / "out" / "made" / "report.html"
    page.unlink()
    assert main(["report", str(tmp_path / "out")]) == 0
    assert page.read_bytes() == many["report.html"]
    assert capsys.readouterr().out.splitlines() == [str(page), str(tmp_path / "out" / "cohort.csv")]
    assert render_saved_report(tmp_path / "out" / "made").encode() == page.read_bytes()


@pytest.mark.parametrize("lost", ["candidates.csv", "overview.jpg", "crops.json", "tissue.png"])
def test_report_names_a_lost_file(tmp_path, many, lost, capsys):
    saved(tmp_path / "made", many)
    (tmp_path / "made" / lost).unlink()
    assert main(["report", str(tmp_path / "made")]) == 1
    error = capsys.readouterr().err
    assert lost in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("summary.json", b"{"),
        ("summary.json", b"{}"),
        ("candidates.csv", b"a,b\n1,2\n"),
        ("crops.json", b"[7000]"),
        ("overview.jpg", b"no picture"),
        ("tissue.png", b""),
        ("summary.json", b"[1]"),
    ],
)
def test_report_of_a_damaged_result_is_one_line(tmp_path, many, file, content, capsys):
    saved(tmp_path / "made", many)
    (tmp_path / "made" / file).write_bytes(content)
    assert main(["report", str(tmp_path / "made")]) == 1
    error = capsys.readouterr().err
    assert "damaged" in error and error.count("\n") == 1


def test_report_of_a_folder_without_results(tmp_path):
    with pytest.raises(InputError, match="holds no result of detect"):
        render_saved_report(tmp_path)


def test_the_report_is_a_function_of_its_files(tmp_path, many):
    saved(tmp_path / "made", many)
    result = read_saved(str(tmp_path / "made"))
    picture, crops = read_pictures(tmp_path / "made")
    assert (
        render_report(result, picture, shown_crops(result, crops)).encode() == many["report.html"]
    )


def test_cohort_page_lists_sortable_rows_with_thumbnails(tmp_path, many):
    saved(tmp_path / "made", many)
    names = [
        "name",
        "status",
        "count",
        "tissue_area_mm2",
        "density_per_mm2",
        "hotspot_count",
        "hotspot_density_per_mm2",
    ]
    rows = [
        ["made", "done", "150", "9.7", "15.4", "84", "42"],
        ["<b>bad</b>", "failed", "", "", "", "", ""],
    ]
    table = [{**dict(zip(names, row, strict=True)), "warnings": ""} for row in rows]
    page = Page(write_cohort_report(tmp_path, table).read_text())
    assert "Cohort of 2" in page.text and "1 done, 1 failed, 150 mitotic figures" in page.text
    assert "<b>bad</b>" in page.text and "failures.csv" in page.text
    assert sum(tag == "button" for tag, _ in page.tags) == 9
    assert [link for link in page.references if not link.startswith("data:image/jpeg")] == [
        "made/report.html"
    ]
    assert len(page.references) == 2
    missing = "Where a hotspot or a score is missing, the report of the image says why."
    assert missing not in page.text
    table[0]["hotspot_count"] = ""
    assert missing in Page(write_cohort_report(tmp_path, table).read_text()).text


@pytest.mark.parametrize("kind", ["annotation", "detection"])
def test_qupath_gets_the_objects_asked_for_and_both_windows_as_regions(tmp_path, kind):
    files = made(tmp_path, 30, qupath=kind)
    region, fields, *marks = json.loads(files["detections.geojson"])["features"]
    assert fields["properties"]["name"] == "Ten fields"
    hotspot = json.loads(files["summary.json"])["hotspot"]
    assert region["properties"]["name"] == "Hotspot"
    assert region["properties"]["objectType"] == "annotation"
    assert region["geometry"]["coordinates"][0][0] == [hotspot["x_px"], hotspot["y_px"]]
    assert {mark["properties"]["objectType"] for mark in marks} == {kind} and len(marks) == 30


@pytest.mark.slow
def test_counting_again_takes_under_a_second(tmp_path):
    files = made(tmp_path, 2000)
    saved(tmp_path / "made", files)
    began = time.process_time()
    again = recounted_files(tmp_path / "made", {"field_diameter_mm": 0.5})
    # Of one core; tests share the machine. It takes about 0.2 s.
    assert time.process_time() - began < 1
    assert again["summary.json"] != files["summary.json"]
    assert again["crops.json"] == files["crops.json"]
