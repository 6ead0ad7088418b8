"""The server on a shared network: who gets in, what a request may say, and what it never does."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import segmitos
from segmitos.errors import InputError, UsageError
from segmitos.review.access import (
    Bucket,
    check_name,
    new_reader,
    own_hosts,
    read_readers,
    usual_port,
    write_readers,
)
from tests.factories.reviews import TOKENS, Server, event, picture_of

POLICY = "default-src 'self'"


@pytest.fixture(scope="module")
def server(made, tmp_path_factory):
    import shutil

    folder = tmp_path_factory.mktemp("server")
    shutil.copytree(made / "results", folder / "results")
    with Server(folder / "results") as running:
        yield running


def test_without_a_token_nothing_is_shown(server):
    with httpx.Client(base_url=server.base) as stranger:
        for path in ("/", "/api/session", "/js/main.js", "/tiles/made/0/0_0.jpg", "/?token=wrong"):
            answer = stranger.get(path)
            assert answer.status_code == 403, path
            assert "Set-Cookie" not in answer.headers


def test_the_token_becomes_a_cookie_for_this_site_alone(server):
    answer = httpx.get(server.address())
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and str(server.port) in cookie
    assert server.client().get("/api/session").json()["reader"] == "Anna"
    assert server.client("Ben").get("/api/session").json()["reader"] == "Ben"


def test_what_one_readers_page_sends_is_never_stored_as_anothers(server):
    # One browser has one cookie: Ben's address was opened in it, Anna's page is still there.
    client = server.client("Ben")
    model = client.get("/api/slides/made").json()["model"]
    post = {"model": model, "events": [event("comment", text="mine")]}
    said = {"Segmitos-Reader": "Anna"}
    answer = client.post("/api/slides/made/events", json=post, headers=said)
    assert answer.status_code == 403
    assert answer.json()["error"] == "Ben's address was opened in this browser; open Anna's again"
    assert client.get("/api/session", headers={"Segmitos-Reader": "J%C3%B6rg"}).status_code == 403
    assert client.get("/api/slides/made").json()["state"]["comments"] == {}
    said = {"Segmitos-Reader": "Ben"}
    assert client.post("/api/slides/made/events", json=post, headers=said).status_code == 200


def test_a_server_that_is_started_again_has_its_port_again(results):
    usual = usual_port(results)
    assert 20_000 <= usual < 32_000 and usual_port(results.parent / "." / "results") == usual
    with Server(results) as first:
        first.stop()
        first.port = None
        first.start()
        assert first.port == usual
        # Where it is taken, another one does.
        second = Server(results)
        second.port = None
        with second:
            assert second.port not in (None, usual)


def test_a_foreign_host_or_origin_is_refused(server):
    client = server.client()
    for host in ("evil.example", "[", "a/?b"):
        assert client.get("/api/session", headers={"Host": host}).status_code == 403, host
    assert client.get("/api/session", headers={"Origin": "http://evil.example"}).status_code == 403
    post = {"model": "x", "events": [event("comment", text="x")]}
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{server.port + 1}"):
        answer = client.post("/api/slides/made/events", json=post, headers={"Origin": origin})
        assert answer.status_code == 403, origin
    with httpx.Client(base_url=server.base, cookies=client.cookies) as without:
        assert without.post("/api/slides/made/events", json=post).status_code == 403
    assert client.get("/api/slides", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_every_answer_has_the_content_policy_and_api_answers_are_not_stored(server):
    client = server.client()
    for path in ("/", "/js/main.js", "/api/slides", "/tiles/made/0/0_0.jpg", "/nothing"):
        answer = client.get(path)
        assert answer.headers["Content-Security-Policy"].startswith(POLICY), path
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get("/api/slides").headers["Cache-Control"] == "no-store"


def test_a_tile_is_the_slide_and_comes_once(server, made):
    from segmitos.io.slide import Slide

    client = server.client()
    answer = client.get("/tiles/made/1/1_1.jpg")
    shown = picture_of(answer.content)
    with Slide.open(made / "slides" / "made.tif", mpp=1.25) as slide:
        expected = slide.read(1024, 1024, 512, 512, 2.5)
    assert abs(shown.astype(int) - expected).mean() < 3
    again = client.get("/tiles/made/1/1_1.jpg", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304 and not again.content
    for path in ("/tiles/made/0/99_0.jpg", "/tiles/made/9/0_0.jpg", "/tiles/made/0/x_1.jpg"):
        assert client.get(path).status_code == 404, path


def test_a_path_from_a_client_never_opens_a_file(server, made):
    client = server.client()
    secret = made / "slides" / "secret.txt"
    secret.write_text("secret")
    for path in (
        "/../secret.txt",
        "/..%2f..%2fslides%2fsecret.txt",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/slides/..%2fmade",
        "/tiles/..%2f..%2fslides%2fmade/0/0_0.jpg",
        "/crops/made/..%2f..%2fsecret.jpg",
        "/js/..%2f..%2fapi.py",
        "/static/../api.py",
        f"/{secret}",
    ):
        request = client.build_request("GET", "/")
        request.url = httpx.URL(server.base).copy_with(raw_path=path.encode())
        answer = client.send(request)
        assert answer.status_code == 404, (path, answer.status_code)
        assert b"secret" not in answer.content and b"root:" not in answer.content


def test_what_was_signed_is_in_the_tables_once_the_server_stops(made, tmp_path):
    import csv
    import shutil

    results = tmp_path / "results"
    shutil.copytree(made / "results", results)
    (results / "cohort.csv").write_text("")
    with Server(results) as running:
        client = running.client()
        model = client.get("/api/slides/made").json()["model"]
        signed = {"model": model, "events": [event("finish")]}
        client.post("/api/slides/made/finish", json=signed).raise_for_status()
    rows = csv.DictReader((results / "cohort.csv").read_text().splitlines())
    assert next(row["reader"] for row in rows if row["name"] == "made") == "Anna"


def test_a_slide_with_an_evil_name_is_served_by_it(server):
    from urllib.parse import quote

    name = quote("<img onerror=alert(1)>")
    assert (
        server.client().get(f"/api/slides/{name}").json()["title"] == "<img onerror=alert(1)>.tif"
    )
    assert server.client().get(f"/tiles/{name}/0/0_0.jpg").status_code == 200


def test_large_bodies_are_refused_whatever_their_header_says(server):
    client = server.client()
    answer = client.post("/api/slides/made/events", content=b"x" * 1_200_000)
    assert answer.status_code == 413

    def chunks():
        for _ in range(30):
            yield b"x" * 50_000

    assert client.post("/api/slides/made/events", content=chunks()).status_code == 413


def test_an_error_is_one_line_with_its_status(server):
    client = server.client()
    model = client.get("/api/slides/made").json()["model"]
    for content, status in (
        (b"nonsense", 400),
        (json.dumps({"model": "x", "events": [event("comment", text="x")]}).encode(), 409),
        (json.dumps({"model": model, "events": [event("remove", mark="no")]}).encode(), 400),
        (json.dumps({"model": model, "events": [event("finish")]}).encode(), 400),
    ):
        answer = client.post("/api/slides/made/events", content=content)
        assert answer.status_code == status, answer.text
        assert "\n" not in answer.json()["error"]
    assert client.get("/api/slides/none").status_code == 404
    assert client.get("/api/slides/made/export.exe").status_code == 404
    assert client.get("/api/slides/made/marks?floor=x").status_code == 400
    assert client.get("/crops/made/none.jpg").status_code == 404
    assert client.post("/api/slides").status_code == 405
    as_consensus = server.client("Ben").get("/api/slides/made?as=consensus")
    assert as_consensus.status_code == 403


def test_the_rate_of_requests_is_limited():
    bucket = Bucket(per_s=1, most=5)
    assert [bucket.take() for _ in range(7)].count(True) == 5


def test_the_server_may_be_called_by_its_own_names_alone():
    hosts = own_hosts("127.0.0.1", 8000)
    assert (
        "127.0.0.1:8000" in hosts and "localhost:8000" in hosts and "evil.example:8000" not in hosts
    )
    assert "review.example" in own_hosts("127.0.0.1", 8000, "https://review.example")
    with pytest.raises(UsageError, match="--address"):
        own_hosts("127.0.0.1", 8000, "review")


@pytest.mark.parametrize(
    "name", ["", "..", ".hidden", "a/b", "a\\b", "x" * 70, "consensus", "Model", "a\n", "a. "]
)
def test_a_reader_whose_name_cannot_name_a_folder_or_stands_for_another_is_refused(name):
    with pytest.raises(UsageError):
        check_name(name)


def test_a_table_of_readers_is_for_its_owners_eyes_and_is_read_back(tmp_path):
    readers = [new_reader("Anna", True), new_reader("Ben")]
    write_readers(tmp_path / "readers.csv", readers)
    assert (tmp_path / "readers.csv").stat().st_mode & 0o077 == 0
    assert read_readers(tmp_path / "readers.csv") == readers


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name,token,role\nAnna,short,reader\n", "line 2"),
        ("name,token,role\n", "names no reader"),
        (f"name,token,role\nAnna,{'a' * 30},boss\n", "role"),
        (f"name,token,role\nAnna,{'a' * 30},reader\nanna,{'b' * 30},reader\n", "one name"),
        (f"name,token,role\nAnna,{'a' * 30},reader\nBen,{'a' * 30},reader\n", "one token"),
    ],
)
def test_a_wrong_table_of_readers_is_refused(tmp_path, text, what):
    (tmp_path / "readers.csv").write_text(text)
    with pytest.raises(InputError, match=what):
        read_readers(tmp_path / "readers.csv")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(segmitos.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "segmitos", "review", *arguments],
        capture_output=True, text=True, timeout=60, env=environment,
    )  # fmt: skip


def test_a_host_that_others_reach_needs_named_readers(results):
    done = run(str(results), "--host", "0.0.0.0", "--no-browser")
    assert done.returncode == 2 and "--readers" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["/no/such/folder"], 1, "/no/such/folder"),
        (["RESULTS", "--mode", "party"], 2, "party"),
        (["RESULTS", "--database", "mysql://x"], 1, "cannot be kept in mysql; give sqlite"),
        (["RESULTS", "--slides", "/no/such"], 2, "--slides"),
        (["RESULTS", "--reader", "a/b"], 2, "a/b"),
        (["RESULTS", "--readers", "/no/such.csv"], 2, "--reader"),
    ],
)
def test_what_cannot_be_served_is_one_line(results, arguments, code, what):
    done = run(*(str(results) if one == "RESULTS" else one for one in arguments), "--no-browser")
    assert done.returncode == code, done.stderr
    assert what in done.stderr and done.stderr.count("\n") == 1


def test_the_server_loads_nothing_of_training_or_detection_by_network(results):
    code = (
        "import sys, segmitos.review.server, segmitos.review.finish; "
        "print([m for m in ('torch', 'onnxruntime', 'pandas') if m in sys.modules])"
    )
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(segmitos.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_tokens_are_not_printed_twice_and_the_server_stops_by_ctrl_c(results):
    server = Server(results).start()
    rest = server.stop()
    assert "Traceback" not in rest and TOKENS["Anna"] not in rest


def test_a_stop_that_cuts_off_requests_shows_no_traceback(caplog, monkeypatch):
    import uvicorn

    from segmitos.review.server import _Server

    server = _Server(uvicorn.Config(lambda: None, log_config=None), lambda: None)
    log = logging.getLogger("uvicorn.error")

    def say() -> list[str]:
        caplog.clear()
        log.error("Cancel %s running task(s), timeout graceful shutdown exceeded", 1)
        for error in (asyncio.CancelledError(), ValueError()):
            log.error("Exception in ASGI application", exc_info=error)
        return [record.message.split()[0] for record in caplog.records]

    async def serve(sockets: object = None) -> None:
        assert len(say()) == 3
        server.should_exit = True
        assert say() == ["Exception"]

    monkeypatch.setattr(server, "serve", serve)
    before = list(log.filters)
    server.run()
    assert log.filters == before and len(say()) == 3
