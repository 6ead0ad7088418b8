"""Results to review, and the server that serves them in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tifffile
from PIL import Image

import segmitos
from segmitos.cohort.atomic_folder import OutputFolder
from segmitos.cohort.identity import RESULT_FORMAT, Identity, read_input
from tests.factories.results import detections_at, draw_slide, make_files, scatter, tissue_of

MPP = 1.25
SIDE = 3200
TOKENS = {"Anna": "a" * 32, "Ben": "b" * 32, "Cora": "c" * 32}


def make_result(
    folder: Path,
    slides: Path,
    name: str = "made",
    count: int = 60,
    seed: int = 0,
    faint: int = 20,
    points: np.ndarray | None = None,
) -> Path:
    """A slide with dark cells, and what detect would have left of it; returns the result."""
    points = scatter(count, SIDE, seed) if points is None else points
    points = np.round(points)
    slide = draw_slide(SIDE, MPP, points, seed)
    others = np.round(np.random.default_rng(seed + 99).uniform(0.3 * SIDE, 0.7 * SIDE, (faint, 2)))
    folder.mkdir(parents=True, exist_ok=True)
    slides.mkdir(parents=True, exist_ok=True)
    detections = detections_at(points, MPP, name, seed)
    files = make_files(folder, slide, detections, tissue_of(slide), others)
    image = slides / f"{name}.tif"
    pixels = slide.read(0, 0, slide.width, slide.height)
    with tifffile.TiffWriter(image) as tif:
        for level in range(3):
            step = 2**level
            tif.write(pixels[::step, ::step], tile=(256, 256), photometric="rgb", metadata=None,
                      compression="deflate", subfiletype=1 if level else 0)  # fmt: skip
    return commit_result(folder, image, name, files)


def commit_result(folder: Path, image: Path, name: str, files: dict[str, bytes]) -> Path:
    """Put what detect would have left of an image into a folder of results."""
    summary = json.loads(files["summary.json"])
    source = read_input(image)
    summary["input"] = {"name": image.name, "bytes": source.bytes, "sha256": source.sha256}
    files["summary.json"] = json.dumps(summary).encode()
    identity = Identity(RESULT_FORMAT, source.path, source.sha256, "0" * 64, {})
    return OutputFolder(folder, name).commit(files, identity, source, {})


def event(kind: str, **more: Any) -> dict[str, Any]:
    """An event as the page makes it."""
    return {"id": str(uuid.uuid4()), "at": "2026-01-02T03:04:05.678Z", "kind": kind, **more}


def write_readers(path: Path, names: Sequence[str] = ("Anna", "Ben")) -> Path:
    """A table of readers; the first one adjudicates."""
    rows = [
        f"{name},{TOKENS[name]},{'reader' if number else 'adjudicator'}"
        for number, name in enumerate(names)
    ]
    path.write_text("\n".join(["name,token,role", *rows]) + "\n")
    return path


class Server:
    """`segmitos review` in a process; a context that stops it."""

    def __init__(self, results: Path, *options: str, readers: Sequence[str] = ("Anna", "Ben")):
        self.results = results
        self.table = write_readers(results.parent / "readers.csv", readers)
        self.options = options
        self.port: int | None = 0
        self.clients: list[httpx.Client] = []
        self.process: subprocess.Popen[str] | None = None
        self.expected = ""

    def start(self) -> Server:
        environment = {**os.environ, "PYTHONPATH": str(Path(segmitos.__file__).parents[1])}
        command = [sys.executable, "-m", "segmitos", "review", str(self.results), "--no-browser"]
        command += ["--readers", str(self.table), *self.options]
        command += [] if self.port is None else ["--port", str(self.port)]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        lines = []
        for line in self.process.stdout or ():
            lines.append(line)
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
            if found:
                self.port = int(found[1])
            if line.startswith(f"{list(TOKENS)[self._readers() - 1]}: "):
                return self
        raise AssertionError("".join(lines))

    def _readers(self) -> int:
        return self.table.read_text().count("\n") - 1

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def address(self, reader: str = "Anna") -> str:
        return f"{self.base}/?token={TOKENS[reader]}"

    def client(self, reader: str = "Anna") -> httpx.Client:
        """A client that is let in."""
        client = httpx.Client(base_url=self.base, headers={"Origin": self.base}, timeout=60)
        self.clients.append(client)
        client.get("/", params={"token": TOKENS[reader]}).raise_for_status()
        return client

    def kill(self) -> None:
        """End it as a crash would."""
        self.expected = "Failed to load resource: net::ERR_"
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def stop(self) -> str:
        """Stop it with Ctrl-C; returns what it printed since."""
        for client in self.clients:
            client.close()
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.communicate(timeout=20)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.communicate()[0]

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()


def picture_of(content: bytes) -> np.ndarray:
    """Decode a JPEG."""
    import io

    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
