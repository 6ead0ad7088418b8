"""A model, loaded and ready to run: its file, its networks, and what runs them."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.cascade import Box, CascadeMap
from segmitos.detection.model_file import (
    PROPOSAL,
    SCREENING,
    SUFFIX,
    VERIFIER,
    ModelFile,
    network_entry,
    read_model_file,
)
from segmitos.detection.runtimes import (
    Network,
    choose_device,
    compile_openvino,
    first_line,
    has_openvino,
    in_batches,
    open_onnxruntime,
    runtime_errors,
)
from segmitos.detection.spec import ModelSpec
from segmitos.detection.verify import map_of_candidates, verify_map
from segmitos.errors import ModelError, UsageError
from segmitos.io.arguments import path_of, whole_of

__all__ = [
    "DEFAULT_MODEL",
    "DEVICES",
    "Model",
    "ModelSpec",
    "available_threads",
    "builtin_models",
    "checked_threads",
    "is_builtin",
    "load_model",
]

_BUILTIN = Path(__file__).parent / "models"
DEFAULT_MODEL = _BUILTIN / "lite.segmitos"
DEVICES = ("auto", "cpu", "cuda", "openvino")
MAX_THREADS = 512
# Tiles in the networks at once, where there are threads: each takes memory.
MAX_STREAMS = 4
MAX_OPENVINO_STREAMS = 2
# Patches in a network at once: enough to be worth a call, few enough for a CPU's cache.
BATCH_SIZE = 8
# Least size of a slide that is worth starting a runtime of its own for.
MIN_SLIDE_PX = 50_000_000

Start = Callable[[bytes, str, int, bool], Network]
"""Graph, what to call it, axes of its output, whether it sees patches -> what runs it."""

Predict = Callable[[NDArray[np.uint8], Box | None, tuple[int, int]], NDArray[np.float32]]


class Model:
    """A model file, loaded and ready to run.

    Attributes:
        path: of the file.
        spec: its specification.
        sha256: of its bytes.
        device: that runs it: `cpu`, `cuda` or `openvino`.
        streams: as many threads may call `predict` at once, to use all of the CPU.
    """

    def __init__(
        self,
        path: Path,
        file: ModelFile,
        device: str,
        predict: Predict,
        streams: int = 1,
        slide_runtime: Callable[[], Model] | None = None,
    ) -> None:
        self.path = path
        self.spec = file.spec
        self.sha256 = file.sha256
        self.device = device
        self.streams = streams
        self._predict = predict
        self._start_slide_runtime = slide_runtime
        self._slide_runtime: Future[Model] | None = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Model cannot be pickled; load it in each process, by Model.load")

    @classmethod
    def load(
        cls, path: str | Path | None = None, device: str = "auto", threads: int | None = None
    ) -> Model:
        """Load a model.

        Args:
            path: of a `.segmitos` file, or `lite`, the built-in model; None loads that.
            device: `auto` (CUDA where ONNX Runtime has it, else the CPU), `cpu`, `cuda`,
                `openvino`.
            threads: of the CPU; None takes those that this process may use.

        Raises:
            ModelError: for a file that is no model, or a device that is not there.
            UsageError: for a device or number of threads that cannot be.
        """
        threads = checked_threads(threads) or available_threads()
        if device not in DEVICES:
            raise UsageError(f"device {device!r} is not one of {', '.join(DEVICES)}")
        found = find_model(path)
        file = read_model_file(found)
        if choose_device(device) == "openvino":
            return cls._on_openvino(found, file, threads)
        graphs = _OnnxGraphs(file, found)
        predict, used = graphs.start(choose_device(device), threads)
        if device == "cuda" and used != "cuda":
            raise ModelError("device cuda: ONNX Runtime could not start its CUDA provider here")
        slide_runtime: Callable[[], Model] | None = None
        if device == "auto" and used == "cpu" and file.spec.cascade is None and has_openvino():
            slide_runtime = partial(cls._on_openvino, found, file, threads)
        elif used == "cpu" and threads > 1:
            slide_runtime = partial(cls._in_streams, found, file, graphs, threads)
        return cls(found, file, used, predict, 1, slide_runtime)

    @classmethod
    def _in_streams(cls, path: Path, file: ModelFile, graphs: _OnnxGraphs, threads: int) -> Model:
        """Return the model for several tiles at once, each with its share of the threads.

        Threads that work at one tile wait for the slowest of them after each layer, and one of
        them is always held up by what reads the next tiles.
        """
        streams = min(MAX_STREAMS, threads)
        graphs = graphs.copy()  # What the streams start goes with them.
        free: queue.SimpleQueue[Predict] = queue.SimpleQueue()
        for stream in range(streams):
            own_threads = threads // streams + (stream < threads % streams)
            free.put(graphs.start("cpu", own_threads)[0])

        def predict(
            images: NDArray[np.uint8], output_box: Box | None, origin: tuple[int, int]
        ) -> NDArray[np.float32]:
            one = free.get()
            try:
                return one(images, output_box, origin)
            finally:
                free.put(one)

        return cls(path, file, "cpu", predict, streams)

    @classmethod
    def _on_openvino(cls, path: Path, file: ModelFile, threads: int) -> Model:
        streams = min(MAX_OPENVINO_STREAMS, threads)

        def start(graph: bytes, name: str, rank: int, patches: bool) -> Network:
            network = compile_openvino(graph, f"{path}: {name}", threads, streams)
            return in_batches(network, BATCH_SIZE, 1) if patches else network

        return cls(path, file, "openvino", _assemble(file, path, start), streams)

    def runtime_for(self, pixels: int) -> Model:
        """Return the model that is done sooner with so many pixels, start included.

        Whole slides go to OpenVINO where the device is `auto`, it is installed and there is no
        cascade: it is faster there, but takes a second to start, in which a field is done. Else
        ONNX Runtime runs several tiles of a slide at once. The choice follows from the slide
        alone, so that its result does not depend on the other inputs.
        """
        started = self.prewarm(pixels)
        return self if started is None else started.result()

    def prewarm(self, pixels: int) -> Future[Model] | None:
        """Start in the background what `runtime_for` would wait for; None if nothing."""
        if self._start_slide_runtime is None or pixels < MIN_SLIDE_PX:
            return None
        if self._slide_runtime is None:
            pool = ThreadPoolExecutor(1)
            self._slide_runtime = pool.submit(self._start_slide_runtime)
            pool.shutdown(wait=False)
        return self._slide_runtime

    def release(self) -> None:
        """Release the multi-stream sessions. Not done for OpenVINO, which is slow to start."""
        started = self._slide_runtime
        if started is not None and started.result().device == self.device:
            self._slide_runtime = None

    def predict(
        self,
        images: NDArray[np.uint8],
        output_box: Box | None = None,
        origin: tuple[int, int] = (0, 0),
    ) -> NDArray[np.float32]:
        """Return probabilities (n, h / stride, w / stride) for images (n, h, w, 3) uint8 RGB.

        Args:
            images: at the model's scale and staining, sides multiples of 32.
            output_box: pixels (top, left, bottom, right) of the image outside of which the map
                will not be used, which spares a cascade some work.
            origin: (x, y) of the image on its slide, multiples of 32 px.

        Raises:
            ModelError: where the runtime fails, or the map is not of the size it should be.
        """
        try:
            return self._predict(np.ascontiguousarray(images), output_box, origin)
        except runtime_errors() as error:
            count, height, width = images.shape[:3]
            raise ModelError(
                f"model {self.path} failed on {count} x {height} x {width} px: {first_line(error)}"
            ) from error


class _OnnxGraphs:
    """The graphs of a model file in ONNX Runtime.

    A session of one thread runs in the thread of its caller, and in several at once: there is one
    of each graph, whoever calls it.
    """

    def __init__(self, file: ModelFile, path: Path) -> None:
        self._file = file
        self._path = path
        self._of_one_thread: dict[str, Network] = {}

    def copy(self) -> _OnnxGraphs:
        """Return the graphs with the sessions there are; what is started later is its own."""
        copied = _OnnxGraphs(self._file, self._path)
        copied._of_one_thread = dict(self._of_one_thread)
        return copied

    def start(self, device: str, threads: int) -> tuple[Predict, str]:
        """Return what gives the maps of images on a device, and the device that it runs on."""
        used = device

        def start(graph: bytes, name: str, rank: int, patches: bool) -> Network:
            nonlocal used
            spread = patches and device == "cpu"
            own_threads = 1 if spread else threads
            shared = device == "cpu" and own_threads == 1
            if shared and name in self._of_one_thread:
                network = self._of_one_thread[name]
            else:
                where = f"{self._path}: {name}"
                network, used = open_onnxruntime(graph, where, device, own_threads, rank)
            if shared:
                self._of_one_thread[name] = network
            return in_batches(network, BATCH_SIZE, threads) if spread else network

        at_once = threads if device == "cpu" else 1
        return _assemble(self._file, self._path, start, at_once), used


@dataclass(frozen=True)
class _Started:
    """The graphs of a model file, started."""

    path: Path
    spec: ModelSpec
    networks: list[Network]
    proposal: Network | None
    screening: Network | None
    verifier: Network | None

    def predict(
        self, images: NDArray[np.uint8], output_box: Box | None, origin: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Return the maps of images, verified where there is a verifier; see `Model.predict`."""
        spec, verifier = self.spec, self.verifier
        maps = [self._map(image, output_box, origin) for image in images]
        expected = (images.shape[1] // spec.stride, images.shape[2] // spec.stride)
        for map_ in maps:
            if map_.shape != expected:
                raise ModelError(
                    f"model {self.path} gave a map of {map_.shape} where its stride of "
                    f"{spec.stride} calls for {expected}; export it again"
                )
        if spec.verifier is not None and verifier is not None:
            rule, stride, mpp = spec.verifier, spec.stride, spec.map_mpp
            maps = [
                verify_map(image, map_, verifier, rule, stride, mpp, output_box)
                for image, map_ in zip(images, maps, strict=True)
            ]
        return np.stack(maps)

    def _map(
        self, image: NDArray[np.uint8], output_box: Box | None, origin: tuple[int, int]
    ) -> NDArray[np.float32]:
        spec = self.spec
        if spec.cascade is None or self.proposal is None:
            return self._mean_map(image)
        cascade = CascadeMap(
            image, self.proposal, self.networks, spec.cascade, spec.stride, origin, self.screening
        )
        if output_box is None:
            return cascade.fill()
        if spec.verifier is None:
            return cascade.fill(np.array([output_box]))
        return map_of_candidates(cascade, spec.verifier, spec.stride, spec.map_mpp, output_box)

    def _mean_map(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        total = self.networks[0](image[None])[0]
        for network in self.networks[1:]:
            total = total + network(image[None])[0]
        mean: NDArray[np.float32] = total / np.float32(len(self.networks))
        return mean


def _assemble(file: ModelFile, path: Path, start: Start, at_once: int = 1) -> Predict:
    """Start the graphs of a file, some at once; return what gives the maps of images."""
    patches = file.spec.cascade is not None
    networks = [network_entry(k) for k in range(len(file.networks))]
    kinds = dict.fromkeys(networks, (3, patches))
    kinds |= {PROPOSAL: (3, False), SCREENING: (1, True), VERIFIER: (1, True)}
    # The largest takes longest, so it begins.
    graphs = dict(sorted(file.graphs.items(), key=lambda item: -len(item[1])))
    with ThreadPoolExecutor(at_once) as pool:
        starting = {
            name: pool.submit(start, graph, name, *kinds[name]) for name, graph in graphs.items()
        }
    started = {name: future.result() for name, future in starting.items()}
    return _Started(
        path=path,
        spec=file.spec,
        networks=[started[name] for name in networks],
        proposal=started.get(PROPOSAL),
        screening=started.get(SCREENING),
        verifier=started.get(VERIFIER),
    ).predict


@lru_cache(maxsize=2)
def load_model(path: str | None, device: str, threads: int | None) -> Model:
    """Load a model once a process; see `Model.load`."""
    return Model.load(path, device, threads)


def find_model(path: str | Path | None) -> Path:
    """Return the file of a model: a path as it is, the name of a built-in one as its file."""
    if path is None:
        return DEFAULT_MODEL
    path = path_of(path, "model")
    if is_builtin(path):
        return _BUILTIN / f"{path}{SUFFIX}"
    if not path.suffix and not path.exists():
        raise ModelError(
            f"cannot read model {path}: no such file; built-in models: "
            f"{', '.join(builtin_models())}"
        )
    return path


def builtin_models() -> list[str]:
    """Return the names of the built-in models."""
    return sorted(file.stem for file in _BUILTIN.glob(f"*{SUFFIX}"))


def is_builtin(path: str | Path) -> bool:
    """Tell whether a path is the bare name of a built-in model, and not that of a file."""
    path = Path(path)
    bare = path.name == str(path) and not path.exists()
    return bare and str(path) in builtin_models()


def available_threads() -> int:
    """Return how many CPU threads this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def checked_threads(threads: int | None) -> int | None:
    """Return a number of threads; None stands for those that there are.

    Raises:
        UsageError: where there cannot be so many.
    """
    threads = None if threads is None else whole_of(threads, "threads")
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"{threads} threads: from 1 to {MAX_THREADS} can be used")
    return threads
