"""What a model was made from: data, code, versions."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from segmitos._version import __version__
from segmitos.io.datasets import Case


def provenance(cases: Sequence[Case], validation_cases: Sequence[Case]) -> dict[str, Any]:
    """Return a JSON-able record of data, code and versions."""
    return {
        "training": _summary(cases),
        "validation": _summary(validation_cases),
        "commit": training_commit(),
        "versions": {
            "segmitos": __version__,
            "python": platform.python_version(),
            "torch": metadata.version("torch"),
            "numpy": metadata.version("numpy"),
        },
        "machine": platform.machine(),
    }


def _summary(cases: Sequence[Case]) -> dict[str, Any]:
    return {
        "datasets": sorted({case.dataset for case in cases}),
        "cases": len(cases),
        "slides": sorted({case.slide for case in cases}),
        "mitoses": int(sum(len(case.mitoses_xy) for case in cases)),
        "hard_negatives": int(sum(len(case.hard_negatives_xy) for case in cases)),
    }


def training_commit() -> str:
    """The commit of the code's checkout, with `+changes` if it is not clean; else the version."""
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty=+changes"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return f"version {__version__}"
    return head.stdout.strip()
