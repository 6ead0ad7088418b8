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
from segmitos.errors import DataError, InputError, SegMitosError
from segmitos.review.access import MAX_BODY_BYTES, Reader
from segmitos.review.compare import agreement_table, comparison
from segmitos.review.events import read_batch
from segmitos.review.finish import derived_file, finish, link_earlier, reopen
from segmitos.review.images import CROP_UM, Images, etag
from segmitos.review.overview import worklist_rows
from segmitos.review.screening import is_seen, screening_fields
from segmitos.review.service import ConflictError, ForbiddenError, NotFoundError, Service

STATIC = Path(__file__).parent / "static"
VIEWER = STATIC / "vendor" / "openseadragon.min.js"
_TYPES = {".geojson": "application/geo+json", ".csv": "text/csv", ".json": "application/json"}


class Api:
    """Handlers of one server."""

    def __init__(self, service: Service, images: Images) -> None:
        self._service = service
        self._images = images

    def routes(self) -> list[Route]:
        """Return all addresses but the page's own files."""
        get, post = ["GET"], ["POST"]
        return [
            Route("/api/session", _safe(self.session), methods=get),
            Route("/api/slides", _safe(self.slides), methods=get),
            Route("/api/queue", _safe(self.queue), methods=get),
            Route("/api/agreement", _safe(self.agreement), methods=get),
            Route("/api/slides/{name}", _safe(self.slide), methods=get),
            Route("/api/slides/{name}/marks", _safe(self.marks), methods=get),
            Route("/api/slides/{name}/summary", _safe(self.summary), methods=get),
            Route("/api/slides/{name}/fields", _safe(self.fields), methods=get),
            Route("/api/slides/{name}/compare", _safe(self.compare), methods=get),
            Route("/api/slides/{name}/events", _safe(self.events), methods=post),
            Route("/api/slides/{name}/finish", _safe(self.finish), methods=post),
            Route("/api/slides/{name}/reopen", _safe(self.reopen), methods=post),
            Route("/api/slides/{name}/link", _safe(self.link), methods=post),
            Route("/api/slides/{name}/export.{kind}", _safe(self.export), methods=get),
            Route("/tiles/{name}/{level:int}/{place}.jpg", _safe(self.tile), methods=get),
            Route("/crops/{name}/{mark}.jpg", _safe(self.crop), methods=get),
        ]

    async def session(self, request: Request) -> Response:
        """Who reads, and how."""
        reader = _reader(request)
        return JSONResponse(
            {
                "reader": reader.name,
                "adjudicates": reader.adjudicates and not self._service.blind,
                "mode": self._service.mode,
                "blind": self._service.blind,
                "viewer": VIEWER.is_file(),
                "version": __version__,
            }
        )

    async def slides(self, request: Request) -> Response:
        """The worklist."""
        who = self._who(request)
        return JSONResponse({"slides": await run_in_threadpool(worklist_rows, self._service, who)})

    async def queue(self, request: Request) -> Response:
        """What teaches most, over all slides."""
        return JSONResponse(await run_in_threadpool(self._service.queue, self._who(request)))

    async def agreement(self, request: Request) -> Response:
        """Readers side by side."""
        _reader(request)
        return JSONResponse(await run_in_threadpool(agreement_table, self._service))

    async def slide(self, request: Request) -> Response:
        """One slide and the reader's state of it."""
        given = (_name(request), self._who(request))
        return JSONResponse(await run_in_threadpool(self._service.slide, *given))

    async def marks(self, request: Request) -> Response:
        """The model's marks."""
        floor = _number(request, "floor", -1e9, 1e9)
        given = (_name(request), self._who(request), floor)
        found = await run_in_threadpool(self._service.marks, *given)
        return Response(msgspec.json.encode(found), media_type="application/json")

    async def summary(self, request: Request) -> Response:
        """Where the count stands."""
        who = self._who(request)

        def answer() -> dict[str, Any]:
            result = self._service.result(_name(request))
            return self._service.summary_of(result, self._service.state(result, who), who)

        return JSONResponse(await run_in_threadpool(answer))

    async def fields(self, request: Request) -> Response:
        """Fields to screen an area by."""
        who, area = self._who(request), request.query_params.get("area", "hotspot")
        width = _number(request, "width_um", 50, 5000) or 500.0
        height = _number(request, "height_um", 50, 5000) or 400.0

        def answer() -> dict[str, Any]:
            result = self._service.result(_name(request))
            areas, state = self._service.area(result, who, area)
            size = (width / result.mpp, height / result.mpp)
            boxes = screening_fields(areas, size, result.size_px)
            seen = list(state.fields.values())
            return {
                "areas": [[list(corner) for corner in one] for one in areas],
                "fields": [{"box": box, "seen": is_seen(box, seen)} for box in boxes],
            }

        return JSONResponse(await run_in_threadpool(answer))

    async def compare(self, request: Request) -> Response:
        """Where readers who finished differ."""
        given = (self._service, _name(request), _reader(request))
        return JSONResponse(await run_in_threadpool(comparison, *given))

    async def events(self, request: Request) -> Response:
        """Store what a reader did."""
        batch = read_batch(await _body(request))
        given = (_name(request), self._who(request), batch, _reader(request).name)
        return JSONResponse(await run_in_threadpool(self._service.post, *given))

    async def finish(self, request: Request) -> Response:
        """Sign a review."""
        batch = read_batch(await _body(request))
        given = (self._service, self._images, _name(request), self._who(request), batch)
        return JSONResponse(await run_in_threadpool(finish, *given))

    async def reopen(self, request: Request) -> Response:
        """Take a signature back."""
        batch = read_batch(await _body(request))
        given = (self._service, _name(request), self._who(request), batch)
        return JSONResponse(await run_in_threadpool(reopen, *given))

    async def link(self, request: Request) -> Response:
        """Take over what the reader decided under an earlier model."""
        given = (self._service, _name(request), self._who(request))
        return JSONResponse(await run_in_threadpool(link_earlier, *given))

    async def export(self, request: Request) -> Response:
        """The reviewed marks as a file."""
        kind = "." + request.path_params["kind"]
        name = _name(request)
        content = await run_in_threadpool(
            derived_file, self._service, self._images, name, self._who(request), kind
        )
        headers = {"Content-Disposition": f'attachment; filename="reviewed{kind}"'}
        media = _TYPES.get(kind, "text/html; charset=utf-8")
        return Response(content, media_type=media, headers=headers)

    async def tile(self, request: Request) -> Response:
        """One tile of a slide."""
        result = await run_in_threadpool(self._service.result, _name(request))
        level = request.path_params["level"]
        try:
            column, row = map(int, request.path_params["place"].split("_"))
        except ValueError as error:
            raise NotFoundError("there is no such tile") from error
        tag = etag(result, level, column, row)
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        content = await run_in_threadpool(self._images.tile, result, level, column, row)
        if content is None:
            raise NotFoundError("there is no such tile")
        return _picture(content, tag)

    async def crop(self, request: Request) -> Response:
        """A mark in its surroundings."""
        side = _number(request, "um", 1, 1000) or 64
        if side not in CROP_UM:
            raise DataError(f"um={side:g}: choose one of {', '.join(map(str, CROP_UM))}")
        mark = request.path_params["mark"]
        if mark == "at":
            result = await run_in_threadpool(self._service.result, _name(request))
            x = _number(request, "x", -1, result.size_px[0]) or 0.0
            y = _number(request, "y", -1, result.size_px[1]) or 0.0
        else:
            given = (_name(request), self._who(request), mark)
            result, x, y = await run_in_threadpool(self._service.position, *given)
        tag = etag(result, x, y, side)
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return _picture(await run_in_threadpool(self._images.crop, result, x, y, int(side)), tag)

    def _who(self, request: Request) -> str:
        return self._service.acting(_reader(request), request.query_params.get("as") == "consensus")


