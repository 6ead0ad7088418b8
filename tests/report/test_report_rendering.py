"""Reports in headless Chromium at desktop and phone width: nothing overflows, nothing is fetched.

Set SEGMITOS_SCREENSHOTS to a folder to keep the pictures.
"""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segmitos.detection.tissue import TissueMask
from segmitos.io.slide import Slide
from segmitos.report.html import render_evaluation, write_cohort_report
from segmitos.report.map import scale_bar
from tests.factories.results import detections_at, draw_slide, make_files, scatter, tissue_of

WIDTHS = (1200, 390)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
)
# Run in a copy of the page: how wide it came out, what it asked for, which pictures failed.
PROBE = """<script>
addEventListener("load", function () {
  var facts = parent.document.title ? JSON.parse(parent.document.title) : {};
  facts[innerWidth] = {
    scroll: document.documentElement.scrollWidth,
    fetched: performance.getEntriesByType("resource").map(function (e) { return e.name; })
      .filter(function (name) { return !name.startsWith("data:"); }),
    broken: Array.from(document.images).filter(function (i) { return !i.naturalWidth; }).length,
    small: Array.from(document.querySelectorAll("p, td, .figure span")).filter(function (e) {
      return parseFloat(getComputedStyle(e).fontSize) < 11; }).length,
    stacked: Array.from(document.querySelectorAll("td, th")).filter(function (e) {
      var range = document.createRange();
      range.selectNodeContents(e);
      var text = range.getBoundingClientRect();
      return text.width < 60 && text.height > 100; }).length,
    bar: (document.querySelector(".scale i") || document.body).getBoundingClientRect().width
      / (document.querySelector(".map image") || document.body).getBoundingClientRect().width,
    crop: (document.querySelector(".crop img") || document.body).getBoundingClientRect().width
  };
  parent.document.title = JSON.stringify(facts);
});
</script>"""


@pytest.fixture(scope="session")
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("no Chromium is installed")


def run(browser: str, folder: Path, page: Path, width: int, *flags: str) -> str:
    return subprocess.run(
        [
            browser,
            *FLAGS,
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},2400",
            *flags,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=90,
    ).stdout


