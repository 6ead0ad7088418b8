"""The server: one process, checks before anything else, no torch."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segmitos.errors import OutputError, SegMitosError
from segmitos.io.text import reason_of
from segmitos.review.access import Access, Reader, own_hosts, usual_port
from segmitos.review.api import Api, failure, refusal, static_file
from segmitos.review.images import Images
from segmitos.review.service import Service

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_SAFE_METHODS = ("GET", "HEAD")


def make_app(service: Service, images: Images, access: Access) -> Starlette:
    """Return the application.

    Args:
        service: what it serves.
        images: tiles and crops.
        access: who may use it.
    """
    routes = [
        *Api(service, images).routes(),
        Route("/", _static, methods=["GET"]),
        Route("/{file:path}", _static, methods=["GET"]),
    ]
    middleware = [
        Middleware(GZipMiddleware, minimum_size=4096, compresslevel=1),
        Middleware(Guard, access=access),
    ]
    return Starlette(
        routes=routes, middleware=middleware, exception_handlers={SegMitosError: refusal}
    )


async def _static(request: Request) -> Response:
    found = static_file(request.path_params.get("file", "index.html"))
    if found is None:
        return failure(404, "there is no such page")
    found.headers["Cache-Control"] = "no-cache"
    return found


class Guard:
    """Lets a request through only with the right host, origin, token and rate."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        cookies: list[str] = []

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if scope["path"].startswith("/api/"):
                    headers["Cache-Control"] = "no-store"
                for cookie in cookies:
                    headers.append("Set-Cookie", cookie)
            await send(message)

        refused = self._check(Request(scope), cookies)
        await (refused or self._app)(scope, receive, send_with_headers)

    def _check(self, request: Request, cookies: list[str]) -> Response | None:
        headers, access = request.headers, self._access
        host, origin = headers.get("host"), headers.get("origin")
        is_safe, is_root = request.method in _SAFE_METHODS, request.scope["path"] == "/"
        if not access.host_is_own(host):
            return failure(403, "this server is not called that")
        told = not is_safe or origin is not None
        foreign = headers.get("sec-fetch-site") == "cross-site" and not is_root
        if foreign or (told and not access.origin_is_own(origin, host)):
            return failure(403, "the request came from a page of another server")
        given = request.query_params.get("token")
        reader = access.reader_of(given) if is_root and is_safe else None
        if reader is not None:
            secure = "; Secure" if (origin or "").startswith("https:") else ""
            cookies.append(
                f"{access.cookie}={reader.token}; Path=/; HttpOnly; SameSite=Strict{secure}"
            )
        reader = reader or access.reader_of(request.cookies.get(access.cookie))
        if reader is None:
            return failure(403, "open the address that the server printed; it holds your token")
        page_of = unquote(headers.get("segmitos-reader", ""))
        if page_of and page_of != reader.name:
            text = f"{reader.name}'s address was opened in this browser; open {page_of}'s again"
            return failure(403, text)
        if not access.may_go_on(reader.name, not is_safe):
            return failure(429, "too many requests; slow down")
        request.scope["segmitos.reader"] = reader
        return None


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OutputError: where the port is taken or the host is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise OutputError(f"cannot listen on {host}:{port}: {reason_of(error)}") from error
    return listener


class _Server(uvicorn.Server):
    """Says that it is ready once it answers requests and signals, not before."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped."""
        log = logging.getLogger("uvicorn.error")
        log.addFilter(self._is_told)
        try:
            super().run(sockets)
        finally:
            log.removeFilter(self._is_told)

    def _is_told(self, record: logging.LogRecord) -> bool:
        """Keep from the console that a stop cut off requests, such as pictures being drawn."""
        error = record.exc_info[1] if record.exc_info else None
        cut_off = isinstance(error, asyncio.CancelledError) or "running task(s)" in str(record.msg)
        return not (self.should_exit and cut_off)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


def serve(
    service: Service,
    readers: Sequence[Reader],
    host: str,
    port: int | None,
    address: str | None,
    on_ready: Callable[[list[tuple[Reader, str]]], None],
) -> None:
    """Serve until interrupted.

    Args:
        service: what is served.
        readers: who may use it.
        host: to listen on.
        port: likewise; 0 takes a free one, None the usual one of the results where it is free.
        address: under which a reverse proxy shows the server.
        on_ready: told each reader's address once the server listens.

    Raises:
        OutputError: where it cannot listen.
    """
    if port is None:
        try:
            listener = listen(host, usual_port(service.worklist.home))
        except OutputError:
            listener = listen(host, 0)
    else:
        listener = listen(host, port)
    port = listener.getsockname()[1]
    hosts = own_hosts(host, port, address)
    access = Access(readers, hosts, f"segmitos_review_{port}")
    images = Images()
    app = make_app(service, images, access)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    base = (address or f"http://{shown}:{port}").rstrip("/")
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=65536,
        ws="none",
        lifespan="off",
    )
    addresses = [(reader, f"{base}/?token={reader.token}") for reader in readers]
    try:
        _Server(config, lambda: on_ready(addresses)).run(sockets=[listener])
    finally:
        images.close()
        service.store.close()
        listener.close()
