"""A progress bar on a terminal; a line now and then in a log."""

from __future__ import annotations

import sys
import time


class Bar:
    """Counts steps towards a total on standard error, with rate and time left."""

    def __init__(self, title: str, total: int, unit: str = "") -> None:
        self._title = title
        self._total = total
        self._unit = unit
        self._done = 0
        self._began = self._last = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._drawn = False

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def advance(self, steps: int = 1) -> None:
        """Count steps."""
        self.show(self._done + steps, self._total)

    def show(self, done: int, total: int) -> None:
        """Show where things are; at most five times a second, or every half minute in a log."""
        self._done, self._total = done, total
        now = time.monotonic()
        if now - self._last < (0.2 if self._terminal else 30.0):
            return
        self._last = now
        rate = done / max(now - self._began, 1e-9)
        left = (total - done) / rate if rate > 0 else 0.0
        text = f"{self._title}: {done}/{total}, {rate:.1f}/s, {_clock(left)} left"
        if self._terminal:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
            self._drawn = True
        else:
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the moving line off a terminal, so that a full line can be printed."""
        if self._drawn:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
            self._drawn = False


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
