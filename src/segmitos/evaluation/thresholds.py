"""`thresholds.json`: tuned thresholds, and the counts behind them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmitos.errors import DataError
from segmitos.io.json_files import load_json
from segmitos.io.outputs import PROGRAM

if TYPE_CHECKING:
    from segmitos.evaluation.tuning import Tuning

_NAMED_SLIDES = 12


def thresholds_content(tuning: Tuning, images: int) -> dict[str, Any]:
    """Return the content of the file: thresholds, and the score of so many images."""
    slides, more = tuning.slides[:_NAMED_SLIDES], len(tuning.slides) - _NAMED_SLIDES
    about = ", ".join(slides) + (f" and {more} more" if more > 0 else "")
    how = "thresholds cross-validated over them" if tuning.cross_validated else "tuned on them"
    scored = (tuning.cross_validated or tuning.counts).to_dict()
    validation = {**scored, "data": f"{images} images of slides {about}; {how}"}
    return {**tuning.to_dict(), "program": PROGRAM, "validation": validation}


def read_thresholds(path: Path) -> dict[str, Any]:
    """Return the content of a thresholds.json; DataError where it is none."""
    content = load_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("thresholds"), dict):
        raise DataError(f"{path} holds no thresholds; 'segmitos evaluate --tune -o DIR' makes it")
    return content
