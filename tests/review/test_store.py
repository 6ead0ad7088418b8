"""Events on the disk: appended once, in order, and there after any kill. SQLite and PostgreSQL."""

from __future__ import annotations

import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from segmitos.errors import InputError
from segmitos.review.events import Event
from segmitos.review.store import ReviewKey, Store
from tests.factories.reviews import Server, event


@pytest.fixture
def opened():
    """Opens stores and closes them after the test."""
    stores = []

    def make(url: str) -> Store:
        stores.append(Store(url))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


KEY = ReviewKey("s" * 64, "m" * 64)


def make(number: int) -> Event:
    return Event(id=str(uuid.uuid4()), at="2026-01-02T03:04:05Z", kind="comment", text=str(number))


def test_events_come_back_in_order_and_twice_sent_are_there_once(database, opened):
    store = opened(database)
    events = [make(number) for number in range(20)]
    assert store.append(KEY, "slide", "Anna", events) == 20
    assert store.append(KEY, "slide", "Anna", events[5:10]) == 0
    assert store.events(KEY) == {"Anna": events}
    assert store.events(KEY, "Ben") == {}
    assert store.owners([events[0].id, "none"]) == {events[0].id: (KEY, "Anna")}
    store.close()
    assert opened(database).events(KEY) == {"Anna": events}


def test_reviews_under_other_models_are_kept_apart(database, opened):
    store = opened(database)
    other = ReviewKey(KEY.slide_hash, "n" * 64)
    event = make(1)
    store.append(other, "slide", "Anna", [event])
    assert store.events(KEY) == {}
    assert store.other_models(KEY, "Anna") == {other.model_hash: [event]}


def test_many_threads_append_and_nothing_is_lost(database, opened):
    store = opened(database)
    batches = [[make(number) for _ in range(5)] for number in range(40)]
    gate = threading.Barrier(8)

    def append(batch):
        if batch in batches[:8]:
            gate.wait()
        return store.append(KEY, "slide", f"reader {batch[0].text}", batch)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(append, batches)) == 200
    assert sum(map(len, store.events(KEY).values())) == 200


@pytest.mark.parametrize("url", ["mysql://x@y/z", "nonsense", "sqlite:////no/such/folder/x.sqlite"])
def test_a_database_that_cannot_be_opened_is_refused_in_one_line(url):
    with pytest.raises(InputError) as error:
        Store(url)
    assert "\n" not in str(error.value)


def test_a_password_is_never_shown():
    with pytest.raises(InputError) as error:
        Store("postgresql+psycopg://reader:secret@127.0.0.1:1/none")
    assert "secret" not in str(error.value)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_or_doubled_by_kills_amid_posts(results, database, opened):
    """A client posts without pause while the server is killed; what was not acknowledged is sent
    again, as the page does. SEGMITOS_KILLS says how often, 50 times unless told."""
    kills = int(os.environ.get("SEGMITOS_KILLS", "50"))
    server = Server(results, "--database", database, readers=["Anna"])
    acknowledged: list[str] = []
    pending: list[dict] = []
    with server:
        client = server.client()
        model = client.get("/api/slides/made").json()["model"]
        for number in range(kills):
            # A moment after the first post that was acknowledged, so amid the next ones.
            killer = threading.Timer(0.001 + 0.003 * (number % 11), server.kill)
            begun = False
            while True:
                pending = pending or [
                    event("comment", text=f"{len(acknowledged)}") for _ in range(3)
                ]
                try:
                    answer = client.post(
                        "/api/slides/made/events", json={"model": model, "events": pending}
                    )
                except Exception as error:
                    assert type(error).__module__.startswith("httpx"), error
                    break
                if answer.status_code == 429:
                    continue
                assert answer.status_code == 200, answer.text
                acknowledged += [one["id"] for one in pending]
                pending = []
                if not begun:
                    begun = True
                    killer.start()
            killer.join()
            server.start()
        if pending:
            answer = client.post(
                "/api/slides/made/events", json={"model": model, "events": pending}
            )
            assert answer.status_code == 200
            acknowledged += [one["id"] for one in pending]
    key = next(iter(opened(database).all_events()))
    stored = [one.id for one in opened(database).events(key)["Anna"]]
    assert len(acknowledged) > kills
    assert stored == acknowledged
