"""A Dask cluster gives the bytes of a serial run, also when a worker is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmitos.cohort.run import run
from segmitos.cohort.settings import JobSettings
from segmitos.errors import UsageError
from tests.factories.synthetic_fields import draw_field
from tests.factories.toy_models import write_toy

SCRIPT = """
import json, os, signal, sys, threading, time
from pathlib import Path

from distributed import LocalCluster

from segmitos.cohort.run import run
from segmitos.cohort.settings import JobSettings

def main():
    images, out, model = sys.argv[1:]
    settings = JobSettings(model=model, device="cpu", threads=1, mpp=0.25)
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL"
    ) as cluster:
        def kill():
            time.sleep(0.05)
            os.kill(cluster.workers[0].pid, signal.SIGKILL)

        killed = []
        def on_outcome(outcome):
            if not killed:
                killed.append(1)
                threading.Thread(target=kill).start()

        outcomes = run([images], Path(out), settings, cluster=cluster.scheduler_address,
                       on_outcome=on_outcome)
    print(json.dumps([[o.name, o.status, o.message] for o in outcomes]))

if __name__ == "__main__":
    main()
"""


WAITING = """
import sys
from pathlib import Path

from distributed import LocalCluster

from segmitos.cohort.run import run
from segmitos.cohort.settings import JobSettings

def main():
    images, out, model = sys.argv[1:]
    settings = JobSettings(model=model, device="cpu", threads=1, mpp=0.25)
    with LocalCluster(
        n_workers=0, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL"
    ) as cluster:
        def on_note(text):
            print(text)
            cluster.scale(1)

        outcomes = run([images], Path(out), settings, cluster=cluster.scheduler_address,
                       on_note=on_note)
    print([outcome.status for outcome in outcomes])

if __name__ == "__main__":
    main()
"""


def contents(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "command.py")
    }


@pytest.mark.slow
def test_a_lost_worker_changes_no_byte(tmp_path):
    pytest.importorskip("distributed")
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for name in "abcdef":
        Image.fromarray(draw_field(rng, size=300)[0]).save(images / f"{name}.png")
    (images / "g.png").write_bytes(b"no image")
    model = str(write_toy(tmp_path / "toy.segmitos"))
    settings = JobSettings(model=model, device="cpu", threads=1, mpp=0.25)
    run([images], tmp_path / "serial", settings)
    script = tmp_path / "command.py"
    script.write_text(SCRIPT)
    source = str(Path(sys.modules["segmitos"].__file__ or "").parents[1])
    done = subprocess.run(
        [sys.executable, str(script), str(images), str(tmp_path / "cluster"), model],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads(done.stdout.strip().splitlines()[-1])
    assert [name for name, _, _ in outcomes] == list("abcdefg")
    assert {status for _, status, _ in outcomes[:6]} <= {"done", "skipped"}, outcomes
    assert outcomes[6][1] == "failed" and "g.png" in outcomes[6][2]
    assert contents(tmp_path / "cluster") == contents(tmp_path / "serial")
    shutil.rmtree(tmp_path / "cluster")


@pytest.mark.slow
def test_a_cluster_without_workers_is_waited_for_aloud(tmp_path):
    pytest.importorskip("distributed")
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(draw_field(rng, size=96)[0]).save(images / f"{name}.png")
    model = str(write_toy(tmp_path / "toy.segmitos"))
    script = tmp_path / "command.py"
    script.write_text(WAITING)
    source = str(Path(sys.modules["segmitos"].__file__ or "").parents[1])
    done = subprocess.run(
        [sys.executable, str(script), str(images), str(tmp_path / "out"), model],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said, *_, statuses = done.stdout.strip().splitlines()
    assert "has no workers; waiting for one" in said and "dask worker tcp://" in said
    assert statuses == "['done', 'done']"


def test_a_scheduler_that_is_not_there_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    import distributed

    def nobody(address, timeout):
        raise OSError(f"Timed out trying to connect to {address} after {timeout}")

    monkeypatch.setattr(distributed, "Client", nobody)
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    model = str(write_toy(tmp_path / "toy.segmitos"))
    settings = JobSettings(model=model, device="cpu", threads=1, mpp=0.25)
    said = r"no Dask scheduler answers at tcp://127\.0\.0\.1:1: .*; start one with 'dask scheduler'"
    with pytest.raises(UsageError, match=said):
        run([tmp_path / "a.png"], tmp_path / "out", settings, cluster="tcp://127.0.0.1:1")


def test_without_dask_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    settings = JobSettings(model=str(write_toy(tmp_path / "toy.segmitos")), device="cpu", threads=1)
    with pytest.raises(UsageError, match=r"pip install '\.\[cluster\]'"):
        run([tmp_path / "a.png"], tmp_path / "out", settings, cluster="tcp://127.0.0.1:1")
