"""Who may use the server: readers with tokens, and what a request must show.

A random token in the address becomes a cookie that browsers send to this site alone. `Host` must be
one of the server's own names (a foreign one is DNS rebinding), and what changes anything must come
from a page of this server (`Origin`).
"""

from __future__ import annotations

import csv
import hmac
import io
import ipaddress
import os
import re
import secrets
import socket
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from segmitos.errors import InputError, OutputError, UsageError
from segmitos.io.tables import table_text
from segmitos.io.text import read_text, reason_of
from segmitos.report.signed import CONSENSUS

MODEL = "model"
"""The model, as one more reader in comparisons."""
_NAME = re.compile(r"^[^\W_][\w .'-]{0,59}\Z")
_MIN_TOKEN = 22
MAX_BODY_BYTES = 1_000_000


@dataclass(frozen=True)
class Reader:
    """Someone who reads slides.

    Attributes:
        name: as it stands in results.
        token: secret that the address of this reader holds.
        adjudicates: whether this reader may decide where others differ.
    """

    name: str
    token: str
    adjudicates: bool = False


def check_name(name: str) -> str:
    """Return a reader's name, checked.

    Raises:
        UsageError: for one that is empty, too long, could not name a folder, or stands for another.
    """
    is_taken = name.casefold() in (CONSENSUS, MODEL)
    if not _NAME.match(name) or name.rstrip(". ") != name or is_taken:
        raise UsageError(
            f"reader {name!r}: give 1 to 60 letters, digits, spaces, - ' or . that begin with a "
            f"letter or digit; {CONSENSUS!r} is the adjudicated reading, {MODEL!r} the model's"
        )
    return name


def new_reader(name: str, adjudicates: bool = False) -> Reader:
    """Return a reader with a new random token."""
    return Reader(check_name(name), secrets.token_urlsafe(24), adjudicates)


def read_readers(path: Path) -> list[Reader]:
    """Read a table `name,token,role`; role is `reader` or `adjudicator`.

    Raises:
        InputError: for a file that cannot be read, with the line that is wrong.
    """
    readers: list[Reader] = []
    for number, row in enumerate(csv.DictReader(io.StringIO(read_text(path))), start=2):
        where = f"{path}, line {number}"
        name, token = (row.get("name") or "").strip(), (row.get("token") or "").strip()
        role = (row.get("role") or "reader").strip()
        if len(token) < _MIN_TOKEN:
            raise InputError(f"{where}: a token must have {_MIN_TOKEN} characters or more")
        if role not in ("reader", "adjudicator"):
            raise InputError(f"{where}: role {role!r} is neither reader nor adjudicator")
        try:
            readers.append(Reader(check_name(name), token, role == "adjudicator"))
        except UsageError as error:
            raise InputError(f"{where}: {error}") from error
    if not readers:
        raise InputError(f"{path} names no reader; its first line must be name,token,role")
    for what in ("name", "token"):
        values = [getattr(reader, what).casefold() for reader in readers]
        if len(set(values)) < len(values):
            raise InputError(f"{path}: two readers have one {what}")
    return readers


def write_readers(path: Path, readers: Sequence[Reader]) -> None:
    """Write the table of readers, for the owner's eyes alone.

    Raises:
        OutputError: where it is there already or cannot be written.
    """
    roles = {False: "reader", True: "adjudicator"}
    rows = [(reader.name, reader.token, roles[reader.adjudicates]) for reader in readers]
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(table_text(("name", "token", "role"), rows))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason_of(error)}") from error


def usual_port(results: Path) -> int:
    """Return the port that a folder of results is served at where none is asked for.

    Always the same one: a page that is still open when the server is started again finds it there.
    """
    return 20_000 + zlib.crc32(str(results.resolve()).encode()) % 12_000


def is_loopback(host: str) -> bool:
    """Tell whether a host can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_hosts(host: str, port: int, address: str | None = None) -> frozenset[str]:
    """Return what the `Host` header of a request may say.

    Args:
        host: that the server listens on.
        port: likewise.
        address: under which a reverse proxy shows the server, https://HOST.

    Raises:
        UsageError: for an address that is none.
    """
    names = {"127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host}
    if not is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        names |= _addresses() if host in ("0.0.0.0", "::") else set()
    found = {f"{name}:{port}" for name in names}
    if port in (80, 443):
        found |= names
    if address is not None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise UsageError(f"--address {address!r} is not an address like https://review.example")
        found.add(parts.netloc.lower())
    return frozenset(found)


def _addresses() -> set[str]:
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return set()
    return {f"[{one}]" if ":" in one else one for one in found}


@dataclass
class Access:
    """Checks of a request.

    Attributes:
        readers: who may use the server.
        hosts: what `Host` may say.
        cookie: name of the cookie; it holds the port, since cookies do not tell ports apart.
    """

    readers: Sequence[Reader]
    hosts: frozenset[str]
    cookie: str
    _buckets: dict[str, Bucket] = field(default_factory=dict)

    def reader_of(self, token: str | None) -> Reader | None:
        """Return whose token it is."""
        found = None
        for reader in self.readers:
            # All are compared, so that the time taken tells nothing.
            if hmac.compare_digest(reader.token.encode(), (token or "").encode("utf-8", "ignore")):
                found = reader
        return found

    def host_is_own(self, host: str | None) -> bool:
        """Tell whether a `Host` header is this server's."""
        return (host or "").lower() in self.hosts

    def origin_is_own(self, origin: str | None, host: str | None) -> bool:
        """Tell whether a page of this server sent the request."""
        parts = urlsplit(origin or "")
        return parts.scheme in ("http", "https") and parts.netloc.lower() == (host or "").lower()

    def may_go_on(self, who: str, changes: bool) -> bool:
        """Tell whether one more request of a reader is within the rate."""
        key = f"{who}|{changes}"
        bucket = self._buckets.get(key)
        if bucket is None:
            # A held key repeats 30 times a second; a page of crops and tiles is a few hundred.
            bucket = Bucket(50, 300) if changes else Bucket(400, 3000)
            self._buckets[key] = bucket
        return bucket.take()


class Bucket:
    """So many requests a second, and so many at once."""

    def __init__(self, per_s: float, most: float) -> None:
        self._per_s, self._most = per_s, most
        self._left, self._at = most, time.monotonic()

    def take(self) -> bool:
        """Take one, if there is one."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
