"""A batch of inputs in a process of its own."""

from __future__ import annotations

import json
import resource
import warnings
from pathlib import Path

from .kind import run
from .kinds import KINDS


def work(name: str, seed: int, count: int, start: int, folder: str, failures: str) -> None:
    """Run a batch in a process of its own; what came of it is left as JSON."""
    warnings.simplefilter("ignore")
    outcome = run(KINDS[name], seed, count, Path(folder), Path(failures), start)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    content = {
        "tried": outcome.tried,
        "refused": outcome.refused,
        "failures": outcome.failures,
        "peak_mb": peak_mb,
    }
    (Path(folder) / "outcome.json").write_text(json.dumps(content))
