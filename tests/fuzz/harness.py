"""Changes valid files at random, reads them, and notes what should not have happened."""

from __future__ import annotations

import contextlib
import hashlib
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from segmitos.errors import SegMitosError

MAX_SECONDS = 30.0
MAX_MEMORY_MB = 1024
_NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
_TEXTS = (b"", b"-1", b"0", b"1e999", b"nan", b"null", b"[]", b"{}", b"\xff\xfe", b"\0", b'"', b",")


@dataclass(frozen=True)
class Target:
    """A kind of file and what reads it.

    Attributes:
        name: of the kind, a valid file name; its ending is that of the file.
        content: of a valid file.
        read: reads the file at a path, as the package does for a user.
    """

    name: str
    content: bytes
    read: Callable[[Path], object]


@dataclass(frozen=True)
class Finding:
    """Something that must not happen, and the input that made it."""

    target: str
    what: str
    where: str
    content: bytes

    def save(self, folder: Path) -> Path:
        """Keep the input, named after its content."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{hashlib.sha256(self.content).hexdigest()[:8]}-{self.target}"
        path.write_bytes(self.content)
        path.with_name(path.name + ".txt").write_text(f"{self.what}\n{self.where}\n")
        return path


class _Hang(BaseException):
    """An input took too long."""


def mutate(content: bytes, random_: random.Random) -> bytes:
    """Change a file in one to eight places."""
    changed = bytearray(content)
    for _ in range(random_.choice((1, 1, 1, 2, 3, 8))):
        random_.choice(_CHANGES)(changed, random_)
    return bytes(changed)


def run(
    targets: Sequence[Target],
    inputs: int,
    seed: int,
    folder: Path,
    on_input: Callable[[int], None] = lambda done: None,
) -> list[Finding]:
    """Read mutated files, the targets in turn; return what should not have happened.

    Args:
        targets: kinds of files.
        inputs: how many to make.
        seed: of the mutations; the same seed makes the same inputs.
        folder: to write them in, one after the other.
        on_input: told how many have been read.
    """
    findings = []
    for number in range(inputs):
        target = targets[number % len(targets)]
        content = mutate(target.content, random.Random(f"{seed}-{number}"))
        path = folder / target.name
        path.write_bytes(content)
        finding = _read(target, path, content)
        if finding is not None:
            findings.append(finding)
        on_input(number + 1)
    return findings


def _read(target: Target, path: Path, content: bytes) -> Finding | None:
    _reset_peak()
    began = time.monotonic()
    try:
        with _time_limit():
            target.read(path)
    except SegMitosError as error:
        text = str(error)
        if not text or "\n" in text:
            return Finding(target.name, f"message {text!r}", "", content)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return Finding(target.name, what, f"{last.filename}:{last.lineno}", content)
    peak = _peak_mb()
    if peak > MAX_MEMORY_MB:
        return Finding(target.name, f"{peak} MB", "", content)
    seconds = time.monotonic() - began
    if seconds > MAX_SECONDS:
        return Finding(target.name, f"{seconds:.0f} s", "", content)
    return None


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """Interrupt what takes too long, where the system has alarms."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Hang(f"more than {MAX_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> int:
    """Most memory since the last reset; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def _flip_bit(content: bytearray, random_: random.Random) -> None:
    if content:
        content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)


def _set_byte(content: bytearray, random_: random.Random) -> None:
    if content:
        content[random_.randrange(len(content))] = random_.randrange(256)


def _set_number(content: bytearray, random_: random.Random) -> None:
    """A number that programs do not expect, in one of the usual widths, at the head more often."""
    width = random_.choice((1, 2, 4, 8))
    if len(content) < width:
        return
    room = len(content) - width + 1
    at = random_.randrange(min(room, random_.choice((64, 512, room))))
    number = random_.choice(_NUMBERS) & ((1 << 8 * width) - 1)
    content[at : at + width] = number.to_bytes(width, random_.choice(("little", "big")))


def _set_text(content: bytearray, random_: random.Random) -> None:
    at = random_.randrange(len(content) + 1)
    content[at : at + random_.choice((0, 1, 4))] = random_.choice(_TEXTS)


def _cut(content: bytearray, random_: random.Random) -> None:
    del content[random_.randrange(len(content) + 1) :]


def _delete(content: bytearray, random_: random.Random) -> None:
    at = random_.randrange(len(content) + 1)
    del content[at : at + random_.choice((1, 2, 4, 16, 256))]


def _insert(content: bytearray, random_: random.Random) -> None:
    at = random_.randrange(len(content) + 1)
    content[at:at] = random_.randbytes(random_.choice((1, 2, 4, 16, 256)))


def _repeat(content: bytearray, random_: random.Random) -> None:
    start, at = random_.randrange(len(content) + 1), random_.randrange(len(content) + 1)
    content[at:at] = content[start : start + random_.choice((4, 12, 64, 1024))]


def _zeros(content: bytearray, random_: random.Random) -> None:
    at = random_.randrange(len(content) + 1)
    length = min(random_.choice((4, 64, 1024)), len(content) - at)
    content[at : at + length] = bytes(length)


_CHANGES = (
    _flip_bit,
    _flip_bit,
    _set_byte,
    _set_number,
    _set_number,
    _set_text,
    _cut,
    _delete,
    _insert,
    _repeat,
    _zeros,
)
