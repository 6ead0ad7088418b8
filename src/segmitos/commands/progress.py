"""How far the work is: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

TERMINAL_EVERY_S, LOG_EVERY_S = 0.2, 30.0
MOST_WARNINGS = 5
# Weight of the newest loss in the running mean that is shown.
_NEWEST = 0.05


def print_warnings(warnings: Sequence[str]) -> None:
    """Print warnings on standard error, the first ones where there are many."""
    for warning in warnings[:MOST_WARNINGS]:
        print(f"segmitos: warning: {warning}", file=sys.stderr)
    if len(warnings) > MOST_WARNINGS:
        more = len(warnings) - MOST_WARNINGS
        print(f"segmitos: {more} more warnings like these", file=sys.stderr)


class Bar:
    """Counts steps towards a total on standard error, with rate and time left."""

    def __init__(self, title: str, total: int, unit: str = "") -> None:
        self._title = title
        self._total = total
        self._unit = unit
        self._done = 0
        self._note = ""
        self._began = self._last = time.monotonic()
        self._bar: ProgressBar[Any] | None = None
        if sys.stderr is not None and sys.stderr.isatty():
            import click

            # Drawn by `show` alone: as a context manager it would have to enclose the work.
            self._bar = click.progressbar(
                length=max(1, total),
                label=title,
                show_pos=True,
                show_percent=False,
                item_show_func=lambda _: self._details(),
                update_min_steps=1,
                file=sys.stderr,
            )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def advance(self, steps: int = 1) -> None:
        """Count steps."""
        self.show(self._done + steps, self._total)

    def show(self, done: int, total: int, note: str = "") -> None:
        """Show where things are; at most five times a second, or every half minute in a log."""
        steps = done - self._done
        self._done, self._total, self._note = done, total, note
        now = time.monotonic()
        if self._bar is not None:
            self._bar.length = max(1, total)
            self._bar.make_step(steps)
        if now - self._last < (TERMINAL_EVERY_S if self._bar is not None else LOG_EVERY_S):
            return
        self._last = now
        if self._bar is not None:
            self._bar.render_progress()
        elif sys.stderr is not None:
            print(self.text(), file=sys.stderr, flush=True)

    def text(self) -> str:
        """Return where things are, as a line."""
        unit = f" {self._unit}" if self._unit else ""
        rate = self._rate()
        left = f", {clock((self._total - self._done) / rate)} left" if rate > 0 else ""
        note = f"; {self._note}" if self._note else ""
        return f"{self._title}: {self._done}/{self._total}{unit}, {_per(rate)}{left}{note}"

    def _rate(self) -> float:
        return self._done / max(time.monotonic() - self._began, 1e-9)

    def _details(self) -> str:
        return f"{_per(self._rate())}{'  ' + self._note if self._note else ''}"

    def clear(self) -> None:
        """Take the moving line off a terminal, so that a full line can be printed."""
        if self._bar is not None and sys.stderr is not None:
            print("\r\033[K\033[?25h", end="", file=sys.stderr, flush=True)


class TrainingProgress:
    """Told of training events; prints warnings, the plan, progress, epochs, what was mined.

    Args:
        said: warnings that were printed before; it grows.
    """

    def __init__(self, said: set[str] | None = None) -> None:
        self._said = set() if said is None else said
        self._bar: Bar | None = None
        self._plan: dict[str, Any] = {}
        self._loss: float | None = None
        self._began = time.monotonic()

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.clear()

    def __call__(self, event: str, content: dict[str, Any]) -> None:
        if event == "loaded":
            print_warnings([one for one in content["warnings"] if one not in self._said])
            self._said.update(content["warnings"])
        elif event == "started":
            self._start(content)
        elif event == "step":
            self._step(content["step"], content["loss"])
        elif event == "mined":
            self._say(f"step {content['step']}: {content['places']} false positives mined")
        elif event == "fitted":
            self._plan = {**self._plan, "steps": content["steps"]}
            self._say(
                f"the time budget holds {content['steps']} steps at the speed of late, not "
                f"{content['before']}"
            )
        elif event == "epoch":
            self._say(_epoch(content))
        elif event == "stopped":
            self._say(f"stopped and saved at step {content['step']} of {content['steps']}")

    def _start(self, plan: dict[str, Any]) -> None:
        self._plan, self._began = plan, time.monotonic()
        left = plan["steps"] - plan["step"]
        if left == 0:
            self._say(f"all {plan['steps']} steps are done")
            return
        begins = f"resumes after step {plan['step']}: " if plan["step"] else ""
        seconds = plan["seconds_per_step"]
        self._say(
            f"{begins}{left} steps, {seconds:.2f} s each as measured here: "
            f"{clock(left * seconds)}, and mining and validation beside them"
        )
        self._bar = Bar("steps", left)

    def _step(self, step: int, loss: float) -> None:
        self._loss = loss if self._loss is None else (1 - _NEWEST) * self._loss + _NEWEST * loss
        if self._bar is None:
            return
        done, left = (number - self._plan["step"] for number in (step, self._plan["steps"]))
        rate = done * self._plan["batch"] / max(time.monotonic() - self._began, 1e-9)
        images = f"{rate:.{0 if rate >= 10 else 1}f} images/s"
        self._bar.show(done, left, f"loss {self._loss:.4f}, {images}")

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        print(text, file=sys.stderr, flush=True)


def _epoch(entry: dict[str, Any]) -> str:
    text = f"epoch {entry['epoch']}: loss {entry['loss']:.4f}"
    if "f_fixed" in entry:
        text += f", validation F {entry['f_fixed']:.3f}"
    if "f_best" in entry:
        text += f" ({entry['f_best']:.3f} at its best score threshold, {entry['best_score']:.2f})"
    return text


def _per(rate: float) -> str:
    """Return a rate in a unit that makes it readable."""
    if rate >= 1:
        return f"{rate:.1f}/s"
    return f"{rate * 60:.1f}/min" if rate * 60 >= 1 else f"{rate * 3600:.1f}/h"


def clock(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def in_words(number: int, noun: str) -> str:
    """Return a number of things, `1 slide`, `2 mitoses`."""
    plural = noun[:-2] + "es" if noun.endswith("is") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"
