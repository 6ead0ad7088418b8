"""The model file: a network and everything needed to run it, in one .onnx.

The graph takes uint8 [N, H, W, 3] RGB named `image`, H and W multiples of 32, and gives float32
[N, H / stride, W / stride] probabilities of mitosis named `probability`. The metadata entry
`segmitos` holds the specification as JSON; a file without a valid one is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.detect.colour import Stain
from segmitos.detect.mitoses import Thresholds
from segmitos.errors import ModelError, UsageError

METADATA_KEY = "segmitos"
FORMAT_VERSION = 1
MULTIPLE = 32
DEFAULT_MODEL = Path(__file__).parent / "models" / "lite.onnx"
DEVICES = ("auto", "cpu", "cuda", "openvino")


@dataclass(frozen=True)
class ModelSpec:
    """What a model file says of itself beside its graph."""

    name: str
    mpp: float
    """Scale that images are read at, um per pixel."""
    stride: int
    """Image pixels per map cell."""
    context_px: int
    """Pixels beyond which nothing sways a cell's probability; half the receptive field."""
    smoothing_sigma_um: float
    thresholds: Thresholds
    colour: Stain | None
    """Staining that every slide is matched to; None leaves colours as they are."""
    labels: dict[str, Any] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    training_commit: str = ""
    licence: str = ""
    intended_use: str = ""
    description: str = ""
    validation: dict[str, Any] = field(default_factory=dict)
    """Precision, recall, F-score and on what they were measured."""
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Return the specification as JSON, keys sorted."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str = "model") -> ModelSpec:
        """Read a specification back.

        Raises:
            ModelError: naming the key that is missing, unknown or wrong.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ModelError(f"{where}: its metadata is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise ModelError(f"{where}: its metadata is no JSON object")
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{where}: model file format {version!r}; this version of SegMitos reads "
                f"{FORMAT_VERSION}: install the SegMitos that wrote it, or export it again"
            )
        known = {entry.name for entry in dataclasses.fields(cls)}
        unknown, missing = set(content) - known, known - set(content)
        if unknown or missing:
            what = f"unknown {sorted(unknown)}" if unknown else f"missing {sorted(missing)}"
            raise ModelError(f"{where}: keys of its metadata are off: {what}")
        try:
            content["thresholds"] = Thresholds(**content["thresholds"])
            if content["colour"] is not None:
                stain = content["colour"]
                content["colour"] = Stain(tuple(stain["mean"]), tuple(stain["std"]))
            content["datasets"] = tuple(content["datasets"])
            spec = cls(**content)
        except (TypeError, KeyError, UsageError) as error:
            raise ModelError(f"{where}: its metadata is off: {error}") from error
        spec.check(where)
        return spec

    def check(self, where: str) -> None:
        """Raise ModelError, naming `where`, for numbers that cannot be."""
        if not (isinstance(self.mpp, float) and 0.01 <= self.mpp <= 200):
            raise ModelError(f"{where}: mpp {self.mpp!r} is no scale in um per pixel")
        if self.stride not in (1, 2, 4, 8, 16, 32):
            raise ModelError(f"{where}: stride {self.stride!r} is not 1, 2, 4, 8, 16 or 32")
        if not (isinstance(self.context_px, int) and 0 <= self.context_px <= 4096):
            raise ModelError(f"{where}: context_px {self.context_px!r} is not from 0 to 4096")
        if not 0 <= self.smoothing_sigma_um < 100:
            raise ModelError(f"{where}: smoothing_sigma_um {self.smoothing_sigma_um!r} is off")


class Model:
    """A model file, loaded and ready to run.

    Attributes:
        path: of the file; spec: its specification; sha256: of its bytes; device: that runs it.
    """

    def __init__(self, path: Path, spec: ModelSpec, sha256: str, device: str, run: Any) -> None:
        self.path = path
        self.spec = spec
        self.sha256 = sha256
        self.device = device
        self._run = run

    @classmethod
    def load(
        cls, path: Path | None = None, device: str = "auto", threads: int | None = None
    ) -> Model:
        """Load a model file.

        Args:
            path: of the .onnx file; None loads the default model.
            device: `auto` (CUDA where ONNX Runtime has it, else the CPU), `cpu`, `cuda`,
                `openvino`.
            threads: of the CPU; None takes those that this process may use.

        Raises:
            ModelError: for a file that is no model, or a forced device that is not there.
        """
        path = DEFAULT_MODEL if path is None else Path(path)
        if device not in DEVICES:
            raise UsageError(f"device {device!r} is not one of {', '.join(DEVICES)}")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"cannot read model {path}: {error.strerror}") from error
        threads = threads or available_threads()
        session, used = _session(path, content, device, threads)
        spec = ModelSpec.from_json(_metadata(session, path), f"model {path}")
        _check_signature(session, path)
        run = _openvino(path, content, threads) if used == "openvino" else _ort_runner(session)
        return cls(path, spec, hashlib.sha256(content).hexdigest(), used, run)

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities (n, H / stride, W / stride) for images (n, H, W, 3) uint8 RGB.

        H and W are multiples of 32.
        """
        result: NDArray[np.float32] = self._run(np.ascontiguousarray(images))
        return result


