"""The review app in Chromium on slides made of real frames.

    python -m benchmarks.review keys --frames DIR          # 12,000 px, 100 detections, keys alone
    python -m benchmarks.review large --frames DIR         # 60,000 px, 100,000 marks

`keys` reviews every detection by the keyboard, signs, and compares the signed count with one made
from the recorded events alone. What it times is the app: a key, until the next mark's picture is on
the screen; nobody looks at the cell. `large` times the first view and the frames while the slide is
panned, and measures the server's memory. Load of the machine is printed beside: the times of both
are those of a machine that does nothing else only where it is near 0.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.make_slide import Grid, read_frames, write_slide
from benchmarks.timing import peak_memory_mb
from segmitos.console import run_program
from segmitos.io.slide import Slide, find_images

MPP = 0.25
NAME = "slide"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["keys", "large"])
    parser.add_argument("--frames", type=Path, nargs="+", required=True, help="files or folders")
    parser.add_argument("--width", type=int, help="of the slide; default 12,000 or 60,000")
    parser.add_argument("--marks", type=int, help="default 100 detections, or 100,000 marks")
    parser.add_argument("--out", type=Path, help="folder for the events and pictures of the run")
    given = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise SystemExit("no Chromium (apt-get install chromium)")
    with tempfile.TemporaryDirectory() as folder:
        width = given.width or (12_000 if given.what == "keys" else 60_000)
        marks = given.marks or (100 if given.what == "keys" else 100_000)
        detections = marks if given.what == "keys" else marks // 50
        results = _make(Path(folder), given.frames, width, detections, marks - detections)
        print(f"slide of {width} px with {marks} marks; load {os.getloadavg()[0]:.1f}", flush=True)
        run = by_keys if given.what == "keys" else large
        print("\n".join(run(results, program, given.out)))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")


def _make(folder: Path, frames: list[Path], width: int, detections: int, faint: int) -> Path:
    """Make a slide and a result of it, its detections on dark nuclei."""
    from segmitos.training.nuclei import find_dark_nuclei
    from tests.factories.results import detections_at, make_files, tissue_of
    from tests.factories.reviews import commit_result

    names, images = read_frames(find_images(frames)[:12], 256, None, MPP)
    grid = Grid(images, width, width, 256, 0.3, 0)
    image = folder / "slides" / f"{NAME}.tif"
    image.parent.mkdir()
    write_slide(image, grid, MPP, 80)
    nuclei = {
        name: find_dark_nuclei(pixels, MPP) for name, pixels in zip(names, images, strict=True)
    }
    cells = np.concatenate(
        [
            nuclei[place["frame"]][:200] + np.array([place["x_px"], place["y_px"]])
            for place in grid.placements(names)
        ]
    )
    cells = cells[(cells < width - 60).all(axis=1)]
    rng = np.random.default_rng(0)
    places = cells[rng.choice(len(cells), detections, replace=False)]
    others = rng.uniform(60, width - 60, (faint, 2))
    results = folder / "results"
    results.mkdir()
    with Slide.open(image) as slide:
        found = detections_at(places, MPP, NAME, 0)
        files = make_files(results, slide, found, tissue_of(slide), others)
    commit_result(results, image, NAME, files)
    return results


def by_keys(results: Path, program: str, out: Path | None) -> list[str]:
    """Review all detections by keys, sign, and count again from the events."""
    from playwright.sync_api import sync_playwright

    from tests.factories.reviews import Server

    keys = "1121210132"
    shown = "(() => { const i = document.querySelector('.large img'); return i && i.complete; })()"
    seconds: list[float] = []
    with Server(results) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(server.address())
        page.wait_for_selector(".slide")
        page.keyboard.press("Enter")
        page.wait_for_selector(".crop")
        number = page.locator(".crop").count()
        client = server.client()
        while client.get(f"/api/slides/{NAME}/summary").json()["undecided"]:
            for key in keys:
                began = time.perf_counter()
                page.keyboard.press(key)
                while not page.evaluate(shown):
                    time.sleep(0.002)
                seconds.append(time.perf_counter() - began)
            _settle(page)
        page.keyboard.press("Escape")
        _keep(page, out, "checked")
        page.get_by_role("button", name="Finish and sign").focus()
        page.keyboard.press("Enter")
        page.get_by_role("textbox", name="Your name").wait_for()
        page.get_by_role("textbox", name="Your name").focus()
        page.keyboard.type("Anna")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=Signed by Anna")
        _keep(page, out, "signed")
        browser.close()
    signed = json.loads((results / "reviews" / NAME / "Anna" / "reviewed.json").read_text())
    again = _count_again(results)
    if out is not None:
        shutil.copy(results / "reviews" / NAME / "Anna" / "reviewed.json", out)
    ordered = np.sort(seconds)
    return [
        f"{number} crops on the first page; {len(seconds)} keys",
        f"seconds a mark: median {np.median(ordered):.2f}, "
        f"95 % {ordered[int(0.95 * len(ordered))]:.2f}",
        f"signed: {_counts_of(signed)}",
        f"counted again from the events: {again}",
    ]


def _counts_of(signed: dict[str, Any]) -> dict[str, Any]:
    """Return a signed review's count over all, and in the hotspot."""
    reviewed = signed["reviewed"]
    return {"count": reviewed["count"], "hotspot": reviewed["hotspot"]["count"]}


