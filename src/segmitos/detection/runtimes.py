"""ONNX Runtime and OpenVINO: a graph in, a function that runs it out.

The only place that imports either. Nothing leaves the machine: both libraries' telemetry is
switched off before they are imported.
"""

from __future__ import annotations

import os
import queue
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import ModelError

_OPENVINO_TELEMETRY = "openvino_telemetry"

Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Images (n, h, w, 3) uint8 -> probabilities; may be called from several threads."""


@lru_cache
def import_onnxruntime() -> Any:
    """Return the package, its telemetry switched off."""
    # Read once, when the library is loaded: without it, ONNX Runtime 1.32 looks up its maker's
    # server and queues events in ~/.cache.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime


def import_quantization() -> tuple[Any, Callable[..., None]]:
    """Return ONNX Runtime's quantization tools, and what prepares a graph for them."""
    import_onnxruntime()
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    return quantization, quant_pre_process


def has_openvino() -> bool:
    """Tell whether OpenVINO is installed."""
    return find_spec("openvino") is not None


@lru_cache
def import_openvino() -> Any:
    """Return the package, its telemetry switched off.

    Raises:
        ModelError: where it is not installed.
    """
    # On import, its conversion tools send an event, unless they do not find their telemetry.
    telemetry = sys.modules.get(_OPENVINO_TELEMETRY)
    sys.modules[_OPENVINO_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise ModelError(
            "device openvino: the package is not installed; in the source folder, "
            "pip install '.[openvino]', or choose --device cpu"
        ) from error
    finally:
        del sys.modules[_OPENVINO_TELEMETRY]
        if telemetry is not None:
            sys.modules[_OPENVINO_TELEMETRY] = telemetry
    return openvino


def choose_device(device: str) -> str:
    """Return the device that `auto` stands for here: `cuda` where there is one, else `cpu`.

    Raises:
        ModelError: where a device that was asked for is not there.
    """
    if device == "openvino":
        import_openvino()
        return device
    if device == "cpu":
        return device
    has_cuda = "CUDAExecutionProvider" in import_onnxruntime().get_available_providers()
    if device == "cuda" and not has_cuda:
        raise ModelError(
            "device cuda: this ONNX Runtime has no CUDA provider; on a machine with an NVIDIA GPU "
            "pip uninstall onnxruntime, pip install onnxruntime-gpu; or choose --device cpu"
        )
    return "cuda" if has_cuda else "cpu"


def open_onnxruntime(
    graph: bytes, where: str, device: str, threads: int, output_rank: int = 3
) -> tuple[Network, str]:
    """Start a graph in ONNX Runtime.

    Args:
        graph: an ONNX file.
        where: what to call it in an error.
        device: `cpu`, or `cuda` with `cpu` where that cannot start.
        threads: of the CPU.
        output_rank: axes of the output.

    Returns:
        The function that runs it, and the device it runs on.

    Raises:
        ModelError: for a graph that cannot be run, or takes or gives something else.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Planned memory is faster on sizes seen before, but takes half as much again.
    options.enable_mem_pattern = False
    providers = ["CUDAExecutionProvider"] if device == "cuda" else []
    try:
        session = onnxruntime.InferenceSession(
            graph, options, providers=[*providers, "CPUExecutionProvider"]
        )
    except runtime_errors() as error:
        raise ModelError(f"{where} cannot be run: {first_line(error)}") from error
    _check_signature(session, where, output_rank)

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = session.run(None, {"image": images})[0]
        return result

    on_gpu = session.get_providers()[0] == "CUDAExecutionProvider"
    return run, "cuda" if on_gpu else "cpu"


def in_batches(network: Network, size: int, threads: int) -> Network:
    """Return a network whose images go through it in batches, several at once.

    Patches are small, so that threads which share one patch wait for each other after each layer.

    Args:
        network: to call; it uses one thread.
        size: images of a batch at most.
        threads: calls at once; 1 calls it in the thread of the caller.
    """
    run_all = map if threads == 1 else ThreadPoolExecutor(threads).map

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        step = min(size, -(-len(images) // threads))
        batches = [images[begin : begin + step] for begin in range(0, len(images), step)]
        return np.concatenate(list(run_all(network, batches)))

    return run


def compile_openvino(
    graph: bytes, where: str, threads: int, streams: int, precision: str = "auto"
) -> Network:
    """Compile a graph for the CPU with OpenVINO.

    Args:
        graph: an ONNX file.
        where: what to call it in an error.
        threads: of the CPU, shared among the streams.
        streams: calls that may run at once.
        precision: `auto` (bfloat16 where the CPU multiplies it) or `float32`.

    Raises:
        ModelError: for a graph that OpenVINO cannot take.
    """
    openvino = import_openvino()
    core = openvino.Core()
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        # Each process would pin its threads to the same first cores.
        "ENABLE_CPU_PINNING": False,
    }
    if precision == "float32":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    try:
        model = core.read_model(graph)
        _unshare_constants(model, openvino)
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise ModelError(f"{where} cannot be run by OpenVINO: {first_line(error)}") from error
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(streams):
        requests.put(compiled.create_infer_request())

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        request = requests.get()
        try:
            request.infer({"image": images}, share_inputs=True)
            return np.array(request.get_output_tensor(0).data, dtype=np.float32)
        finally:
            requests.put(request)

    return run


def first_line(error: Exception) -> str:
    """Return the first line of an error, shortened."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


@lru_cache
def runtime_errors() -> tuple[type[Exception], ...]:
    """What the runtimes raise; ONNX Runtime's own exceptions share no base but Exception."""
    import_onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = tuple(
        kind
        for kind in vars(state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    )
    return (RuntimeError, ValueError, *own)


def _check_signature(session: Any, where: str, output_rank: int) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    right = (
        [entry.name for entry in inputs] == ["image"]
        and inputs[0].type == "tensor(uint8)"
        and len(inputs[0].shape) == 4
        and [entry.name for entry in outputs] == ["probability"]
        and outputs[0].type == "tensor(float)"
        and len(outputs[0].shape) == output_rank
    )
    if not right:
        raise ModelError(
            f"{where} does not take one uint8 'image' (n, h, w, 3) and give one float "
            f"'probability' of {output_rank} axes"
        )


def _unshare_constants(model: Any, openvino: Any) -> None:
    """Give each layer constants of its own.

    Layers that share weights and biases, as those of the two halves of a `lite` image, would not
    have their biases and activations fused into them, at a fifth of the speed.
    """
    for node in list(model.get_ordered_ops()):
        if node.get_type_name() != "Constant":
            continue
        uses = list(node.output(0).get_target_inputs())
        uses.sort(key=lambda use: (use.get_node().get_friendly_name(), use.get_index()))
        for use in uses[1:]:
            own = openvino.op.Constant(node.data)
            use.replace_source_output(own.output(0))
