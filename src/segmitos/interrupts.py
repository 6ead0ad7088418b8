"""Ctrl-C, a termination, a closed terminal: one line and an end, at whatever moment they come.

Imports nothing of this package, and little else, so that it is in place before all imports.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from sys import UnraisableHookArgs
    from types import FrameType

MESSAGE = "interrupted; run the same command again to go on"
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)

_IMPORTS = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")
_MAKES_LOOP = "Runner._lazy_init"
_RETRY_S, _MAX_RETRIES = 0.02, 100

_received = 0
_retries = 0


class Interrupted(KeyboardInterrupt):
    """A signal to end, as what Ctrl-C raises; `exit_code` is what a shell expects."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def end_at_once() -> None:
    """Let signals end the process with one line, while there is nothing to lose."""
    _handle(_end)


def end_in_order() -> None:
    """Let the first signal raise `Interrupted` in the main thread, the second end the process."""
    _handle(_raise)
    sys.unraisablehook = _raise_later_or(sys.unraisablehook)


def _handle(handler: object) -> None:
    for number in SIGNALS:
        # What was started in the background, or with nohup, is to go on.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)  # type: ignore[arg-type]


def _end(number: int, frame: FrameType | None) -> None:
    try:
        os.write(2, f"segmitos: {MESSAGE}\n".encode())
    finally:
        os._exit(128 + number)


def _raise(number: int, frame: FrameType | None) -> None:
    global _received
    if _received:
        _end(number, frame)
    _received = number
    signal.signal(signal.SIGALRM, _raise_when_safe)
    _raise_when_safe(number, frame)


def _raise_when_safe(number: int, frame: FrameType | None) -> None:
    """Raise where nothing is half made.

    Libraries in the middle of their imports take an interrupt for a fault, and an event loop that
    is not yet whole cannot be closed.
    """
    global _retries
    if _retries < _MAX_RETRIES and _is_half_made(frame):
        _retries += 1
        signal.setitimer(signal.ITIMER_REAL, _RETRY_S)
        return
    raise Interrupted(_received)


def _raise_later_or(hook: Callable[[UnraisableHookArgs], object]) -> Callable[..., None]:
    """Return a hook for what cannot be raised where it happens, as in a finalizer.

    Python would print an interrupt there and go on, as if none had come; it is raised again.
    """

    def raise_later(unraisable: UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, Interrupted):
            signal.setitimer(signal.ITIMER_REAL, _RETRY_S)
        else:
            hook(unraisable)

    return raise_later


def _is_half_made(frame: FrameType | None) -> bool:
    while frame is not None:
        code = frame.f_code
        if code.co_filename in _IMPORTS or code.co_qualname == _MAKES_LOOP:
            return True
        frame = frame.f_back
    return False


def finish(code: int) -> None:
    """End the process; after an interrupt nothing is waited for any more."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if _received:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)
    sys.exit(code)
