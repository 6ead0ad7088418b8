"""Malformed and hostile requests to the review server: `python -m tests.fuzz.hostile`.

Half are Schemathesis's, valid and invalid, from a description of the API; half are made here. The
server runs in this process, so that an error that it would hide behind a 500 comes out whole.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import httpx

from segmitos.review.access import Access, Reader
from segmitos.review.images import Images
from segmitos.review.results import Worklist
from segmitos.review.server import make_app
from segmitos.review.service import Service
from segmitos.review.store import Store
from tests.factories.reviews import TOKENS, event, make_result

with warnings.catch_warnings():
    # Starlette would rather have a client that not every machine has.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

HOST = "127.0.0.1:8000"
SECRET = "what no answer may hold"
GOOD_EVERY = 20
_VALUES: list[Any] = [
    *(None, True, -1, 0, 1e308, 2**70, -0.0, "", "x" * 9000, "\u0000", "\ud800", "\u202e", [], {}),
    *([[]], {"a": {"a": {}}}, "../x", "%00", "Infinity", "NaN", "<script>", "'; DROP TABLE x; --"),
    *("mitosis", "unsure", "consensus", "Anna", "../../secret.txt", "${7*7}", "{{7*7}}"),
]
_NAMES = ["made", "..", "../made", "..%2f..%2fsecret.txt", "%00", "made%00", "made/../made", "é"]
_NAMES += ["<img onerror=alert(1)>", "." * 300, "%c0%ae%c0%ae", "made.tif", "%F0%9F%98%80", "%"]
_PLACES = ["", "/marks", "/summary", "/fields", "/compare", "/events", "/finish", "/reopen"]
_PLACES += ["/link", "/export.json", "/export.csv", "/export.geojson", "/export.html", "/export."]
_QUERIES = ["floor", "um", "area", "width_um", "height_um", "as", "token", "x", "y"]
_KINDS = ["decide", "add", "move", "remove", "region", "field", "hotspot", "comment", "undo"]
_KINDS += ["finish", "explode"]
_KEYS = ["mark", "label", "x_px", "y_px", "outline", "text", "id", "at", "kind", "seen_ms", "box"]
_METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "CONNECT", "x"]


class Unhurried(Access):
    """Access without the limit on the rate, which has a test of its own."""

    def may_go_on(self, who: str, changes: bool) -> bool:
        return True


@dataclass
class Attack:
    """A server under attack, and what must hold of it."""

    folder: Path
    seed: int
    failures: list[str] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    acknowledged: dict[str, list[str]] = field(default_factory=dict)
    sent: int = 0

    def __post_init__(self) -> None:
        results, slides = self.folder / "results", self.folder / "slides"
        make_result(results, slides, "made", 30, 0)
        (self.folder / "secret.txt").write_text(SECRET)
        (slides / "secret.txt").write_text(SECRET)
        worklist = Worklist(results, None)
        self.store = Store.in_folder(worklist.home)
        self.images = Images()
        service = Service(worklist, self.store)
        readers = [Reader(name, TOKENS[name], name == "Anna") for name in ("Anna", "Ben")]
        app = make_app(service, self.images, Unhurried(readers, frozenset({HOST}), "cookie"))
        self.client = TestClient(app, base_url=f"http://{HOST}")
        self.client.cookies.set("cookie", TOKENS["Anna"])
        self.honest = TestClient(app, base_url=f"http://{HOST}")
        self.honest.cookies.set("cookie", TOKENS["Ben"])
        self.key = worklist.all()["made"].key
        self.model = self.key.model_hash
        self.marks = list(worklist.all()["made"].candidates.ids)
        self.before = self.files()

    def files(self) -> dict[str, str]:
        """Return what lies where a request must change nothing: all but the reviews."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
            and not str(path.relative_to(self.folder)).startswith("results/review")
        }

    def send(self, method: str, url: str, **more: Any) -> None:
        """Send one request, and check its answer."""
        self.sent += 1
        headers = {"Origin": f"http://{HOST}", **more.pop("headers", {})}
        said = f"{method} {url[:200]!r} {str(more)[:300]}"
        try:
            answer = self.client.request(method, url, headers=headers, **more)
        except (httpx.InvalidURL, httpx.LocalProtocolError, UnicodeError, ValueError) as error:
            # The client itself refuses to send it.
            self.statuses[0] = self.statuses.get(0, 0) + 1
            if type(error).__module__.startswith("segmitos"):
                self.failures.append(f"{said}: {error!r}")
            return
        except Exception as error:  # the server's own, whatever it is, is what is looked for
            self.failures.append(f"{said}: {error!r}")
            return
        self.check(said, answer)
        if method == "POST" and answer.status_code == 200 and "stored" in answer.text:
            sent = json.loads(more["content"])["events"]
            self.acknowledged.setdefault("Anna", []).extend(one["id"] for one in sent)

    def check(self, said: str, answer: httpx.Response) -> None:
        """Check one answer."""
        status = answer.status_code
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status >= 500:
            self.failures.append(f"{said}: {status} {answer.text[:300]}")
        if SECRET.encode() in answer.content or b"root:x:" in answer.content:
            self.failures.append(f"{said}: an answer holds a file that is none of the page's")
        if status >= 400 and answer.content and answer.headers["content-type"] == _JSON:
            error = answer.json().get("error", "")
            if not error or "\n" in error or "Traceback" in error:
                self.failures.append(f"{said}: {status} without a line that says why")

    def good(self) -> None:
        """Post what must always be taken."""
        one = event("comment", text=str(self.sent))
        body = json.dumps({"model": self.model, "events": [one]})
        answer = self.honest.post(
            "/api/slides/made/events", content=body, headers={"Origin": f"http://{HOST}"}
        )
        if answer.status_code != 200:
            self.failures.append(f"an honest event was refused: {answer.text[:300]}")
        else:
            self.acknowledged.setdefault("Ben", []).append(one["id"])

    def own(self, count: int, seed: int) -> None:
        """Send requests made here."""
        for number, (method, url, more) in enumerate(hostile(self, count, seed)):
            self.send(method, url, **more)
            if number % GOOD_EVERY == 0:
                self.good()

    def from_schema(self, count: int) -> None:
        """Send requests that Schemathesis makes from a description of the API."""
        import schemathesis
        from hypothesis import HealthCheck, Phase, given, seed, settings
        from schemathesis import GenerationMode

        schema = schemathesis.openapi.from_dict(description(self.marks[0], self.model))
        operations = [one.ok() for one in schema.get_all_operations()]
        modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        each = -(-count // (len(operations) * len(modes)))
        for operation in operations:
            for mode in modes:

                @seed(self.seed)
                @settings(
                    max_examples=each,
                    deadline=None,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @given(case=operation.as_strategy(generation_mode=mode))
                def one_case(case: Any) -> None:
                    given = case.as_transport_kwargs(base_url=f"http://{HOST}")
                    given.pop("cookies", None)
                    body = given.pop("json", None)
                    if body is not None:
                        given["content"] = json.dumps(body)
                    elif given.get("data") is not None:
                        given["content"] = given.pop("data")
                    known = {"content", "params", "headers"}
                    more = {key: value for key, value in given.items() if key in known}
                    more["headers"] = {
                        key: value
                        for key, value in dict(more.get("headers") or {}).items()
                        if key.lower() not in ("content-length", "transfer-encoding")
                    }
                    self.send(given["method"], given["url"], **more)

                try:
                    one_case()
                except Exception as error:
                    # Some operations have no invalid form.
                    if "Unsatisfiable" not in type(error).__name__:
                        raise
            self.good()

    def finish(self) -> None:
        """Check what is left after all requests."""
        self.images.close()
        stored = self.store.events(self.key)
        for who, ids in self.acknowledged.items():
            found = [one.id for one in stored.get(who, [])]
            missing = set(ids) - set(found)
            if missing or len(set(found)) != len(found):
                self.failures.append(f"{who}: {len(missing)} events lost, or some doubled")
        # Those of the honest reader in their order, and nothing of anybody else's among them.
        if [one.id for one in stored.get("Ben", [])] != self.acknowledged.get("Ben", []):
            self.failures.append("the honest reader's events are not what was acknowledged")
        self.store.close()
        if self.files() != self.before:
            self.failures.append("a file outside of the reviews was changed or made")


_JSON = "application/json"


def hostile(attack: Attack, count: int, seed: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Make requests: method, address and what `TestClient.request` takes beside."""
    rng = random.Random(seed)
    values = [*_VALUES, *attack.marks[:2], attack.model]
    for number in range(count):
        kind = number % 5
        if kind == 0:
            name, place = rng.choice(_NAMES), rng.choice(_PLACES)
            text = str(rng.choice(values)).encode("utf-8", "replace").decode()
            if rng.random() < 0.5:
                url = f"/api/slides/{name}{place}"
            else:
                mark = rng.choice(["at", attack.marks[0], *_NAMES])
                url = rng.choice(
                    [
                        f"/crops/{name}/{mark}.jpg",
                        f"/tiles/{name}/{rng.choice([0, 1, -1, 99, 2**65])}/"
                        f"{rng.choice(['0_0', '1_', '_', '-1_0', '9' * 30 + '_0', '0_0_0'])}.jpg",
                    ]
                )
            yield "GET", url, {"params": {rng.choice(_QUERIES): text}}
        elif kind == 1:
            content: dict[str, Any] = event(rng.choice(_KINDS))
            content["mark"], content["label"] = rng.choice(attack.marks), "mitosis"
            for key in rng.sample(_KEYS, rng.randrange(4)):
                content[key] = rng.choice(values)
            some = [content] * rng.choice([1, 1, 1, 2])
            body = {"model": rng.choice([attack.model] * 4 + values), "events": some}
            yield "POST", _post(rng), {"content": json.dumps(body)}
        elif kind == 2:
            one = {"id": str(uuid.UUID(int=rng.getrandbits(128))), "at": "2026-01-02T03:04:05Z"}
            body_text = json.dumps({"model": attack.model, "events": [{**one, "kind": "comment"}]})
            raw = bytearray(body_text.encode())
            for _ in range(rng.randrange(1, 6)):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            yield "POST", _post(rng), {"content": bytes(raw)}
        elif kind == 3:
            raw_body = rng.choice(
                [
                    b"[" * 50_000,
                    b'{"a":' * 20_000,
                    b"\xff\xfe\x00",
                    b"NaN",
                    b'{"model": 1e999, "events": []}',
                    b"\x1f\x8b\x08\x00" + rng.randbytes(40),
                    b"0" * 2_000_000,
                    json.dumps({"model": attack.model, "events": []}).encode(),
                    json.dumps({"model": attack.model, "events": [1, None, "x"]}).encode(),
                ]
            )
            headers = {"Content-Type": rng.choice([_JSON, "text/xml", "multipart/form-data; x"])}
            yield "POST", _post(rng), {"content": raw_body, "headers": headers}
        else:
            url = "/" + quote(str(rng.choice(_NAMES)), safe="%/.") * rng.randrange(1, 4)
            odd = rng.choice(["Host", "Origin", "Cookie", "If-None-Match", "Accept", "X" * 200])
            value = rng.choice(["", "evil.example", "null", "x" * 5000, "a\tb", "\x7f", "cookie=x"])
            yield rng.choice(_METHODS), url, {"headers": {odd: value}}


def _post(rng: random.Random) -> str:
    place = rng.choice(["events", "events", "events", "finish", "reopen", "link", "events/x"])
    return f"/api/slides/{rng.choice(['made', 'made', 'made', 'none'])}/{place}"


def description(mark: str, model: str) -> dict[str, Any]:
    """Return what the API takes, as OpenAPI."""
    number, text = {"type": "number"}, {"type": "string"}
    name = {"type": "string", "enum": ["made"]}
    one = {
        "type": "object",
        "required": ["id", "at", "kind"],
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "at": {"type": "string", "format": "date-time"},
            "kind": {"type": "string", "enum": _KINDS[:-1]},
            "mark": {"anyOf": [{"type": "string", "enum": [mark]}, text, {"type": "null"}]},
            "label": {"type": "string", "enum": ["mitosis", "atypical", "look-alike", "unsure"]},
            "x_px": number,
            "y_px": number,
            "text": text,
            "outline": {"type": "array", "items": {"type": "array", "items": number}},
            "seen_ms": number,
            "view_um_per_px": number,
        },
    }
    batch = {
        "type": "object",
        "required": ["model", "events"],
        "properties": {
            "model": {"type": "string", "enum": [model]},
            "events": {"type": "array", "items": one, "maxItems": 3},
        },
    }

    def path(*more: tuple[str, str, Any], body: bool = False) -> dict[str, Any]:
        given = [
            {"name": key, "in": where, "required": where == "path", "schema": schema}
            for key, where, schema in more
        ]
        about: dict[str, Any] = {
            "parameters": given,
            "responses": {"200": {"description": "done"}},
        }
        if body:
            about["requestBody"] = {"required": True, "content": {_JSON: {"schema": batch}}}
        return {"post" if body else "get": about}

    slide = ("name", "path", name)
    who = ("as", "query", {"type": "string", "enum": ["consensus"]})
    size = [(key, "query", {"type": "number", "minimum": 50, "maximum": 5000}) for key in _SIZES]
    index = {"type": "integer", "minimum": 0, "maximum": 9}
    return {
        "openapi": "3.1.0",
        "info": {"title": "segmitos review", "version": "1"},
        "paths": {
            "/api/session": path(),
            "/api/slides": path(who),
            "/api/queue": path(who),
            "/api/agreement": path(),
            "/api/slides/{name}": path(slide, who),
            "/api/slides/{name}/marks": path(slide, who, ("floor", "query", number)),
            "/api/slides/{name}/summary": path(slide, who),
            "/api/slides/{name}/fields": path(slide, ("area", "query", text), *size),
            "/api/slides/{name}/compare": path(slide),
            "/api/slides/{name}/export.{kind}": path(
                slide, ("kind", "path", {"enum": ["geojson", "csv", "json", "html"]})
            ),
            "/tiles/{name}/{level}/{place}.jpg": path(
                slide, ("level", "path", index), ("place", "path", text)
            ),
            "/crops/{name}/{mark}.jpg": path(
                slide,
                ("mark", "path", {"type": "string", "enum": [mark, "at"]}),
                ("um", "query", {"type": "integer", "enum": [32, 64, 128]}),
                ("x", "query", number),
                ("y", "query", number),
            ),
            "/api/slides/{name}/events": path(slide, who, body=True),
            "/api/slides/{name}/finish": path(slide, who, body=True),
            "/api/slides/{name}/reopen": path(slide, who, body=True),
            "/api/slides/{name}/link": path(slide, who, body=True),
        },
    }


_SIZES = ("width_um", "height_um")


def attacked(folder: Path, requests: int, seed: int) -> Attack:
    """Send requests to a server over a folder, and return what came of it."""
    attack = Attack(folder, seed)
    attack.own(requests // 2, seed)
    attack.from_schema(requests - requests // 2)
    # Some operations take fewer kinds of input than were asked for.
    attack.own(requests - attack.sent, seed + 1)
    attack.finish()
    return attack


@click.command()
@click.option("--requests", default=10_000, show_default=True, help="How many.")
@click.option("--seed", default=0, show_default=True, help="The same seed sends the same requests.")
def main(requests: int, seed: int) -> None:
    """Attack a review server; exit code 1 where it did what it must not."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        attack = attacked(Path(folder), requests, seed)
    counts = ", ".join(f"{status}: {n}" for status, n in sorted(attack.statuses.items()))
    events = sum(map(len, attack.acknowledged.values()))
    print(f"{attack.sent} requests in {time.monotonic() - began:.0f} s; answers {counts}")
    print(f"{events} events acknowledged; {len(attack.failures)} failures")
    for failure in attack.failures[:20]:
        print(failure)
    sys.exit(bool(attack.failures))


if __name__ == "__main__":
    main()