def _count_again(results: Path) -> dict[str, int]:
    """Count from the recorded events and the candidates alone: all, and in the best square.

    The last decision on a mark counts, undone ones left out. Of the squares of 2 mm2 those are
    tried whose left and top edges pass through a mitosis each: a best one is among them.
    """
    lines = results.parent / "events.jsonl"
    command = [sys.executable, "-m", "segmitos", "review", "export", str(results)]
    subprocess.run([*command, "-o", str(lines), "--events"], check=True, stdout=subprocess.DEVNULL)
    events = [json.loads(line) for line in lines.read_text().splitlines()]
    undone = {one["mark"] for one in events if one["kind"] == "undo"}
    label = {
        one["mark"]: one["label"]
        for one in events
        if one["kind"] == "decide" and one["id"] not in undone
    }
    with (results / NAME / "candidates.csv").open() as stream:
        places = {
            row["id"]: (float(row["x_px"]), float(row["y_px"])) for row in csv.DictReader(stream)
        }
    xy = np.array([places[mark] for mark, said in label.items() if said in ("mitosis", "atypical")])
    side = np.sqrt(2e6) / MPP
    inside = [
        ((xy >= (x, y)) & (xy <= (x + side, y + side))).all(axis=1).sum()
        for x in xy[:, 0]
        for y in xy[:, 1]
    ]
    return {"count": len(xy), "hotspot": int(max(inside))}


def large(results: Path, program: str, out: Path | None) -> list[str]:
    """Time the first view and panning, and measure the server's memory."""
    from playwright.sync_api import sync_playwright

    from tests.factories.reviews import Server

    with Server(results) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(server.address())
        page.wait_for_selector(".slide")
        before = _cpu()
        began = time.perf_counter()
        page.evaluate(f"location.hash = '#/slide/{NAME}'")
        while not page.evaluate(_LOADED):
            # Not too often: what asks takes CPU as well.
            time.sleep(0.05)
        first, first_cpu = time.perf_counter() - began, _cpu() - before
        marks = page.evaluate(_ALL_MARKS)
        frames = np.sort(page.evaluate(_PAN))
        memory = peak_memory_mb(server.process.pid)
        _keep(page, out, "large")
        browser.close()
    return [
        f"first view {first:.2f} s ({first_cpu:.2f} s of CPU of browser and server)",
        f"all marks {marks / 1000:.2f} s after the slider",
        f"frames while panning: median {np.median(frames):.0f} ms, 95 % {frames[-3]:.0f} ms",
        "server: memory unknown" if memory is None else f"server: {memory:.0f} MB at most",
    ]


# The viewer has drawn tiles, and waits for none.
_LOADED = """(() => {
  const osd = document.getElementById('view').viewer?.osd;
  const item = osd?.world.getItemAt(0);
  return !!item && item.getFullyLoaded();
})()"""
_ALL_MARKS = """async () => {
  const range = document.querySelector('input[type=range]');
  const began = performance.now();
  range.value = 0; range.dispatchEvent(new Event('change'));
  const toast = document.getElementById('toast');
  while (!/\\d{4,} marks/.test(toast.textContent)) {
    await new Promise((done) => setTimeout(done, 10));
  }
  return performance.now() - began;
}"""
_PAN = """async () => {
  const viewer = document.getElementById('view').viewer;
  viewer.osd.viewport.goHome(true);
  const times = [];
  for (let k = 0; k < 60; k++) {
    const began = performance.now();
    viewer.osd.viewport.panBy({ x: 0.004 * (k % 2 ? 1 : -1), y: 0.003 }, true);
    await new Promise(requestAnimationFrame);
    times.push(performance.now() - began);
  }
  return times;
}"""


def _settle(page: Any) -> None:
    """Wait until the page has nothing left to send."""
    page.wait_for_timeout(150)
    while not page.evaluate(
        "Object.keys(localStorage).every((key) => !key.startsWith('segmitos-pending'))"
    ):
        time.sleep(0.05)


def _keep(page: Any, out: Path | None, name: str) -> None:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(out / f"{name}.png"))


def _cpu() -> float:
    """Return seconds of CPU that the processes of this one's tree have used."""
    own, total = os.getpid(), 0.0
    parents: dict[int, tuple[int, float]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        parents[int(entry.parent.name)] = (int(fields[1]), used)
    for process, (_, used) in parents.items():
        above = process
        while above in parents and above not in (own, 1):
            above = parents[above][0]
        total += used if above == own else 0.0
    return total


if __name__ == "__main__":
    run_program(main, "benchmarks.review")
