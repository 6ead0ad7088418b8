"""Where events are kept: one append-only table, in SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from segmitos.errors import InputError, OutputError
from segmitos.report.signed import DECISIONS
from segmitos.review.events import Event, event_json, read_event

_metadata = sa.MetaData()
_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
EVENTS = sa.Table(
    "segmitos_events",
    _metadata,
    sa.Column("seq", _number, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("slide_hash", sa.String(64), nullable=False),
    sa.Column("model_hash", sa.String(128), nullable=False),
    sa.Column("slide", sa.Text, nullable=False),
    sa.Column("reader", sa.String(64), nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Index("segmitos_events_review", "slide_hash", "model_hash", "reader", "seq"),
)


class ReviewKey(NamedTuple):
    """What a review belongs to: a slide's content and a model's."""

    slide_hash: str
    model_hash: str


class Store:
    """The table of events. Safe to use from several threads and several servers."""

    def __init__(self, url: str) -> None:
        """Open a database, and make the table where there is none.

        Raises:
            InputError: where it cannot be opened.
        """
        try:
            kind = sa.make_url(url).get_backend_name()
            if kind not in ("sqlite", "postgresql"):
                raise InputError(
                    f"--database: reviews cannot be kept in {kind}; give sqlite:///FILE or "
                    "postgresql+psycopg://USER@HOST/NAME"
                )
            self._engine = sa.create_engine(url, **_settings(url))
        except (SQLAlchemyError, ImportError) as error:
            raise _refused(url, error) from error
        try:
            if self._engine.dialect.name == "sqlite":
                sa.event.listen(self._engine, "connect", _prepare_sqlite)
            _metadata.create_all(self._engine)
        except SQLAlchemyError as error:
            self._engine.dispose()
            raise _refused(url, error) from error

    @classmethod
    def in_folder(cls, results: Path) -> Store:
        """Open `RESULTS/reviews.sqlite`."""
        return cls(f"sqlite:///{results.absolute() / DECISIONS}")

    def append(self, key: ReviewKey, slide: str, reader: str, events: Sequence[Event]) -> int:
        """Store events in one transaction; those whose id is there already change nothing.

        Returns:
            How many were new. They are on the disk when this returns.

        Raises:
            OutputError: where the database refuses.
        """
        rows = [
            {
                "id": event.id,
                "slide_hash": key.slide_hash,
                "model_hash": key.model_hash,
                "slide": slide,
                "reader": reader,
                "event": event_json(event),
            }
            for event in events
        ]
        insert = sqlite.insert if self._engine.dialect.name == "sqlite" else postgresql.insert
        statement: Any = insert(EVENTS).on_conflict_do_nothing(index_elements=["id"])
        statement = statement.returning(EVENTS.c.id)
        try:
            with self._engine.begin() as connection:
                # One by one, so that their order is that of the list.
                return sum(len(connection.execute(statement, row).all()) for row in rows)
        except SQLAlchemyError as error:
            raise _failed(error) from error

    def events(
        self, key: ReviewKey, reader: str | None = None, slide: str | None = None
    ) -> dict[str, list[Event]]:
        """Return the events of a review in their order, by reader; only those of a slide's name."""
        wanted = (EVENTS.c.slide_hash == key.slide_hash, EVENTS.c.model_hash == key.model_hash)
        query = sa.select(EVENTS.c.reader, EVENTS.c.event).where(*wanted).order_by(EVENTS.c.seq)
        if reader is not None:
            query = query.where(EVENTS.c.reader == reader)
        if slide is not None:
            query = query.where(EVENTS.c.slide == slide)
        return _by_reader(self._rows(query))

    def all_events(self) -> dict[ReviewKey, dict[str, list[Event]]]:
        """Return all events in their order, by review and reader."""
        query = sa.select(
            EVENTS.c.slide_hash, EVENTS.c.model_hash, EVENTS.c.reader, EVENTS.c.event
        ).order_by(EVENTS.c.seq)
        found: dict[ReviewKey, dict[str, list[Event]]] = {}
        for slide_hash, model_hash, reader, text in self._rows(query):
            readers = found.setdefault(ReviewKey(slide_hash, model_hash), {})
            readers.setdefault(reader, []).append(read_event(text))
        return found

    def other_models(
        self, key: ReviewKey, reader: str, except_for: tuple[ReviewKey, str] | None = None
    ) -> dict[str, list[Event]]:
        """Return a reader's events on this slide under other models, by the model's hash.

        `except_for` leaves out those of a review and a slide's name.
        """
        query = (
            sa.select(EVENTS.c.model_hash, EVENTS.c.event)
            .where(EVENTS.c.slide_hash == key.slide_hash)
            .where(EVENTS.c.model_hash != key.model_hash)
            .where(EVENTS.c.reader == reader)
            .order_by(EVENTS.c.seq)
        )
        if except_for is not None:
            same = (
                EVENTS.c.model_hash == except_for[0].model_hash,
                EVENTS.c.slide == except_for[1],
            )
            query = query.where(sa.not_(sa.and_(*same)))
        return _by_reader(self._rows(query))

    def owners(self, ids: Sequence[str]) -> dict[str, tuple[ReviewKey, str]]:
        """Return review and reader of those of these event ids that are stored."""
        query = sa.select(
            EVENTS.c.id, EVENTS.c.slide_hash, EVENTS.c.model_hash, EVENTS.c.reader
        ).where(EVENTS.c.id.in_(ids))
        return {row[0]: (ReviewKey(row[1], row[2]), row[3]) for row in self._rows(query)}

    def _rows(self, query: sa.Select[Any]) -> Sequence[Any]:
        try:
            with self._engine.connect() as connection:
                return connection.execute(query).all()
        except SQLAlchemyError as error:
            raise _failed(error) from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _settings(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": 30}}
    # A server may have dropped a connection over night: each is tried before use.
    return {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}


def _prepare_sqlite(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # What was acknowledged outlives a power cut too.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _by_reader(rows: Sequence[Any]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for reader, text in rows:
        found.setdefault(reader, []).append(read_event(text))
    return found


def _failed(error: SQLAlchemyError) -> OutputError:
    return OutputError(f"the database of reviews: {_cause(error)}")


def _refused(url: str, error: Exception) -> InputError:
    try:
        shown = sa.make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        shown = "URL"
    return InputError(f"database {shown}: {_cause(error)}")


def _cause(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
