"""DICOM slides written by hand: uncompressed RGB frames, explicit little endian."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_LONG = (b"OB", b"OW", b"SQ", b"UN")
_SLIDE = b"1.2.840.10008.5.1.4.1.1.77.1.6"
_EXPLICIT = b"1.2.840.10008.1.2.1"


def element(group: int, number: int, kind: bytes, value: bytes | str | int) -> bytes:
    """One data element."""
    if isinstance(value, int):
        value = value.to_bytes(4 if kind == b"UL" else 2, "little")
    elif isinstance(value, str):
        value = value.encode()
    value += (b"\0" if kind in (b"UI", b"OB") else b" ") * (len(value) % 2)
    tag = group.to_bytes(2, "little") + number.to_bytes(2, "little") + kind
    if kind in _LONG:
        return tag + b"\0\0" + len(value).to_bytes(4, "little") + value
    return tag + len(value).to_bytes(2, "little") + value


def sequence(group: int, number: int, *elements: bytes) -> bytes:
    """A sequence of one item."""
    inner = b"".join(elements)
    item = b"\xfe\xff\x00\xe0" + len(inner).to_bytes(4, "little") + inner
    return element(group, number, b"SQ", item)


def save_dicom(
    path: Path,
    image: np.ndarray,
    series: str = "1.2.7",
    mpp: float = 0.25,
    kind: str = "VOLUME",
    preamble: bytes = b"",
    frame: int = 64,
    stated_frame: int | None = None,
) -> None:
    """Write one level of a slide, in frames of `frame` px.

    Args:
        path: of the file.
        image: RGB.
        series: UID that the files of a slide share.
        mpp: um per pixel.
        kind: VOLUME, LABEL or OVERVIEW.
        preamble: first bytes of the file, free to any use.
        frame: side of a frame.
        stated_frame: side that the header states instead.
    """
    height, width = image.shape[:2]
    rows, columns = -(-height // frame), -(-width // frame)
    room = np.full((rows * frame, columns * frame, 3), 255, np.uint8)
    room[:height, :width] = image
    frames = room.reshape(rows, frame, columns, frame, 3).swapaxes(1, 2).tobytes()
    uid = f"{series}.{path.stem.encode().hex()[:8]}".replace("a", "1")
    uid = "".join(sign if sign.isdigit() or sign == "." else "2" for sign in uid)
    meta = (
        element(2, 2, b"UI", _SLIDE)
        + element(2, 3, b"UI", uid)
        + element(2, 0x10, b"UI", _EXPLICIT)
    )
    side = stated_frame or frame
    body = [
        element(8, 8, b"CS", f"ORIGINAL\\PRIMARY\\{kind}\\NONE"),
        element(8, 0x16, b"UI", _SLIDE),
        element(8, 0x18, b"UI", uid),
        element(0x20, 0xD, b"UI", "1.2.3"),
        element(0x20, 0xE, b"UI", series),
        element(0x20, 0x9311, b"CS", "TILED_FULL"),
        element(0x28, 2, b"US", 3),
        element(0x28, 4, b"CS", "RGB"),
        element(0x28, 6, b"US", 0),
        element(0x28, 8, b"IS", str(rows * columns)),
        element(0x28, 0x10, b"US", side),
        element(0x28, 0x11, b"US", side),
        element(0x28, 0x100, b"US", 8),
        element(0x28, 0x101, b"US", 8),
        element(0x28, 0x102, b"US", 7),
        element(0x28, 0x103, b"US", 0),
        element(0x48, 6, b"UL", width),
        element(0x48, 7, b"UL", height),
        sequence(
            0x5200,
            0x9229,
            sequence(0x28, 0x9110, element(0x28, 0x30, b"DS", f"{mpp / 1000:g}\\{mpp / 1000:g}")),
        ),
        element(0x7FE0, 0x10, b"OB", frames),
    ]
    content = preamble.ljust(128, b"\0") + b"DICM"
    content += element(2, 0, b"UL", len(meta)) + meta + b"".join(body)
    path.write_bytes(content)
