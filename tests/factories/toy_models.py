"""A tiny model file made without training: dark cells are mitoses, with a known reach."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from segmitos.detection.model_file import (
    PROPOSAL,
    SCREENING,
    VERIFIER,
    network_entry,
    write_model_file,
)
from segmitos.detection.postprocess import Thresholds
from segmitos.detection.spec import (
    CascadeSettings,
    ModelSpec,
    VerifierSettings,
    cascade_context,
)
from segmitos.detection.stain import Stain

SPEC = ModelSpec(
    name="toy",
    mpp=0.25,
    stride=4,
    context_px=32,
    smoothing_sigma_um=1.0,
    thresholds=Thresholds(0.5, 4.0, 0.6),
    stain=None,
    datasets=("synthetic",),
    license="none",
    intended_use="tests",
    validation={"precision": 0.8, "recall": 0.7, "f_score": 0.75, "data": "synthetic"},
)


def toy_graph(sharpness: float = 0.15) -> bytes:
    """Probability = sigmoid(sharpness * (100 - brightness)), averaged over 4 px and a 3 x 3 box.

    A little of what lies 32 px above, below, left and right is mixed in: all of the context that is
    stated has an effect.
    """
    box = np.zeros((1, 1, 17, 17), np.float32)
    box[0, 0, 7:10, 7:10] = 0.98 / 9
    box[0, 0, [0, 8, 8, 16], [8, 0, 16, 8]] = 0.005
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["gray"], axes=[3], keepdims=1),
        helper.make_node("Transpose", ["gray"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["cells", "box"], ["mixed"], pads=[8, 8, 8, 8]),
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
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_toy(
    path: Path, stain: Stain | None = None, sharpness: float = 0.15, **changes: object
) -> Path:
    """Write the toy model file with changes to its specification."""
    spec = msgspec.structs.replace(SPEC, stain=stain, **changes)
    write_model_file(path, spec, {network_entry(0): toy_graph(sharpness)})
    return path


def proposal_graph(step: int = 8) -> bytes:
    """Probability that `step` x `step` px are dark: one convolution over bytes, then a sigmoid."""
    weight = np.full((1, 3, step, step), -1 / (3 * step**2), np.float32)
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["float"], to=TensorProto.FLOAT),
        helper.make_node(
            "Conv",
            ["float", "weight"],
            ["dark"],
            kernel_shape=[step, step],
            strides=[step, step],
            pads=[0] * 4,
        ),
        helper.make_node("Add", ["dark", "level"], ["shifted"]),
        helper.make_node("Mul", ["shifted", "sharpness"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["sure"]),
        helper.make_node("Squeeze", ["sure", "axis"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "proposal",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", "h", "w"])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array(150, np.float32), "level"),
            numpy_helper.from_array(np.array(0.05, np.float32), "sharpness"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def write_toy_cascade(path: Path, screened: bool = False) -> Path:
    """Write a toy model of two networks behind a proposal network, screened or not."""
    cascade = CascadeSettings(
        proposal_network="toy-proposal",
        proposal_mpp=0.5,
        proposal_stride_px=16,
        proposal_threshold=0.1,
        ensemble_threshold=0.3,
        block_px=32,
        patch_px=160,
        margin_px=36,
        screening_patch_px=16 if screened else 0,
        screening_threshold=0.3 if screened else 0.0,
    )
    spec = msgspec.structs.replace(SPEC, cascade=cascade, context_px=cascade_context(cascade, 0))
    graphs = {
        network_entry(0): toy_graph(0.1),
        network_entry(1): toy_graph(0.15),
        PROPOSAL: proposal_graph(16),
    }
    if screened:
        graphs[SCREENING] = verifier_graph(1)
    write_model_file(path, spec, graphs)
    return path


def verifier_graph(count: int = 2, half_precision: bool = False) -> bytes:
    """The mean of `count` verifiers of 16 px patches: each one layer on the middle's mean color."""
    number = np.float16 if half_precision else np.float32
    nodes = [
        helper.make_node("Slice", ["image", "from", "to", "axes"], ["middle"]),
        helper.make_node("Cast", ["middle"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["color"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["color", "scale"], ["features"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([4, 4], np.int64), "from"),
        numpy_helper.from_array(np.array([12, 12], np.int64), "to"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
        numpy_helper.from_array(np.array([1 / 255], np.float32), "scale"),
    ]
    for index in range(count):
        weight = np.array([[-4.0 - index, -2.0, 1.0]], number)
        constants.append(numpy_helper.from_array(weight, f"stored{index}"))
        constants.append(numpy_helper.from_array(np.array([2.5], np.float32), f"bias{index}"))
        nodes += [
            helper.make_node("Cast", [f"stored{index}"], [f"weight{index}"], to=TensorProto.FLOAT),
            helper.make_node(
                "Gemm", ["features", f"weight{index}", f"bias{index}"], [f"logit{index}"], transB=1
            ),
        ]
    nodes += [
        helper.make_node("Concat", [f"logit{index}" for index in range(count)], ["all"], axis=1),
        helper.make_node("ReduceMean", ["all"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Sigmoid", ["mean"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "verifier",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 16, 16, 3])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_toy_verified(path: Path, half_precision: bool = False) -> Path:
    """Write a toy model whose candidates two verifiers judge."""
    settings = VerifierSettings(
        patch_px=16,
        smoothing_sigma_um=1.0,
        candidate_threshold=0.2,
        map_weight=0.8,
        verifier_weight=1.5,
        intercept=0.1,
    )
    spec = msgspec.structs.replace(
        SPEC, smoothing_sigma_um=0.0, thresholds=Thresholds(0.1, 0.0, 0.5), verifier=settings
    )
    graphs = {network_entry(0): toy_graph(), VERIFIER: verifier_graph(2, half_precision)}
    write_model_file(path, spec, graphs)
    return path