def available_threads() -> int:
    """CPU threads that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_spec(path: Path) -> ModelSpec:
    """Read the specification of a model file. Raises ModelError as `Model.load` does."""
    return Model.load(path, device="cpu", threads=1).spec


def _session(path: Path, content: bytes, device: str, threads: int) -> tuple[Any, str]:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    available = onnxruntime.get_available_providers()
    if device == "cuda" and "CUDAExecutionProvider" not in available:
        raise ModelError(
            "device cuda: this ONNX Runtime has no CUDA provider; pip install 'segmitos[gpu]' "
            "on a machine with an NVIDIA GPU, or choose --device cpu"
        )
    if device == "openvino":
        _require_openvino()
    wants_cuda = device == "cuda" or (device == "auto" and "CUDAExecutionProvider" in available)
    providers = ["CUDAExecutionProvider"] if wants_cuda else []
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if device == "openvino":
        # Only the metadata is read through ONNX Runtime then; spare its graph work.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            content, options, providers=[*providers, "CPUExecutionProvider"]
        )
    except (RuntimeError, ValueError, *onnxruntime_errors()) as error:
        raise ModelError(_refusal(path, error)) from error
    used = session.get_providers()[0]
    if device == "cuda" and used != "CUDAExecutionProvider":
        raise ModelError("device cuda: ONNX Runtime could not start its CUDA provider here")
    if device == "openvino":
        return session, "openvino"
    return session, "cuda" if used == "CUDAExecutionProvider" else "cpu"


def _refusal(path: Path, error: Exception) -> str:
    first = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return f"{path} is not a model file that SegMitos can run (an .onnx made by export): {first}"


@lru_cache
def onnxruntime_errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's own exceptions; they share no base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(
        kind
        for kind in vars(state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    )


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


def _ort_runner(session: Any) -> Any:
    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = session.run(None, {"image": images})[0]
        return result

    return run


def _require_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ModelError(
            "device openvino: the package is not installed; pip install 'segmitos[openvino]', "
            "or choose --device cpu"
        ) from error
    return openvino


def _openvino(path: Path, content: bytes, threads: int) -> Any:
    openvino = _require_openvino()
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    try:
        compiled = core.compile_model(core.read_model(content), "CPU", settings)
    except RuntimeError as error:
        raise ModelError(_refusal(path, error)) from error
    request = compiled.create_infer_request()

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        request.infer({"image": images}, share_inputs=True)
        return np.array(request.get_output_tensor(0).data, dtype=np.float32)

    return run


def padded_size(pixels: int) -> int:
    """Round a side up to what the networks take."""
    return max(MULTIPLE, math.ceil(pixels / MULTIPLE) * MULTIPLE)
