"""The model file `NAME.segmitos`: one zip of `model.json` and plain ONNX graphs.

    model.json        the specification (`spec.ModelSpec`), and under "graphs" the SHA-256 of each
    proposal.onnx     the proposal network, where the model has a cascade
    screening.onnx    the network that screens its proposals, where there is one
    network-0.onnx    the networks whose maps are averaged: network-1.onnx, ...
    verifier.onnx     the verifying network, where the model has one

A network takes uint8 (n, h, w, 3) RGB named `image`, sides multiples of 32, and gives float32
(n, h / stride, w / stride) named `probability`. The proposal network takes the same image and
gives a coarser map; the screening network and the verifier give one probability per image, (n,).

A file is assembled with `write_model_file(path, spec, graphs)`; the same content gives the same
bytes. Entries are stored, not compressed, so that a file is never larger than it looks.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from segmitos.detection.graph_check import check_graph
from segmitos.detection.spec import ModelSpec, spec_from_dict
from segmitos.errors import ModelError
from segmitos.io.files import json_text, write_bytes
from segmitos.io.text import reason_of

SUFFIX = ".segmitos"
SPEC_ENTRY = "model.json"
PROPOSAL, SCREENING, VERIFIER = "proposal.onnx", "screening.onnx", "verifier.onnx"
MAX_FILE_BYTES = 2_000_000_000
MAX_SPEC_BYTES = 1_000_000
MAX_NETWORKS = 16
_OF_MAPS = ("mpp", "stride", "stain", "smoothing_sigma_um", "cascade", "verifier")
_NETWORK = re.compile(r"network-(0|[1-9][0-9]?)\.onnx")


@dataclass(frozen=True)
class ModelFile:
    """The content of a model file, checked.

    Attributes:
        spec: the specification.
        networks: graphs whose maps are averaged.
        proposal: graph of the proposal network, if there is a cascade.
        screening: graph of the network that screens its proposals, if there is one.
        verifier: graph of the verifying network, if there is one.
        sha256: of the whole file.
    """

    spec: ModelSpec
    networks: tuple[bytes, ...]
    proposal: bytes | None
    screening: bytes | None
    verifier: bytes | None
    sha256: str

    @property
    def graphs(self) -> dict[str, bytes]:
        """All graphs by the names of their entries, as `write_model_file` takes them."""
        graphs = {network_entry(index): graph for index, graph in enumerate(self.networks)}
        more = {PROPOSAL: self.proposal, SCREENING: self.screening, VERIFIER: self.verifier}
        return graphs | {name: graph for name, graph in more.items() if graph is not None}

    @property
    def about(self) -> dict[str, str]:
        """Which model it is, for a record: name, SHA-256 of the file, and of its maps."""
        maps = maps_sha256(self.spec, self.graphs)
        return {"name": self.spec.name, "sha256": self.sha256, "maps_sha256": maps}


def network_entry(index: int) -> str:
    """Return the name of a network's graph in the file."""
    return f"network-{index}.onnx"


def write_model_file(path: Path, spec: ModelSpec, graphs: Mapping[str, bytes]) -> None:
    """Write a model file whole or not at all; the same content gives the same bytes.

    Args:
        path: ends in `.segmitos`.
        spec: of the model.
        graphs: ONNX files by the name of their entry.

    Raises:
        ModelError: for a name or content that would not be read back; OutputError.
    """
    content = model_file_bytes(spec, graphs)
    parse_model_file(content, str(path))
    write_bytes(path, content)