Handler = Callable[[Request], Awaitable[Response]]


def _safe(handler: Handler) -> Handler:
    """Turn our own errors into one-line answers with the right status."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except SegMitosError as error:
            return failure(_status(error), str(error))

    return answer


def _status(error: SegMitosError) -> int:
    for kind, status in (
        (TooLargeError, 413),
        (ConflictError, 409),
        (NotFoundError, 404),
        (ForbiddenError, 403),
        (DataError, 400),
        (InputError, 404),
    ):
        if isinstance(error, kind):
            return status
    return 503


class TooLargeError(SegMitosError):
    """A body beyond the limit."""


def failure(status: int, message: str) -> Response:
    """Return an error as one line of JSON."""
    return JSONResponse({"error": " ".join(message.split())[:500]}, status_code=status)


async def _body(request: Request) -> bytes:
    """Read a body up to the limit, whatever its header says. Raises TooLargeError."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise TooLargeError(
                f"the body is larger than {MAX_BODY_BYTES} bytes; send fewer events"
            )
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


def _picture(content: bytes, tag: str) -> Response:
    # A slide never changes under its hash, but a private cache alone may keep a patient's picture.
    headers = {"ETag": tag, "Cache-Control": "private, max-age=3600"}
    return Response(content, media_type="image/jpeg", headers=headers)


def static_file(name: str) -> FileResponse | None:
    """Return a file of the page by its name, None where there is none."""
    path = _FILES.get(name)
    return None if path is None else FileResponse(path)


_FILES = {path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*") if path.is_file()}
