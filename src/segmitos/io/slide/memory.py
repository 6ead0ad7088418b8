"""How much memory decoding may take: what needs more is refused before it is decoded."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from segmitos.errors import InputError

MAX_FRACTION = 0.25
"""Of the machine's memory, for one image or tile that is decoded in one go."""
# Where the system does not say how much memory there is.
_ASSUMED_BYTES = 8 << 30
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@cache
def machine_memory() -> int:
    """Bytes of memory of this machine, or that this process's container may use."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        total = _windows_memory()
    for name in _CGROUP_LIMITS:
        try:
            limit = Path(name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if limit.isdigit() and int(limit) > 0:
            total = min(total, int(limit))
    return total


def _windows_memory() -> int:
    try:
        import ctypes

        # MEMORYSTATUSEX: its own size and the load, four bytes each, then seven numbers of eight.
        status = (ctypes.c_ulonglong * 8)(64)
        kernel = getattr(ctypes, "windll").kernel32  # noqa: B009
        if kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
            return int(status[1])
    except (ImportError, AttributeError, OSError):
        pass
    return _ASSUMED_BYTES


def check_memory(path: Path, what: str, needed_bytes: int) -> None:
    """Refuse to decode what would take more than MAX_FRACTION of the machine's memory.

    Args:
        path: for the message.
        what: is decoded, with its size, e.g. "a tile of 60000 x 60000 px".
        needed_bytes: at the peak.

    Raises:
        InputError: with what it needs and what there is.
    """
    total = machine_memory()
    if needed_bytes > MAX_FRACTION * total:
        raise InputError(
            f"{path}: {what} takes {needed_bytes / 1e9:.1f} GB of memory to decode, more than "
            f"{MAX_FRACTION:.0%} of this machine's {total / 1e9:.1f} GB; convert the image to a "
            "tiled pyramidal TIFF (e.g. vips tiffsave --tile --pyramid --compression jpeg)"
        )