def model_file_bytes(spec: ModelSpec, graphs: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a model file."""
    about: dict[str, Any] = msgspec.to_builtins(spec)
    about["graphs"] = {name: hashlib.sha256(graphs[name]).hexdigest() for name in sorted(graphs)}
    text = json_text(about)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in ((SPEC_ENTRY, text.encode()), *sorted(graphs.items())):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def maps_sha256(spec: ModelSpec, graphs: Mapping[str, bytes]) -> str:
    """Return a SHA-256 of what a model's maps follow from: the same whatever its thresholds are."""
    about = msgspec.to_builtins(spec)
    content = {key: about[key] for key in _OF_MAPS}
    content["graphs"] = {name: hashlib.sha256(graph).hexdigest() for name, graph in graphs.items()}
    return hashlib.sha256(json_text(content).encode()).hexdigest()


def is_model_file(path: Path) -> bool:
    """Tell whether a file is a model file, whole or not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return SPEC_ENTRY in archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def read_model_file(path: Path) -> ModelFile:
    """Read and check a model file.

    Raises:
        ModelError: one line, for a file that is missing, damaged, or not a model.
    """
    try:
        if path.is_dir():
            raise ModelError(f"cannot read model {path}: it is a folder; name a file {SUFFIX}")
        if not path.is_file():
            raise ModelError(f"cannot read model {path}: no such file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes: no model file")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise ModelError(f"cannot read model {path}: {reason}") from error
    return parse_model_file(content, str(path))


def parse_model_file(content: bytes, where: str) -> ModelFile:
    """Check the bytes of a model file; `where` names it in errors. Raises ModelError."""
    entries = _entries(content, where)
    if SPEC_ENTRY not in entries:
        raise ModelError(f"{where} is not a SegMitos model file: it holds no {SPEC_ENTRY}")
    if len(entries[SPEC_ENTRY]) > MAX_SPEC_BYTES:
        raise ModelError(f"{where}: {SPEC_ENTRY} has more than {MAX_SPEC_BYTES:,} bytes")
    try:
        about = msgspec.json.decode(entries[SPEC_ENTRY])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{where}: {SPEC_ENTRY} is not JSON: {error}") from error
    hashes = about.pop("graphs", None) if isinstance(about, dict) else None
    spec = spec_from_dict(about, f"{where}: {SPEC_ENTRY}")
    graphs = {name: graph for name, graph in entries.items() if name != SPEC_ENTRY}
    _check_hashes(hashes, graphs, where)
    proposal, verifier = graphs.pop(PROPOSAL, None), graphs.pop(VERIFIER, None)
    screening = graphs.pop(SCREENING, None)
    if (spec.cascade is None) != (proposal is None):
        raise ModelError(f"{where}: {PROPOSAL} and the key 'cascade' need each other")
    if bool(spec.cascade and spec.cascade.screening_patch_px) != (screening is not None):
        raise ModelError(f"{where}: {SCREENING} and 'screening_patch_px' need each other")
    if (spec.verifier is None) != (verifier is None):
        raise ModelError(f"{where}: {VERIFIER} and the key 'verifier' need each other")
    names = [network_entry(index) for index in range(len(graphs))]
    if not names or set(names) != set(graphs) or len(names) > MAX_NETWORKS:
        raise ModelError(f"{where} must hold {network_entry(0)} and further ones in order")
    networks = tuple(graphs[name] for name in names)
    for name, graph in entries.items():
        if name != SPEC_ENTRY:
            check_graph(graph, f"{where}: {name}")
    sha256 = hashlib.sha256(content).hexdigest()
    return ModelFile(spec, networks, proposal, screening, verifier, sha256)


def _entries(content: bytes, where: str) -> dict[str, bytes]:
    """Return the entries of the zip by name: stored, whole, and of names that are known."""
    entries: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            listed = archive.infolist()
            if sum(entry.file_size for entry in listed) > len(content):
                raise ModelError(f"{where}: its entries claim to be larger than the file")
            for entry in listed:
                name = entry.filename
                if name in entries:
                    raise ModelError(f"{where}: two entries are called {name!r}")
                known = (SPEC_ENTRY, PROPOSAL, SCREENING, VERIFIER)
                if not (name in known or _NETWORK.fullmatch(name)):
                    raise ModelError(
                        f"{where}: entry {name[:80]!r} does not belong in a model file"
                    )
                if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                    raise ModelError(f"{where}: entry {name!r} is compressed or encrypted")
                entries[name] = archive.read(entry)
    except (zipfile.BadZipFile, EOFError, ValueError, OSError, NotImplementedError) as error:
        raise ModelError(
            f"{where} is not a SegMitos model file ({SUFFIX}), or is damaged"
        ) from error
    return entries


def _check_hashes(hashes: Any, graphs: Mapping[str, bytes], where: str) -> None:
    if not isinstance(hashes, dict) or set(hashes) != set(graphs):
        raise ModelError(f"{where}: 'graphs' in {SPEC_ENTRY} does not list the file's graphs")
    for name, graph in graphs.items():
        if hashes[name] != hashlib.sha256(graph).hexdigest():
            raise ModelError(f"{where}: {name} was changed or is damaged: its SHA-256 differs")
