"""Whether the truth of a data set was marked with a model's detections in sight."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

NOTE = "review.json"
"""What `segmitos review export` writes beside the slides."""
WARNING = (
    "{} of {} slides were reviewed with a model's marks in sight ({}): this model's score is "
    "too high on them, above all its recall; score it on slides read blind and screened whole"
)


def assisted_slides(images: Iterable[Path]) -> list[str]:
    """Name the slides of exported reviews whose readers saw a model's marks.

    Args:
        images: of the cases; an exported slide lies in a folder of its own beside `review.json`.
    """
    found = set()
    for image in images:
        try:
            content = json.loads((image.parent.parent / NOTE).read_text(encoding="utf-8"))
            if content["slides"][image.parent.name]["assisted"]:
                found.add(image.parent.name)
        except (OSError, ValueError, LookupError, TypeError):
            # No exported review, so nothing is known of how it was read.
            continue
    return sorted(found)
