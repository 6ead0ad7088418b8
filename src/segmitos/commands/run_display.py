"""What a run of many inputs says: on the console, and in a log of one JSON line an event."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmitos._version import __version__
from segmitos.commands.progress import Bar, in_words
from segmitos.errors import OutputError, UsageError
from segmitos.io.files import display_path
from segmitos.io.text import reason_of

if TYPE_CHECKING:
    from segmitos.cohort.job import Outcome

PROGRESS_EVENT_EVERY_S = 10.0
# Every event begins with its time.
_LOG_BEGIN = b'{"time": "'


class EventLog:
    """Appends events to a file, one JSON object a line; several processes may share it."""

    def __init__(self, path: Path | None) -> None:
        self._handle: int | None = None
        if path is None:
            return
        try:
            if _holds_other_content(path):
                raise OutputError(
                    f"{path} is no log of segmitos, and stays as it is; give --log another file"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise OutputError(f"cannot write the log {path}: {reason_of(error)}") from error

    def write(self, event: str, **values: Any) -> None:
        """Append an event; a disk that is full costs the line, not the work."""
        if self._handle is None:
            return
        about = {"time": _now(), "event": event, "process": os.getpid(), **values}
        line = json.dumps(about, ensure_ascii=False) + "\n"
        try:
            os.write(self._handle, line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            self._handle = None
            print(f"segmitos: warning: the log ends here: {reason_of(error)}", file=sys.stderr)


def _holds_other_content(path: Path) -> bool:
    """Tell whether a file holds something that does not begin as a log of events does."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        head = stream.read(len(_LOG_BEGIN))
    return not _LOG_BEGIN.startswith(head)


class RunDisplay:
    """Follows a run: a line an input, warnings, progress, the total.

    Args:
        verbosity: -1 says errors alone, 0 the usual, 1 also how each result was made.
        log: file for events.
        json_out: standard output is for JSON; nothing else goes there.
    """

    def __init__(self, verbosity: int = 0, log: Path | None = None, json_out: bool = False) -> None:
        self._verbosity, self._json = verbosity, json_out
        self._log = EventLog(log)
        self._total = self._done = 0
        self._bar: Bar | None = None
        self._began = self._last_event = time.monotonic()

    def start(self, total: int) -> None:
        """Say how many inputs there are."""
        self._total = total
        self._log.write("start", version=__version__, inputs=total, arguments=sys.argv[1:])
        if total > 1 and self._verbosity >= 0:
            self._bar = Bar("inputs", total)

    def tiles(self, name: str, done: int, total: int) -> None:
        """Show progress within an input."""
        if time.monotonic() - self._last_event > PROGRESS_EVENT_EVERY_S:
            self._last_event = time.monotonic()
            self._log.write("progress", name=name, tiles_done=done, tiles=total)
        if self._verbosity < 0:
            return
        if self._total > 1 and self._bar is not None:
            self._bar.show(self._done, self._total, f"{name}: {done}/{total} tiles")
            return
        self._bar = self._bar or Bar(name, total, "tiles")
        self._bar.show(done, total)

    def note(self, text: str) -> None:
        """Say what is waited for."""
        self._log.write("note", message=text)
        if self._verbosity >= 0:
            self._print(f"segmitos: {text}", error=True)

    def outcome(self, outcome: Outcome) -> None:
        """Say what became of an input."""
        self._done += 1
        self._log.write("input", **outcome_as_dict(outcome), seconds=outcome.seconds)
        if outcome.status == "failed":
            self._print(f"segmitos: error: {outcome.message}", error=True)
        elif self._verbosity >= 0:
            for warning in outcome.warnings:
                self._print(f"segmitos: warning: {outcome.name}: {warning}", error=True)
            if not self._json:
                self._print(line_of(outcome))
            if self._verbosity > 0:
                self._print(_details(outcome), error=True)
        if self._bar is not None and self._total > 1:
            self._bar.show(self._done, self._total)

    def end(self, outcomes: Sequence[Outcome], out: Path) -> None:
        """Say the total."""
        from segmitos.cohort.names import FAILURES

        seconds = round(time.monotonic() - self._began, 3)
        counts = Counter(outcome.status for outcome in outcomes)
        self._log.write("end", statuses=dict(counts), seconds=seconds, out=display_path(out))
        if self._verbosity < 0:
            return
        if not self._json:
            self._print(total_of(outcomes, out))
        if counts["failed"] and len(outcomes) > 1:
            where = display_path(out / FAILURES)
            self._print(f"{counts['failed']} failed; causes: {where}", error=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.clear()

    def _print(self, text: str, error: bool = False) -> None:
        self.close()
        print(text, file=sys.stderr if error else sys.stdout, flush=True)


def verbosity_of(verbose: bool, quiet: bool) -> int:
    """Return -1, 0 or 1. Raises UsageError where both are asked for."""
    if verbose and quiet:
        raise UsageError("--verbose and --quiet do not go together")
    return 1 if verbose else -1 if quiet else 0


def line_of(outcome: Outcome) -> str:
    """Return what was found on an input, as a line."""
    summary = outcome.summary
    note = " (finished before)" if outcome.status == "skipped" else ""
    note += f" ({outcome.message})" if outcome.message else ""
    if outcome.result_status == "no tissue":
        return f"{outcome.name}: no tissue found, nothing counted{note}"
    density = summary["density_per_mm2"]
    spread = "" if density is None else f", {density:.1f} per mm2"
    figures = in_words(summary["count"], "mitotic figure")
    return f"{outcome.name}: {figures} on {_area(summary['tissue_area_mm2'])} mm2{spread}{note}"


def _area(area_mm2: float) -> str:
    """Return an area, of a small one the digits that say something."""
    return f"{area_mm2:.2f}" if area_mm2 >= 0.1 else f"{area_mm2:.2g}"


def total_of(outcomes: Sequence[Outcome], out: Path) -> str:
    """Return the total of a run, as a line."""
    done = [outcome for outcome in outcomes if outcome.status != "failed"]
    results = Counter(outcome.result_status for outcome in done)
    parts = [
        (sum(outcome.status == "skipped" for outcome in done), "finished before"),
        (results["warning"], "with a warning"),
        (results["no tissue"], "without tissue"),
    ]
    told = ", ".join(f"{number} {text}" for number, text in parts if number)
    note = f" ({told})" if told else ""
    figures = in_words(sum(outcome.summary["count"] for outcome in done), "mitotic figure")
    return f"{len(done)} of {len(outcomes)} done{note}, {figures}; results: {display_path(out)}"


def _details(outcome: Outcome) -> str:
    summary = outcome.summary
    return (
        f"{outcome.name}: {outcome.seconds:.1f} s; {summary['width_px']} x {summary['height_px']} "
        f"px of {summary['mpp']:g} um ({summary['mpp_source']}); model {summary['model']['name']}; "
        f"input {display_path(outcome.path)}"
    )


def outcome_as_dict(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as JSON-able values, without its summary."""
    return {
        "name": outcome.name,
        "path": display_path(outcome.path),
        "status": outcome.status,
        "result": outcome.result_status,
        "count": outcome.summary.get("count"),
        "warnings": list(outcome.warnings),
        "message": outcome.message,
    }


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
