"""The model file: a network and everything needed to run it, in one .onnx.

The graph takes uint8 [N, H, W, 3] RGB named `image`, H and W multiples of 32, and gives float32
[N, H / stride, W / stride] probabilities of mitosis named `probability`. The metadata entry
`segmitos` holds the specification as JSON; a file without a valid one is refused. A graph with a
first look may take int64 [4] named `written`, with a default: pixels (top, left, bottom, right)
outside of which the map need not be right.
"""

from __future__ import annotations

import hashlib
import os
import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.openvino_runtime import compile_openvino, require_openvino
from segmitos.detection.spec import METADATA_KEY, WRITTEN, ModelSpec, Written
from segmitos.errors import ModelError, UsageError

__all__ = [
    "DEFAULT_MODEL",
    "DEVICES",
    "METADATA_KEY",
    "WHOLE_MODEL",
    "WRITTEN",
    "Model",
    "ModelSpec",
    "available_threads",
    "is_builtin",
    "load_model",
]

_BUILTIN = Path(__file__).parent / "models"
DEFAULT_MODEL = _BUILTIN / "lite.onnx"
# The first network of the default model in floats, without its first look.
WHOLE_MODEL = _BUILTIN / "lite-whole.onnx"
MOST_THREADS = 512
DEVICES = ("auto", "cpu", "cuda", "openvino")
# Tiles in ONNX Runtime at once, where there are threads: each takes memory.
MOST_STREAMS = 4
# From here on the start of what runs slides pays.
_LARGE_PX = 50_000_000

Run = Callable[[NDArray[np.uint8], Written | None], NDArray[np.float32]]


