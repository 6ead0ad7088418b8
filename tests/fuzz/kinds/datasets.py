"""Data sets of every format, through `segmitos dataset describe`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from segmitos.cli import main
from tests.factories.dataset_layouts import LAYOUTS, draw

from ..kind import Kind

_FIELD = draw((96, 64), (48, 32), (20, 47))
_OWN_SCALE = ("points", "qupath")
_ANNOTATIONS = (".csv", ".json", ".geojson", ".txt", ".sqlite")


def _maker(layout: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        spec = LAYOUTS[layout](folder / "data", _FIELD)
        # Where it lies is another place each time; what follows the folder's name is not.
        options = " --mpp 50" if layout == "cbis_ddsm" else ""
        (folder / "spec").write_text(spec.replace(str(folder), ".") + options)
        if layout in _OWN_SCALE:
            (folder / "data" / "mpp.txt").write_text("0.25\n")
        files = [path for path in sorted((folder / "data").rglob("*")) if path.is_file()]
        return [path for path in files if path.suffix in _ANNOTATIONS] or files

    return make


def _read(folder: Path) -> object:
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    return main(["dataset", "describe", *(folder / "spec").read_text().split(), "--json"])


KINDS = [Kind(f"dataset-{name}", _maker(name), _read, 25) for name in LAYOUTS]
