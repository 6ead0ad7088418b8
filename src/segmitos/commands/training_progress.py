"""Progress of a training on standard error: a moving line on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

import click

from segmitos.commands.progress import print_warnings

# Seconds between lines where there is no terminal.
_LINE_EVERY_S = 30.0
# Weight of the newest loss in the running mean that is shown.
_NEWEST = 0.05


class TrainingProgress:
    """Told of training events; prints warnings, the plan, progress, epochs, what was mined.

    Args:
        said: warnings that were printed before; it grows.
    """

    def __init__(self, said: set[str] | None = None) -> None:
        self._said = set() if said is None else said
        self._terminal = sys.stderr.isatty()
        self._bar: Any = None
        self._loss: float | None = None
        self._first = self._steps = self._batch = 0
        self._began = self._last = 0.0

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

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
        elif event == "epoch":
            self._say(_epoch(content))
        elif event == "stopped":
            self._close()
            self._say(f"stopped and saved at step {content['step']} of {content['steps']}")
        elif event == "done":
            self._close()

    def _start(self, plan: dict[str, Any]) -> None:
        self._first, self._steps, self._batch = plan["step"], plan["steps"], plan["batch"]
        self._began = self._last = time.monotonic()
        left = self._steps - self._first
        if left == 0:
            self._say(f"all {self._steps} steps are done")
            return
        begins = f"resumes after step {self._first}: " if self._first else ""
        seconds = plan["seconds_per_step"]
        self._say(
            f"{begins}{left} steps, {seconds:.2f} s each as measured here: "
            f"{duration(left * seconds)}, and mining and validation beside them"
        )
        if self._terminal:
            self._bar = click.progressbar(
                length=left, file=sys.stderr, show_pos=True, item_show_func=lambda _: self._state()
            )
            self._bar.__enter__()

    def _step(self, step: int, loss: float) -> None:
        self._loss = loss if self._loss is None else (1 - _NEWEST) * self._loss + _NEWEST * loss
        if self._bar is not None:
            self._bar.update(step - self._first - self._bar.pos, step)
            return
        now = time.monotonic()
        if now - self._last > _LINE_EVERY_S:
            self._last = now
            done = step - self._first
            left = (now - self._began) / done * (self._steps - step)
            self._say(f"step {step}/{self._steps}, {self._state(done)}, {duration(left)} left")

    def _state(self, done: int | None = None) -> str:
        done = self._bar.pos if done is None else done
        rate = done * self._batch / max(time.monotonic() - self._began, 1e-9)
        return f"loss {self._loss or 0:.4f}, {rate:.{0 if rate >= 10 else 1}f} images/s"

    def _say(self, text: str) -> None:
        if self._bar is not None:
            print("\r\033[K", end="", file=sys.stderr)
        print(text, file=sys.stderr, flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.render_finish()
            self._bar = None


def _epoch(entry: dict[str, Any]) -> str:
    text = f"epoch {entry['epoch']}: loss {entry['loss']:.4f}"
    if "f_fixed" in entry:
        text += f", validation F {entry['f_fixed']:.3f}"
    if "f_best" in entry:
        text += f" ({entry['f_best']:.3f} at its best score threshold, {entry['best_score']:.2f})"
    return text


def duration(seconds: float) -> str:
    """Return a time in words: seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