class Model:
    """A model file, loaded and ready to run.

    Attributes:
        path: of the file; spec: its specification; sha256: of its bytes; device: that runs it;
        streams: as many threads may call `predict` at once, to use all of the CPU.
    """

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        sha256: str,
        device: str,
        run: Run,
        faster: Callable[[], Model] | None = None,
        streams: int = 1,
    ) -> None:
        self.path = path
        self.spec = spec
        self.sha256 = sha256
        self.device = device
        self.streams = streams
        self._run = run
        self._faster = faster
        self._large: Future[Model] | None = None

    @classmethod
    def load(
        cls, path: Path | None = None, device: str = "auto", threads: int | None = None
    ) -> Model:
        """Load a model file.

        Args:
            path: of the .onnx file, or the name of a shipped one (`lite`, `lite-float`,
                `lite-whole`); None loads the default model.
            device: `auto` (CUDA where ONNX Runtime has it, else the CPU), `cpu`, `cuda`,
                `openvino`.
            threads: of the CPU; None takes those that this process may use.

        Raises:
            ModelError: for a file that is no model, or a forced device that is not there;
                UsageError: for a device or number of threads that cannot be.
        """
        if threads is not None and not 1 <= threads <= MOST_THREADS:
            raise UsageError(f"{threads} threads: from 1 to {MOST_THREADS} can be used")
        path = DEFAULT_MODEL if path is None else Path(path)
        if is_builtin(path):
            path = _BUILTIN / f"{path}.onnx"
        if device not in DEVICES:
            raise UsageError(f"device {device!r} is not one of {', '.join(DEVICES)}")
        try:
            content = path.read_bytes()
        except OSError as error:
            shipped = ", ".join(sorted(file.stem for file in _BUILTIN.glob("*.onnx")))
            named = "" if path.suffix else f"; models that come with SegMitos: {shipped}"
            raise ModelError(f"cannot read model {path}: {error.strerror}{named}") from error
        threads = threads or available_threads()
        session, used = _session(path, content, device, threads)
        spec = ModelSpec.from_json(_metadata(session, path), f"model {path}")
        _check_signature(session, path)
        run, streams = _ort_runner(session), 1
        if used == "openvino":
            run, streams = _openvino(path, content, threads)
        faster: Callable[[], Model] | None = None
        sha256 = hashlib.sha256(content).hexdigest()
        if device == "auto" and used == "cpu" and spec.first_look is None and _has_openvino():
            faster = partial(cls.load, path, "openvino", threads)
        elif used == "cpu" and threads > 1:
            faster = partial(cls._in_streams, path, spec, sha256, content, threads)
        return cls(path, spec, sha256, used, run, faster, streams)

    @classmethod
    def _in_streams(
        cls, path: Path, spec: ModelSpec, sha256: str, content: bytes, threads: int
    ) -> Model:
        """Return the model for several tiles at once, each with its share of the threads.

        Threads that work at one tile wait for the slowest of them after each layer, and one of
        them is always held up by what reads the next tiles.
        """
        streams = min(MOST_STREAMS, threads)
        free: queue.SimpleQueue[Run] = queue.SimpleQueue()
        for stream in range(streams):
            share = threads // streams + (stream < threads % streams)
            free.put(_ort_runner(_session(path, content, "cpu", share)[0]))

        def run(images: NDArray[np.uint8], written: Written | None) -> NDArray[np.float32]:
            runner = free.get()
            try:
                return runner(images, written)
            finally:
                free.put(runner)

        return cls(path, spec, sha256, "cpu", run, None, streams)

    def for_work(self, pixels: int) -> Model:
        """Return the model that is done sooner with so many pixels, start included.

        Where the device is `auto` and OpenVINO is installed, it runs whole slides: it is faster
        there, but takes a second to start, in which a field is done. With a first look, or without
        OpenVINO, ONNX Runtime runs several tiles of a slide at once. The choice follows from the
        slide alone, so that it is the same in any company.
        """
        ready = self.get_ready(pixels)
        return self if ready is None else ready.result()

    def get_ready(self, pixels: int) -> Future[Model] | None:
        """Start what `for_work` would wait for, while there is other work; None where nothing."""
        if self._faster is None or pixels < _LARGE_PX:
            return None
        if self._large is None:
            pool = ThreadPoolExecutor(1)
            self._large = pool.submit(self._faster)
            pool.shutdown(wait=False)
        return self._large

    def rest(self) -> None:
        """Free the memory of what runs slides, where it starts again in no time."""
        large = self._large
        if large is not None and large.result().device == self.device:
            self._large = None

    def predict(
        self, images: NDArray[np.uint8], written: Written | None = None
    ) -> NDArray[np.float32]:
        """Return probabilities (n, H / stride, W / stride) for images (n, H, W, 3) uint8 RGB.

        H and W are multiples of 32. `written` are pixels (top, left, bottom, right) outside of
        which the map may be wrong, which spares a model with a first look some work.

        Raises:
            ModelError: where the runtime fails, or the map is not of the size it should be.
        """
        count, height, width = images.shape[:3]
        try:
            result = self._run(np.ascontiguousarray(images), written)
        except _runtime_errors() as error:
            reason = _first_line(error)
            raise ModelError(
                f"model {self.path} failed on {count} x {height} x {width} px: {reason}"
            ) from error
        expected = (count, height // self.spec.stride, width // self.spec.stride)
        if result.shape != expected:
            raise ModelError(
                f"model {self.path} gave a map of {result.shape} where its stride of "
                f"{self.spec.stride} calls for {expected}; export it again"
            )
        return result


@lru_cache(maxsize=2)
def load_model(path: str | None, device: str, threads: int | None) -> Model:
    """Load a model once a process; see `Model.load`."""
    return Model.load(None if path is None else Path(path), device, threads)


def is_builtin(path: Path) -> bool:
    """Tell whether a path is the bare name of a shipped model, and not that of a file."""
    bare = path.name == str(path) and not path.exists()
    return bare and (_BUILTIN / f"{path}.onnx").exists()


def _has_openvino() -> bool:
    return find_spec("openvino") is not None


def available_threads() -> int:
    """CPU threads that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _session(path: Path, content: bytes, device: str, threads: int) -> tuple[Any, str]:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    available = onnxruntime.get_available_providers()
    if device == "cuda" and "CUDAExecutionProvider" not in available:
        raise ModelError(
            "device cuda: this ONNX Runtime has no CUDA provider; on a machine with an NVIDIA GPU "
            "pip uninstall onnxruntime, pip install onnxruntime-gpu; or choose --device cpu"
        )
    if device == "openvino":
        require_openvino()
    wants_cuda = device == "cuda" or (device == "auto" and "CUDAExecutionProvider" in available)
    providers = ["CUDAExecutionProvider"] if wants_cuda else []
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Planned memory is faster on sizes seen before, but takes half as much again.
    options.enable_mem_pattern = False
    if device == "openvino":
        # Only the metadata is read through ONNX Runtime then; spare its graph work.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            content, options, providers=[*providers, "CPUExecutionProvider"]
        )
    except _runtime_errors() as error:
        raise ModelError(_refusal(path, error)) from error
    used = session.get_providers()[0]
    if device == "cuda" and used != "CUDAExecutionProvider":
        raise ModelError("device cuda: ONNX Runtime could not start its CUDA provider here")
    if device == "openvino":
        return session, "openvino"
    return session, "cuda" if used == "CUDAExecutionProvider" else "cpu"


def _refusal(path: Path, error: Exception) -> str:
    return (
        f"{path} is not a model file that SegMitos can run (an .onnx made by export): "
        f"{_first_line(error)}"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


@lru_cache
def _runtime_errors() -> tuple[type[Exception], ...]:
    """What the runtimes raise; ONNX Runtime's own exceptions share no base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = tuple(
        kind
        for kind in vars(state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    )
    return (RuntimeError, ValueError, *own)


def _metadata(session: Any, path: Path) -> str:
    metadata = session.get_modelmeta().custom_metadata_map
    if METADATA_KEY not in metadata:
        raise ModelError(
            f"model {path} has no {METADATA_KEY!r} metadata: it was not made by "
            "`segmitos export`, so its scale and thresholds are unknown"
        )
    text: str = metadata[METADATA_KEY]
    return text


def _check_signature(session: Any, path: Path) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    right = (
        [entry.name for entry in inputs] == ["image"]
        and inputs[0].type == "tensor(uint8)"
        and len(inputs[0].shape) == 4
        and [entry.name for entry in outputs] == ["probability"]
        and outputs[0].type == "tensor(float)"
    )
    if not right:
        raise ModelError(
            f"model {path} does not take one uint8 'image' [N, H, W, 3] and give one float "
            "'probability' [N, h, w]"
        )


def _ort_runner(session: Any) -> Run:
    can_choose = WRITTEN in [entry.name for entry in session.get_overridable_initializers()]

    def run(images: NDArray[np.uint8], written: Written | None) -> NDArray[np.float32]:
        given = {"image": images}
        if written is not None and can_choose:
            given[WRITTEN] = np.asarray(written, np.int64)
        result: NDArray[np.float32] = session.run(None, given)[0]
        return result

    return run


def _openvino(path: Path, content: bytes, threads: int) -> tuple[Run, int]:
    try:
        return compile_openvino(content, threads)
    except RuntimeError as error:
        raise ModelError(_refusal(path, error)) from error
