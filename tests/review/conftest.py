"""A real PostgreSQL on a socket of its own, and results that tests may change."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.factories.reviews import make_result


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder `results` of two slides beside `slides`; copied before it is changed."""
    folder = tmp_path_factory.mktemp("made")
    make_result(folder / "results", folder / "slides", "made", 60, 0)
    make_result(folder / "results", folder / "slides", "<img onerror=alert(1)>", 30, 1)
    return folder


@pytest.fixture
def results(made, tmp_path) -> Path:
    """Results of one's own; the slides are shared."""
    shutil.copytree(made / "results", tmp_path / "results")
    return tmp_path / "results"


def _postgres_bin() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """Gives the address of a new, empty database of a server that only this test can reach."""
    programs = _postgres_bin()
    if programs is None:
        pytest.skip("no PostgreSQL (apt-get install postgresql)")
    pytest.importorskip("psycopg")
    # PostgreSQL refuses to run as root; its Debian package brings a user for it.
    user: list[str] = []
    if os.getuid() == 0:
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        user = [
            "setpriv",
            f"--reuid={account.pw_uid}",
            f"--regid={account.pw_gid}",
            "--clear-groups",
        ]
    folder = Path(tempfile.mkdtemp(prefix="segmitos-pg-"))
    if user:
        os.chown(folder, account.pw_uid, account.pw_gid)
    data, log = folder / "data", folder / "log"

    def run(*command: str) -> None:
        subprocess.run([*user, *command], check=True, cwd=folder, capture_output=True, timeout=120)

    run(str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "reviewer", "-E", "UTF8")
    options = f"-k {folder} -c listen_addresses='' -c fsync=on"
    run(str(programs / "pg_ctl"), "-D", str(data), "-l", str(log), "-o", options, "-w", "start")
    number = iter(range(1000))

    def new() -> str:
        name = f"reviews{next(number)}"
        run(str(programs / "createdb"), "-h", str(folder), "-U", "reviewer", name)
        return f"postgresql+psycopg://reviewer@/{name}?host={folder}"

    try:
        yield new
    finally:
        run(str(programs / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, results) -> str:
    """The address of an empty database, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{results / 'reviews.sqlite'}"
    new: Callable[[], str] = request.getfixturevalue("postgres")
    return new()
