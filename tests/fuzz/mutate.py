"""Mutations: of bytes, of text, of JSON values, of tables. A function of the generator alone."""

from __future__ import annotations

import json
import random
from typing import Any

_NUMBERS = ("0", "-1", "1e400", "-1e308", "NaN", "Infinity", "1e-320", "9" * 30, "9" * 5001, "0.5")
_WORDS = (
    "",
    " ",
    "null",
    "true",
    '"',
    "'",
    "\\",
    "\0",
    "\x1a",
    "\ufeff",
    "\u2028",
    "é",
    "\U0001f600",
    "\\ud800",
    "../..",
    "/dev/null",
    "=1+1",
    "a" * 5000,
    "%s{}{0}",
    "<b>",
    "0x10",
    "1,5",
    "1_000",
    "\r",
    "\n",
    ";",
    ",",
)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    3,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    10**30,
    10**400,
    "",
    "x",
    "1",
    "\ud800",
    "a" * 3000,
    "../../x",
    [],
    [[]],
    [1, 2],
    {},
    {"a": 1},
)
_DEPTH = 20_000


def mutate(content: bytes, name: str, rng: random.Random) -> bytes:
    """Return changed content; how depends on the ending of `name`."""
    suffix = name.rpartition(".")[2].lower()
    if suffix in ("json", "geojson") and rng.random() < 0.75:
        return _json(content, rng)
    if suffix in ("csv", "txt", "toml", "tsv", "json", "geojson") and rng.random() < 0.8:
        return _text(content.decode("utf-8", "replace"), rng).encode("utf-8", "surrogatepass")
    return _bytes(content, rng)


def _bytes(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        way = rng.randrange(7)
        at = rng.randrange(len(data) + 1)
        size = rng.choice((1, 2, 4, 16, 200))
        if way == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif way == 1 and at < len(data):
            data[at] = rng.choice((0, 255, rng.randrange(256)))
        elif way == 2:
            del data[at : at + size]
        elif way == 3:
            data[at:at] = rng.randbytes(size)
        elif way == 4:
            data[at:at] = data[at : at + size]
        elif way == 5:
            data = data[:at]
        else:
            value = rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, rng.randrange(1 << 32)))
            data[at : at + 4] = value.to_bytes(4, rng.choice(("little", "big")))
    return bytes(data)


def _text(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 1, 3))):
        line = rng.randrange(len(lines))
        way = rng.randrange(8)
        if way == 0:
            lines[line] = _cell(lines[line], rng)
        elif way == 1:
            del lines[line]
        elif way == 2:
            lines.insert(line, lines[rng.randrange(len(lines))] if lines else "")
        elif way == 3:
            lines[line] = lines[line].replace(",", rng.choice((";", "\t", ",,", "|")))
        elif way == 4:
            at = rng.randrange(len(lines[line]) + 1)
            lines[line] = lines[line][:at] + rng.choice(_WORDS) + lines[line][at:]
        elif way == 5:
            lines = lines[: line + 1]
        elif way == 6:
            lines[line] = rng.choice(_WORDS)
        else:
            return rng.choice(("\ufeff", "", "sep=;\n", '"')) + "\n".join(lines)
        if not lines:
            lines = [""]
    return "\n".join(lines)


def _cell(line: str, rng: random.Random) -> str:
    sign = next((sign for sign in ",;\t= " if sign in line), ",")
    cells = line.split(sign)
    cells[rng.randrange(len(cells))] = rng.choice(_NUMBERS + _WORDS)
    return sign.join(cells)


def _json(content: bytes, rng: random.Random) -> bytes:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return _bytes(content, rng)
    way = rng.randrange(12)
    if way == 0:
        return b"[" * _DEPTH + content
    if way == 1:
        return (b'{"a":' * _DEPTH) + b"1" + b"}" * _DEPTH
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _changed(value, rng)
    text = _dumped(value)
    if way == 2:
        digits = [i for i, sign in enumerate(text) if sign.isdigit()]
        if digits:
            at = rng.choice(digits)
            text = text[:at] + rng.choice(_NUMBERS) + text[at + 1 :]
    return text.encode("utf-8", "surrogatepass")


def _dumped(value: Any) -> str:
    import sys

    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value)
    finally:
        sys.set_int_max_str_digits(limit)


def _changed(value: Any, rng: random.Random) -> Any:
    """Return JSON with one place of it changed, deep or shallow."""
    places: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in list(items):
            places.append((node, key))
            if isinstance(child, dict | list):
                collect(child)

    if not isinstance(value, dict | list) or not value or rng.random() < 0.02:
        return rng.choice(_VALUES)
    value = json.loads(json.dumps(value))
    collect(value)
    node, key = rng.choice(places)
    way = rng.randrange(5)
    if way == 0:
        del node[key]
    elif way == 1 and isinstance(node, dict):
        node[rng.choice(("", "x", "id", "type", "\ud800"))] = node.pop(key)
    elif way == 2 and isinstance(node, list):
        node.insert(key, rng.choice(_VALUES + tuple(node)))
    else:
        node[key] = rng.choice(_VALUES)
    return value
