"""The addresses of the server: JSON for the page, tiles and crops. `service` does the work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from segmitos._version import __version__
from segmitos.errors import DataError, InputError
from segmitos.review.access import MAX_BODY_BYTES, Reader
from segmitos.review.compare import agreement_table, comparison
from segmitos.review.events import Batch, read_batch
from segmitos.review.finish import derived_file, finish, link_earlier, reopen
from segmitos.review.images import CROP_UM, Images, etag
from segmitos.review.overview import training_queue, worklist_rows
from segmitos.review.screening import is_seen, screening_fields
from segmitos.review.service import NotFoundError, Service

STATIC = Path(__file__).parent / "static"
VIEWER = STATIC / "vendor" / "openseadragon.min.js"
_TYPES = {".geojson": "application/geo+json", ".csv": "text/csv", ".json": "application/json"}


class Api:
    """Handlers of one server; those that return a dict are answered in JSON."""

    def __init__(self, service: Service, images: Images) -> None:
        self._service = service
        self._images = images

    def routes(self) -> list[Route]:
        """Return all addresses but the page's own files."""
        return [
            Route("/api/session", _json(self.session)),
            Route("/api/slides", _json(self.slides)),
            Route("/api/queue", _json(self.queue)),
            Route("/api/agreement", _json(self.agreement)),
            Route("/api/slides/{name}", _json(self.slide)),
            Route("/api/slides/{name}/marks", _json(self.marks)),
            Route("/api/slides/{name}/summary", _json(self.summary)),
            Route("/api/slides/{name}/fields", _json(self.fields)),
            Route("/api/slides/{name}/compare", _json(self.compare)),
            Route("/api/slides/{name}/events", _from_batch(self.events), methods=["POST"]),
            Route("/api/slides/{name}/finish", _from_batch(self.finish), methods=["POST"]),
            Route("/api/slides/{name}/reopen", _from_batch(self.reopen), methods=["POST"]),
            Route("/api/slides/{name}/link", _json(self.link), methods=["POST"]),
            Route("/api/slides/{name}/export.{kind}", self.export),
            Route("/tiles/{name}/{level:int}/{place}.jpg", self.tile),
            Route("/crops/{name}/{mark}.jpg", self.crop),
        ]

    def session(self, request: Request) -> dict[str, Any]:
        """Who reads, and how."""
        reader = _reader(request)
        return {
            "reader": reader.name,
            "adjudicates": reader.adjudicates and not self._service.blind,
            "mode": self._service.mode,
            "blind": self._service.blind,
            "viewer": VIEWER.is_file(),
            "version": __version__,
        }

    def slides(self, request: Request) -> dict[str, Any]:
        """The worklist."""
        return {"slides": worklist_rows(self._service, self._who(request))}

    def queue(self, request: Request) -> dict[str, Any]:
        """What teaches most, over all slides."""
        return training_queue(self._service, self._who(request))

    def agreement(self, request: Request) -> dict[str, Any]:
        """Readers side by side."""
        return agreement_table(self._service)

    def slide(self, request: Request) -> dict[str, Any]:
        """One slide and the reader's state of it."""
        return self._service.slide(_name(request), self._who(request))

    def marks(self, request: Request) -> dict[str, Any]:
        """The model's marks."""
        floor = _number(request, "floor", -1e9, 1e9)
        return self._service.marks(_name(request), self._who(request), floor)

    def summary(self, request: Request) -> dict[str, Any]:
        """Where the count stands."""
        result, who = self._service.result(_name(request)), self._who(request)
        return self._service.summary_of(result, self._service.state(result, who), who)

    def fields(self, request: Request) -> dict[str, Any]:
        """Fields to screen an area by."""
        width = _number(request, "width_um", 50, 5000) or 500.0
        height = _number(request, "height_um", 50, 5000) or 400.0
        result = self._service.result(_name(request))
        area = request.query_params.get("area", "hotspot")
        areas, state = self._service.area(result, self._who(request), area)
        boxes = screening_fields(areas, (width / result.mpp, height / result.mpp), result.size_px)
        seen = list(state.fields.values())
        return {
            "areas": [[list(corner) for corner in one] for one in areas],
            "fields": [{"box": box, "seen": is_seen(box, seen)} for box in boxes],
        }

    def compare(self, request: Request) -> dict[str, Any]:
        """Where readers who finished differ."""
        return comparison(self._service, _name(request), _reader(request))

    def events(self, request: Request, batch: Batch) -> dict[str, Any]:
        """Store what a reader did."""
        who, reader = self._who(request), _reader(request).name
        return self._service.post(_name(request), who, batch, reader)

    def finish(self, request: Request, batch: Batch) -> dict[str, Any]:
        """Sign a review."""
        return finish(self._service, self._images, _name(request), self._who(request), batch)

    def reopen(self, request: Request, batch: Batch) -> dict[str, Any]:
        """Take a signature back."""
        return reopen(self._service, _name(request), self._who(request), batch)

    def link(self, request: Request) -> dict[str, Any]:
        """Take over what the reader decided under an earlier model."""
        return link_earlier(self._service, _name(request), self._who(request))

    def export(self, request: Request) -> Response:
        """The reviewed marks as a file."""
        kind = "." + request.path_params["kind"]
        who = self._who(request)
        content = derived_file(self._service, self._images, _name(request), who, kind)
        headers = {"Content-Disposition": f'attachment; filename="reviewed{kind}"'}
        media = _TYPES.get(kind, "text/html; charset=utf-8")
        return Response(content, media_type=media, headers=headers)

    def tile(self, request: Request) -> Response:
        """One tile of a slide."""
        result, level = self._service.result(_name(request)), request.path_params["level"]
        try:
            column, row = map(int, request.path_params["place"].split("_"))
        except ValueError as error:
            raise NotFoundError("there is no such tile") from error

        def read() -> bytes:
            content = self._images.tile(result, level, column, row)
            if content is None:
                raise NotFoundError("there is no such tile")
            return content

        return _picture(request, etag(result, level, column, row), read)

    def crop(self, request: Request) -> Response:
        """A mark in its surroundings."""
        side = _number(request, "um", 1, 1000) or 64
        if side not in CROP_UM:
            raise DataError(f"um={side:g}: choose one of {', '.join(map(str, CROP_UM))}")
        mark = request.path_params["mark"]
        if mark == "at":
            result = self._service.result(_name(request))
            x = _number(request, "x", -1, result.size_px[0]) or 0.0
            y = _number(request, "y", -1, result.size_px[1]) or 0.0
        else:
            result, x, y = self._service.position(_name(request), self._who(request), mark)
        tag = etag(result, x, y, side)
        return _picture(request, tag, lambda: self._images.crop(result, x, y, int(side)))

    def _who(self, request: Request) -> str:
        return self._service.acting(_reader(request), request.query_params.get("as") == "consensus")


