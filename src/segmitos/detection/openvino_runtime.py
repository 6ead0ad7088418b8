"""OpenVINO as the runtime."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.spec import Written, holds_integers
from segmitos.errors import ModelError

# Tiles in the network at once: two streams of half the threads are a fifth faster than one.
STREAMS = 2


def require_openvino() -> Any:
    """Return the package.

    Raises:
        ModelError: where it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise ModelError(
            "device openvino: the package is not installed; pip install '.[openvino]', "
            "or choose --device cpu"
        ) from error
    return openvino


def compile_openvino(
    content: bytes, threads: int, precision: str = "auto"
) -> tuple[Callable[[NDArray[np.uint8], Written | None], NDArray[np.float32]], int]:
    """Compile a model file for the CPU.

    Args:
        content: of the .onnx file.
        threads: of the CPU, shared among the streams; a model with integers in loops has one.
        precision: `auto` (bfloat16 where the CPU multiplies it) or `float32`.

    Returns:
        The function that runs it, from as many threads at once as the number says.

    Raises:
        RuntimeError: for a file that OpenVINO cannot take.
    """
    openvino = require_openvino()
    core = openvino.Core()
    graph = core.read_model(content)
    streams = 1 if _integers_in_loops(graph, content) else min(STREAMS, threads)
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        # Each process would pin its threads to the same first cores.
        "ENABLE_CPU_PINNING": False,
    }
    if precision == "float32":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    _one_use_each(graph, openvino)
    compiled = core.compile_model(graph, "CPU", settings)
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(streams):
        requests.put(compiled.create_infer_request())

    def run(images: NDArray[np.uint8], written: Written | None) -> NDArray[np.float32]:
        # OpenVINO takes an input with a default for a constant: all of the map is right.
        request = requests.get()
        try:
            request.infer({"image": images}, share_inputs=True)
            return np.array(request.get_output_tensor(0).data, dtype=np.float32)
        finally:
            requests.put(request)

    return run, streams


def _integers_in_loops(graph: Any, content: bytes) -> bool:
    """Tell whether quantized layers lie in loops, which OpenVINO 2026.4 gets wrong in two streams.

    The maps are then off by up to all of a probability; in one stream they are right.
    """
    loops = any(node.get_type_name() == "Loop" for node in graph.get_ops())
    return loops and holds_integers(content)


def _one_use_each(graph: Any, openvino: Any) -> None:
    """Give each layer constants of its own.

    Layers that share weights and biases, as those of the two halves of a `lite` image, would not
    have their biases and activations fused into them, at a fifth of the speed.
    """
    for node in list(graph.get_ordered_ops()):
        if node.get_type_name() != "Constant":
            continue
        uses = list(node.output(0).get_target_inputs())
        uses.sort(key=lambda use: (use.get_node().get_friendly_name(), use.get_index()))
        for use in uses[1:]:
            own = openvino.op.Constant(node.data)
            use.replace_source_output(own.output(0))
