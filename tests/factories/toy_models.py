"""A tiny model file made without training: dark cells are mitoses, with a known reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from segmitos.detection.model import METADATA_KEY, ModelSpec
from segmitos.detection.postprocess import Thresholds
from segmitos.detection.stain import Stain

SPEC = ModelSpec(
    name="toy",
    mpp=0.25,
    stride=4,
    context_px=32,
    smoothing_sigma_um=1.0,
    thresholds=Thresholds(0.5, 4.0, 0.6),
    color=None,
    datasets=("synthetic",),
    license="none",
    intended_use="tests",
    validation={"precision": 0.8, "recall": 0.7, "f_score": 0.75, "data": "synthetic"},
)


def toy_graph(metadata: dict[str, str], sharpness: float = 0.15) -> bytes:
    """Probability = sigmoid(sharpness * (100 - brightness)), averaged over 4 px and a 3 x 3 box."""
    box = np.full((1, 1, 3, 3), 1 / 9, np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["grey"], axes=[3], keepdims=1),
        helper.make_node("Transpose", ["grey"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["cells", "box"], ["mixed"], pads=[1, 1, 1, 1]),
        helper.make_node("Sub", ["level", "mixed"], ["dark"]),
        helper.make_node("Mul", ["dark", "sharpness"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["sure"]),
        helper.make_node("Squeeze", ["sure", "axis"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", "h", "w"])],
        [
            numpy_helper.from_array(box, "box"),
            numpy_helper.from_array(np.array(100, np.float32), "level"),
            numpy_helper.from_array(np.array(sharpness, np.float32), "sharpness"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_toy(path: Path, color: Stain | None = None, **changes: object) -> Path:
    """Write the toy model file with changes to its specification."""
    import dataclasses

    spec = dataclasses.replace(SPEC, color=color, **changes)
    path.write_bytes(toy_graph({METADATA_KEY: spec.to_json()}))
    return path