def _json(handler: Callable[[Request], dict[str, Any]]) -> Callable[[Request], Response]:
    """Answer with what a handler returns; Starlette runs it in a thread."""

    def answer(request: Request) -> Response:
        # `enc_hook` is called for NumPy's floats.
        content = msgspec.json.encode(handler(request), enc_hook=float)
        return Response(content, media_type="application/json")

    return answer


def _from_batch(
    handler: Callable[[Request, Batch], dict[str, Any]],
) -> Callable[[Request], Awaitable[Response]]:
    """Answer with what a handler makes of the events that were sent."""

    async def answer(request: Request) -> Response:
        body = await _body(request)
        if body is None:
            text = f"the body is larger than {MAX_BODY_BYTES} bytes; send fewer events"
            return failure(413, text)
        batch = read_batch(body)
        return await run_in_threadpool(_json(lambda request: handler(request, batch)), request)

    return answer


def refusal(request: Request, error: Exception) -> Response:
    """Return one of our own errors as an answer of one line, with its status."""
    status = 400 if isinstance(error, DataError) else 404 if isinstance(error, InputError) else 503
    return failure(getattr(error, "status", status), str(error))


def failure(status: int, message: str) -> Response:
    """Return an error as one line of JSON."""
    return JSONResponse({"error": " ".join(message.split())[:500]}, status_code=status)


async def _body(request: Request) -> bytes | None:
    """Read a body, whatever its header says; None where it is beyond the limit."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def _reader(request: Request) -> Reader:
    reader: Reader = request.scope["segmitos.reader"]
    return reader


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    return name


def _number(request: Request, key: str, low: float, high: float) -> float | None:
    text = request.query_params.get(key)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = high + 1
    if not low <= value <= high:
        raise DataError(f"{key}={text[:40]!r} is not a number from {low:g} to {high:g}")
    return value


def _picture(request: Request, tag: str, read: Callable[[], bytes]) -> Response:
    """Answer with a JPEG, unless the client has that of this tag."""
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    # Under one address there may be another slide, page or scale by now, so a cache has to ask; and
    # a private one alone may keep a patient's picture.
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    return Response(read(), media_type="image/jpeg", headers=headers)


def static_file(name: str) -> FileResponse | None:
    """Return a file of the page by its name, None where there is none."""
    path = _FILES.get(name)
    return None if path is None else FileResponse(path)


_FILES = {path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*") if path.is_file()}
