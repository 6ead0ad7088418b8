"""Draw data to try SegMitos on: a slide, and fields of four tumors with a click on each mitosis.

    python -m examples.draw_data trial

writes `slide.tif` (2.9 mm2 with its glass, its scale inside) and `clicks/` (twelve fields with a
table each) into a new folder. Drawn cells are plain: they show how the program works, and nothing
of its accuracy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

MPP = 0.25
SLIDE_PX = (7680, 6144)
Points = npt.NDArray[np.float64]


def draw_tissue(
    size: tuple[int, int], mitoses: Points, look_alikes: Points, rng: np.random.Generator
) -> Image.Image:
    """Return pale tissue with nuclei, plates as of metaphases, and round dark look-alikes."""
    width, height = size
    shade = np.array([226, 170, 205]) + 10 * rng.normal(size=(height // 16, width // 16, 1))
    image = Image.fromarray(shade.clip(0, 255).astype(np.uint8)).resize(size)
    draw = ImageDraw.Draw(image)

    def spot(x: float, y: float, a: float, b: float, color: tuple[int, int, int]) -> None:
        draw.ellipse((x - a, y - b, x + a, y + b), fill=color)

    for x, y in rng.uniform((0, 0), size, (width * height // 1700, 2)):
        spot(x, y, *rng.uniform(10, 17, 2), (165, 120, 185))
        for u, v in rng.uniform(-6, 6, (5, 2)):
            spot(x + u, y + v, 2, 2, (115, 75, 150))
    for x, y in look_alikes:
        spot(x, y, 16, 16, (232, 140, 175))
        spot(x, y, *rng.uniform(8, 11, 2), (70, 35, 110))
    for x, y in mitoses:
        spot(x, y, 26, 26, (228, 185, 212))
        turn = rng.uniform(0, np.pi)
        for u, v in rng.normal(size=(90, 2)) * (13, 4.5):
            place = complex(u, v) * np.exp(1j * turn)
            spot(x + place.real, y + place.imag, *[rng.uniform(1.5, 3.2)] * 2, (45, 18, 80))
    return image.filter(ImageFilter.GaussianBlur(1.2))


def draw_slide(path: Path, rng: np.random.Generator, size_px: tuple[int, int] = SLIDE_PX) -> int:
    """Write a section on glass, denser in mitoses at one side; return their number."""
    width, height = size_px
    center = np.array(size_px) / 2
    spread = rng.uniform(-0.9, 0.9, (30, 2)) * center * 0.75 + center
    crowd = rng.normal((0.62, 0.45), (0.07, 0.09), (30, 2)) * size_px
    mitoses = np.concatenate([spread, crowd])
    look_alikes = rng.uniform(-0.7, 0.7, (60, 2)) * center + center
    image = draw_tissue(size_px, mitoses, look_alikes, rng)
    edge = Image.new("L", (width // 16, height // 16))
    ImageDraw.Draw(edge).ellipse((16, 16, width // 16 - 16, height // 16 - 16), fill=255)
    glass = Image.new("RGB", size_px, (243, 242, 244))
    glass.paste(image, mask=edge.resize(size_px))
    inside = np.hypot(*((mitoses - center) / (center - 256)).T) < 1
    glass.save(path, resolution_unit=3, resolution=1e4 / MPP, compression="jpeg", quality=85)
    return int(inside.sum())


def draw_clicks(folder: Path, rng: np.random.Generator, side: int = 640) -> None:
    """Write fields and their tables of clicks, of four tumors of three fields each."""
    folder.mkdir()
    for tumor in range(1, 5):
        for field in range(1, 4):
            points = _apart(rng, 12, side)
            image = draw_tissue((side, side), points[:6], points[6:], rng)
            stem = folder / f"tumor{tumor}_{field:02}"
            image.save(stem.with_suffix(".png"))
            kinds = ["mitosis"] * 6 + ["non-mitosis"] * 6
            rows = [f"{x:.0f},{y:.0f},{kind}" for (x, y), kind in zip(points, kinds, strict=True)]
            stem.with_suffix(".csv").write_text("\n".join(["x,y,label", *rows]) + "\n")


def _apart(rng: np.random.Generator, count: int, side: int) -> Points:
    """Return points that do not touch each other, on a jittered grid."""
    columns = int(np.ceil(np.sqrt(count)))
    step = side / columns
    places = rng.permutation(columns * columns)[:count]
    grid = np.stack([places % columns, places // columns], axis=1) * step + step / 2
    return grid + rng.uniform(-0.2, 0.2, grid.shape) * step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument(
        "--slide-px", type=int, nargs=2, default=SLIDE_PX, metavar=("WIDTH", "HEIGHT")
    )
    given = parser.parse_args()
    folder = given.folder
    width, height = given.slide_px
    if min(width, height) < 1024:
        parser.error(f"--slide-px {width} {height}: 1024 px or more, across and down")
    if folder.exists():
        parser.error(f"{folder} is there already; give a new folder")
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    drawn = draw_slide(folder / "slide.tif", rng, (width, height))
    draw_clicks(folder / "clicks", rng)
    print(f"{folder / 'slide.tif'}: {drawn} mitoses drawn; {folder / 'clicks'}: 12 fields")


if __name__ == "__main__":
    main()
