"""What needs more memory than there is to spare is refused before it is decoded."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segmitos.errors import InputError
from segmitos.io.slide import Slide, memory
from tests.factories import slides
from tests.factories.dicom import save_dicom

MB = 1 << 20


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 40 MB: a quarter is 10 MB."""
    monkeypatch.setattr(memory, "machine_memory", lambda: 40 * MB)


def test_the_memory_of_this_machine_is_known() -> None:
    assert 256 * MB < memory.machine_memory() < 1 << 46


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("a.png", "an image of 1200 x 1100 px"),
        ("a.jpg", "an image of 1200 x 1100 px"),
        ("a.bmp", "an image of 1200 x 1100 px"),
        ("strips.tif", "an image in strips of 1200 x 1100 px"),
        ("tiles.tif", "a tile of 1280 x 1280 px"),
        ("jpeg.tif", "a tile of 1280 x 1280 px"),
        ("a.svs", "a tile of 1280 x 1280 px"),
    ],
)
def test_too_large_for_the_machine(tmp_path: Path, name: str, size: str) -> None:
    image = np.full((1100, 1200, 3), 200, np.uint8)
    path = tmp_path / name
    options = {"tile": (1280, 1280)}
    saves = {
        "a.png": lambda: slides.save_png(path, image),
        "a.jpg": lambda: slides.save_jpeg(path, image),
        "a.bmp": lambda: slides.save_bmp(path, image),
        "strips.tif": lambda: slides.save_tiff(path, image, compression="deflate"),
        "tiles.tif": lambda: slides.save_tiff(path, image, compression="deflate", **options),
        "jpeg.tif": lambda: slides.save_tiff(path, image, compression="jpeg", **options),
        "a.svs": lambda: slides.save_tiff(
            path,
            image,
            compression="jpeg",
            description=slides.APERIO.format(w=1200, h=1100),
            **options,
        ),
    }
    saves[name]()
    with pytest.raises(InputError, match=f"{name}: {size} takes 0.0 GB.*more than 25%"):
        Slide.open(path)


@pytest.mark.slow
def test_a_small_image_is_read_on_a_small_machine(tmp_path: Path, small_machine: None) -> None:
    slides.save_pyramid(tmp_path / "a.tif", slides.picture(2000, 1500), tile=256)
    with Slide.open(tmp_path / "a.tif") as slide:
        assert slide.thumbnail(100).shape == (75, 100, 3)


def peak_mb(path: Path) -> tuple[str, int]:
    """The message of an attempt to read a file, and the most memory that it took."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not say how much memory was used")
    code = (
        "import sys\n"
        "from segmitos.errors import SegMitosError\n"
        "from segmitos.io.slide import Slide\n"
        "try:\n"
        "    with Slide.open(sys.argv[1], mpp=0.25) as slide:\n"
        "        slide.read(0, 0, 64, 64)\n"
        "    print('read')\n"
        "except SegMitosError as error:\n"
        "    print(error)\n"
        "status = open('/proc/self/status').read()\n"
        "print(int(status.split('VmHWM:')[1].split()[0]) // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=60
    )
    message, peak = done.stdout.splitlines()
    return message, int(peak)


def enlarge_jpeg(content: bytes, side: int) -> bytes:
    """State another size in the frame header of a JPEG."""
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + side.to_bytes(2, "big") * 2 + content[at + 4 :]


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "deflate", "lzw", "png", "jpegxl"])
def test_a_tile_that_holds_more_than_its_place_is_not_decoded(
    tmp_path: Path, compression: str
) -> None:
    """Bytes of a few kB that would become a picture of 49 megapixels."""
    side = {"jpeg": 7000, "jpeg2000": 7000, "png": 7000, "jpegxl": 2000}.get(compression, 64)
    big = np.zeros((side, side, 3), np.uint8)
    path = tmp_path / "a.tif"
    if compression in ("deflate", "lzw"):
        content = zlib.compress(bytes(200 * MB), 9) if compression == "deflate" else b""
        if compression == "lzw":
            import imagecodecs

            content = bytes(imagecodecs.lzw_encode(bytes(200 * MB)))
    else:
        import imagecodecs

        encode = {"jpeg2000": "jpeg2k", "jpeg": "jpeg8"}.get(compression, compression)
        content = bytes(getattr(imagecodecs, f"{encode}_encode")(big))
    noise = np.random.default_rng(0).integers(0, 255, (1024, 1024, 3)).astype(np.uint8)
    slides.save_tiff(path, noise, tile=(1024, 1024), compression=compression)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        count = page.databytecounts[0]
    assert len(content) < count
    slides.corrupt_tile(path, 0, content + bytes(count - len(content)))
    message, peak = peak_mb(path)
    assert "damaged tile at pixel (0, 0)" in message or compression == "lzw"
    assert peak < 170


def test_a_dicom_frame_that_takes_too_much(tmp_path: Path, small_machine: None) -> None:
    save_dicom(tmp_path / "a.dcm", slides.picture(100, 100), stated_frame=4096)
    with pytest.raises(InputError, match=r"a tile of 4096 x 4096 px takes 0\.2 GB"):
        Slide.open(tmp_path / "a.dcm")


def test_headers_of_huge_pictures(tmp_path: Path) -> None:
    picture = slides.picture(64, 64)
    slides.save_jpeg(tmp_path / "a.jpg", picture)
    content = enlarge_jpeg((tmp_path / "a.jpg").read_bytes(), 65_500)
    (tmp_path / "a.jpg").write_bytes(content)
    message, peak = peak_mb(tmp_path / "a.jpg")
    assert "65500 x 65500 px is more than the 400 Mpx" in message
    assert peak < 120


def test_running_out_of_memory_is_not_called_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*arguments: object) -> None:
        raise MemoryError

    slides.save_pyramid(tmp_path / "a.tif", slides.picture(100, 100))
    monkeypatch.setattr("segmitos.io.slide.tiff.decode", exhausted)
    with Slide.open(tmp_path / "a.tif") as slide, pytest.raises(MemoryError):
        slide.read(0, 0, 10, 10)