def measured(
    browser: str, folder: Path, page: Path, widths: tuple[int, ...] = WIDTHS
) -> dict[int, dict[str, Any]]:
    """Measure a page at every width in one run of the browser."""
    # In frames, since a window of Chromium is never narrower than 500 px.
    content = page.read_text(encoding="utf-8").replace("</main>", "</main>" + PROBE)
    copy = folder / "probe.html"
    frames = [
        f'<iframe srcdoc="{html.escape(content)}" '
        f'style="border: 0; width: {width}px; height: 2400px"></iframe>'
        for width in widths
    ]
    copy.write_text("<title></title>" + "".join(frames), encoding="utf-8")
    dom = run(browser, folder, copy, max(widths), "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)
    return {int(width): facts for width, facts in json.loads(html.unescape(title[1])).items()}


def screenshot(browser: str, folder: Path, page: Path, width: int, name: str) -> Image.Image:
    folder = Path(os.environ.get("SEGMITOS_SCREENSHOTS", folder))
    target = folder / f"{name}-{width}.png"
    run(browser, folder, page, width, f"--screenshot={target}")
    with Image.open(target) as picture:
        return picture.convert("RGB")


def check(browser: str, folder: Path, page: Path, name: str) -> dict[int, dict[str, Any]]:
    """Look at a page at both widths; return what was measured."""
    seen = measured(browser, folder, page)
    assert sorted(seen) == sorted(WIDTHS)
    for width, facts in seen.items():
        assert facts["scroll"] <= width, f"{name} overflows at {width} px: {facts}"
        assert facts["fetched"] == []
        assert facts["broken"] == facts["small"] == facts["stacked"] == 0, facts
        picture = np.asarray(screenshot(browser, folder, page, width, name))
        assert picture.shape[1] == width
        # Something is drawn all the way down the first screen, and it is no blank page.
        assert (picture[:700].std(axis=(1, 2)) > 1).mean() > 0.5
    return seen


@pytest.mark.slow
def test_report_of_a_slide(browser, tmp_path):
    points = scatter(150)
    slide = draw_slide(cells=points)
    detections = detections_at(points, 1.25, "a-very-long-name_" * 6)
    files = make_files(tmp_path, slide, detections, tissue_of(slide))
    page = tmp_path / "report.html"
    page.write_bytes(files["report.html"])
    seen = check(browser, tmp_path, page, "slide")
    # The bar is as long as it says, to half a pixel.
    fraction = scale_bar(slide.width * slide.mpp)[1]
    assert all(facts["bar"] == pytest.approx(fraction, abs=0.001) for facts in seen.values())
    # Crops keep a size at which a cell can be judged, on a phone too.
    assert all(facts["crop"] >= 100 for facts in seen.values())


@pytest.fixture(scope="module")
def slide_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slide")
    points = scatter(150)
    slide = draw_slide(cells=points)
    files = make_files(folder, slide, detections_at(points, 1.25), tissue_of(slide))
    page = folder / "report.html"
    page.write_bytes(files["report.html"])
    return page


@pytest.mark.slow
def test_on_paper_nothing_is_cut_off(browser, tmp_path, slide_page):
    """The rules for print, applied to a window as wide as A4 between its margins."""
    content = slide_page.read_text(encoding="utf-8")
    assert content.count("@media print") == 1
    page = tmp_path / "print.html"
    page.write_text(content.replace("@media print", "@media all").replace("max-width: 600px", "0"))
    facts = measured(browser, tmp_path, page, (688,))[688]
    assert facts["scroll"] <= 688 and facts["broken"] == 0
    assert facts["crop"] >= 110  # 5 crops a row


@pytest.mark.slow
def test_printed_pages_hold_all_crops(browser, tmp_path, slide_page):
    paper = tmp_path / "report.pdf"
    run(browser, tmp_path, slide_page, 1200, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    pages = paper.read_bytes().count(b"/Type /Page\n") or len(
        re.findall(rb"/Type\s*/Page[^s]", paper.read_bytes())
    )
    assert 5 <= pages <= 12


@pytest.mark.slow
def test_in_the_dark_the_page_is_dark_and_the_picture_is_not(browser, tmp_path, slide_page):
    target = tmp_path / "dark.png"
    flag = "--blink-settings=preferredColorScheme=0"
    run(browser, tmp_path, slide_page, 1200, flag, f"--screenshot={target}")
    dark = np.asarray(Image.open(target).convert("L")).astype(int)
    light = np.asarray(screenshot(browser, tmp_path, slide_page, 1200, "light").convert("L"))
    assert dark[5, 5] < 40 and light[5, 5] > 230
    # Glass around the tissue stays white.
    assert (dark[1100] > 230).sum() > 100


def test_a_link_to_a_mark_shows_it(browser, tmp_path, slide_page):
    probe = """<script>addEventListener("load", function () {
      location.hash = "m7";
      setTimeout(function () {
        var mark = document.querySelector(":target .line");
        document.title = getComputedStyle(mark).strokeWidth + " " +
          Math.round(mark.getBoundingClientRect().top / innerHeight * 10);
      }, 200);
    });</script>"""
    page = tmp_path / "linked.html"
    page.write_text(slide_page.read_text(encoding="utf-8").replace("</main>", "</main>" + probe))
    dom = run(browser, tmp_path, page, 1200, "--virtual-time-budget=3000", "--dump-dom")
    width, place = re.search(r"<title>(.*?)</title>", dom)[1].split()
    assert width == "16px" and 0 <= int(place) <= 10


@pytest.mark.slow
def test_report_of_a_real_frame(browser, tmp_path, data_dir):
    path = data_dir / "mitos-atypia-14" / "H03" / "frames" / "x40" / "H03_00Ac.jpg"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    with Slide.open(path, mpp=0.2273) as slide:
        everywhere = TissueMask(np.ones((40, 40), bool), slide.width * 0.2273 / 40, 0.128)
        found = detections_at(np.array([[236.0, 837.0], [314.0, 1413.0]]), 0.2273, "H03_00Ac")
        files = make_files(tmp_path, slide, found, everywhere)
    page = tmp_path / "report.html"
    page.write_bytes(files["report.html"])
    check(browser, tmp_path, page, "frame")


@pytest.mark.slow
def test_cohort_page(browser, tmp_path):
    points = scatter(30)
    slide = draw_slide(side=800, mpp=5.0)
    rows = [
        "name,status,count,tissue_area_mm2,density_per_mm2,hotspot_count,hotspot_density_per_mm2"
    ]
    for name in ("first-slide_of-the-cohort_2024", "second"):
        files = make_files(tmp_path, slide, detections_at(points / 4, 5.0, name), tissue_of(slide))
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_bytes(content)
        rows.append(f"{name},done,30,9.75,3.1,17,8.5")
    table = list(csv.DictReader([*rows, "broken,failed,,,,,"]))
    page = write_cohort_report(tmp_path, [{**row, "warnings": ""} for row in table])
    check(browser, tmp_path, page, "cohort")


def test_the_probe_sees_what_it_is_for(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        '<title></title><main><img src="http://127.0.0.1:9/x.png">'
        '<div style="width: 900px">wide</div><p style="font-size: 8px">small</p></main>'
    )
    facts = measured(browser, tmp_path, page)[390]
    assert facts["scroll"] >= 900 and facts["broken"] == 1 and facts["small"] == 1
    assert facts["fetched"] == ["http://127.0.0.1:9/x.png"]


def test_cohort_table_sorts_by_number_at_a_click(browser, tmp_path):
    header = "name,status,count,tissue_area_mm2,density_per_mm2,hotspot_count"
    rows = ["a,done,9,1,9,1", "b,done,100,1,100,1", "c,failed,,,,", "d,done,20,1,20,1"]
    table = [header + ",hotspot_density_per_mm2,warnings", *(row + ",1," for row in rows)]
    page = write_cohort_report(tmp_path, list(csv.DictReader(table)))
    click = """<script>addEventListener("load", function () {
      document.querySelectorAll("#cohort button")[1].click();
      document.title = Array.from(document.querySelectorAll("#cohort tbody tr"))
        .map(function (row) { return row.cells[1].textContent; }).join("");
    });</script>"""
    page.write_text(page.read_text().replace("</main>", "</main>" + click))
    dom = run(browser, tmp_path, page, 1200, "--dump-dom")
    assert "<title>cadb</title>" in dom


@pytest.mark.slow
def test_evaluation_page(browser, tmp_path):
    row = {
        "tp": 12345,
        "fp": 2,
        "fn": 30,
        "precision": 0.9,
        "recall": None,
        "f_score": 0.9,
        "interval": (0.8, 0.95),
    }
    names = ["pooled", "a-slide-with-a-name-that-does-not-end_" * 2]
    evaluation = {
        "about": "8 images of 2 slides",
        "models": ["x, SHA-256 0123456789ab"],
        "warnings": ["a.png: --mpp 0.3 is not what the file says"],
        "rows": [{"name": name, **row} for name in names],
        "rules": [{"name": "one-to-one", **row}],
        "hidden": 7,
    }
    drawn = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 900, 3), np.uint8)).save(
        drawn, "PNG"
    )
    page = tmp_path / "evaluation.html"
    pictures = {"Precision and recall": drawn.getvalue()}
    page.write_text(render_evaluation(evaluation, pictures, {"Precision and recall": "A curve."}))
    check(browser, tmp_path, page, "evaluation")
