"""Checkpoint -> model file: one `.segmitos` with everything needed to run it inside.

The graph takes raw bytes, uint8 [N, H, W, 3] RGB, and gives probabilities, float32 [N, H/s, W/s]:
whoever runs the file can get neither the normalization nor the channel order wrong.
"""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from segmitos.detection.model_file import network_entry, write_model_file
from segmitos.detection.postprocess import Thresholds, tuned_thresholds
from segmitos.detection.runtimes import import_onnxruntime
from segmitos.detection.spec import ModelSpec
from segmitos.detection.stain import Stain
from segmitos.errors import ModelError
from segmitos.evaluation.tuning import check_tuned_for
from segmitos.training.checkpoint import PROVENANCE, TrainingState, load_checkpoint
from segmitos.training.networks.lite import LiteNetwork
from segmitos.training.networks.registry import build_network, mitosis_logit
from segmitos.training.recipe import Recipe

# The exported graph and the network may differ by no more than this in probability.
TOLERANCE = 2e-3
# For models that were not tuned: typical values of those that were.
UNTUNED = Thresholds(threshold=0.5, min_area_um2=8.0, min_score=0.7)


class _BytesToProbability(nn.Module):
    """The network between raw bytes and probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_BHWC: Tensor) -> Tensor:
        logits = self.network(image_BHWC.permute(0, 3, 1, 2).float())
        return torch.sigmoid(mitosis_logit(logits))


def export_network(
    network: nn.Module, spec: ModelSpec, path: Path, tuned: Mapping[str, Any] | None = None
) -> float:
    """Write a network and its specification as a model file, and check that both agree.

    Args:
        network: trained; its `stride` must be that of the specification.
        spec: everything else that detection needs.
        path: of the `.segmitos` file; written only if the checks hold.
        tuned: content of the thresholds.json whose thresholds the specification has.

    Returns:
        The largest difference in probability between file and network on noise and flat images.

    Raises:
        ModelError: if the exported graph differs by more than `TOLERANCE`.
        UsageError: if the thresholds are of another model.
    """
    network = copy.deepcopy(network).cpu().float().eval()
    content = network_to_onnx(network)
    difference = _largest_difference(_BytesToProbability(network).eval(), content)
    if not difference <= TOLERANCE:
        raise ModelError(
            f"the exported graph differs from the network by {difference:.2g} in probability, "
            f"more than {TOLERANCE}; {path} was not written"
        )
    graphs = {network_entry(0): content}
    check_tuned_for(tuned or {}, spec, graphs)
    write_model_file(path, spec, graphs)
    return difference


def trained_network(run: Path) -> tuple[nn.Module, Recipe, TrainingState]:
    """Return the network of a training run with its averaged weights, its recipe and its state.

    Raises:
        ModelError: for a run without a whole checkpoint.
    """
    groups, state = load_checkpoint(run)
    recipe = Recipe.from_dict(state.recipe, str(run))
    network = build_network(recipe.network, pretrained=False)
    network.load_state_dict(groups["ema"])
    return network, recipe, state


def training_stain(recipe: Recipe, state: TrainingState) -> Stain | None:
    """Return the staining that the model of a run matches slides to, as its validation did.

    The common one of the training slides; None where the recipe leaves stainings as they are, as
    the paper's do: the network has learned from colors as they come.
    """
    if state.stain is None or not recipe.augmentation.changes_stain:
        return None
    return Stain(**state.stain)


def export_run(
    run: Path,
    path: Path,
    tuned: dict[str, Any] | None = None,
    name: str = "model",
    license: str = "unstated",
    intended_use: str = "research use only; not for diagnosis",
    description: str = "",
    stain: Stain | None = None,
) -> float:
    """Write the averaged weights of a training run as a model file.

    Args:
        run: folder that `train` left.
        path: of the `.segmitos` file to write.
        tuned: content of the thresholds.json of `evaluate --tune`; None takes `UNTUNED`.
        name: for the specification, as all that follows.
        license: of the weights.
        intended_use: what the model is for, and what not.
        description: one line.
        stain: staining to match every slide to; None takes that of `training_stain`.

    Returns:
        The largest difference found between file and network.

    Raises:
        ModelError: for a run without a whole checkpoint.
        DataError: for thresholds that are off.
        UsageError: for thresholds that are of another model.
    """
    network, recipe, state = trained_network(run)
    try:
        origin = json.loads((run / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {run / PROVENANCE}: {error}") from error
    thresholds = tuned_thresholds(tuned) if tuned else UNTUNED
    spec = ModelSpec(
        name=name,
        mpp=recipe.mpp,
        stride=cast(int, network.stride),
        context_px=cast(int, network.context_px),
        smoothing_sigma_um=recipe.smoothing_sigma_um,
        thresholds=thresholds,
        stain=training_stain(recipe, state) if stain is None else stain,
        labels=recipe.to_dict()["labels"],
        datasets=tuple(origin["training"]["datasets"]),
        training_commit=origin["commit"],
        license=license,
        intended_use=intended_use,
        description=description,
        validation=(tuned or {}).get("validation", {}),
    )
    return export_network(network, spec, path, tuned)


def network_to_onnx(network: nn.Module) -> bytes:
    """Return the graph of a network, bytes in and probabilities out, as the bytes of an .onnx."""
    import onnx

    network = copy.deepcopy(network).cpu().float().eval()
    if isinstance(network, LiteNetwork):
        network.halves = True
    wrapped = _BytesToProbability(network).eval()

    buffer = io.BytesIO()
    example = torch.zeros(2, 64, 96, 3, dtype=torch.uint8)
    export = cast(Callable[..., None], torch.onnx.export)
    with warnings.catch_warnings():
        # The script-based exporter is the one that needs no further packages. It folds batch
        # normalizations into their convolutions by itself.
        warnings.simplefilter("ignore")
        export(
            wrapped,
            (example,),
            buffer,
            input_names=["image"],
            output_names=["probability"],
            dynamic_axes={
                "image": {0: "N", 1: "H", 2: "W"},
                "probability": {0: "N", 1: "h", 2: "w"},
            },
            opset_version=17,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    _normalize_at_once(model)
    _fold_filled_constants(model)
    model.producer_name = "segmitos"
    onnx.checker.check_model(model)
    result: bytes = model.SerializeToString()
    return result


def _normalize_at_once(model: Any) -> None:
    """Replace cast, minus mean, over spread by one dequantization of the bytes.

    It is the same arithmetic in one pass over the image instead of three, where mean and spread are
    the same for all channels and the mean is whole.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    constants = {entry.name: entry for entry in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = node.attribute[0].t

    def value(name: str) -> float | None:
        if name not in constants:
            return None
        content = numpy_helper.to_array(constants[name])
        return float(content.flat[0]) if bool((content == content.flat[0]).all()) else None

    def before(node: Any, kind: str) -> Any:
        source = made.get(node.input[0]) if node is not None else None
        return source if source is not None and source.op_type == kind else None

    for index, over in enumerate(graph.node):
        minus = before(over, "Sub") if over.op_type == "Div" else None
        cast_node = before(minus, "Cast")
        if minus is None or cast_node is None:
            continue
        mean, spread = value(minus.input[1]), value(over.input[1])
        if mean is None or spread is None or mean != round(mean) or not 0 <= mean <= 255:
            continue
        graph.initializer.extend(
            [
                helper.make_tensor("spread", TensorProto.FLOAT, [], [1 / spread]),
                helper.make_tensor("mean", TensorProto.UINT8, [], [int(mean)]),
            ]
        )
        once = helper.make_node(
            "DequantizeLinear", [cast_node.input[0], "spread", "mean"], [over.output[0]]
        )
        graph.node.insert(index, once)
        for old in (over, minus, cast_node):
            graph.node.remove(old)
        break
    used = {name for node in graph.node for name in node.input}
    for node in list(graph.node):
        if node.op_type == "Constant" and node.output[0] not in used:
            graph.node.remove(node)


def _fold_filled_constants(model: Any) -> None:
    """Replace constants that the graph would fill at run time by ready ones.

    The exporter writes them for the sides of paddings that are zero; a model file may not hold
    them (`detection.graph_check`).
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    made = {node.output[0]: node for node in graph.node if node.op_type == "Constant"}
    for index, node in enumerate(graph.node):
        if node.op_type != "ConstantOfShape" or node.input[0] not in made:
            continue
        shape = numpy_helper.to_array(made[node.input[0]].attribute[0].t)
        value = (
            numpy_helper.to_array(node.attribute[0].t)
            if node.attribute
            else np.zeros(1, np.float32)
        )
        filled = numpy_helper.from_array(np.full(tuple(shape), value[0]))
        ready = helper.make_node("Constant", [], list(node.output), value=filled)
        graph.node.remove(node)
        graph.node.insert(index, ready)


def _largest_difference(wrapped: nn.Module, content: bytes) -> float:
    session = import_onnxruntime().InferenceSession(content, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    worst = 0.0
    for shape in ((1, 256, 192, 3), (2, 64, 64, 3), (1, 32, 32, 3), (1, 96, 64, 3)):
        smooth = np.kron(
            rng.integers(0, 256, (*shape[:1], *(s // 8 for s in shape[1:3]), 3)),
            np.ones((1, 8, 8, 1)),
        )
        for image in (rng.integers(0, 256, shape), smooth, np.full(shape, 255)):
            pixels = image.astype(np.uint8)
            with torch.inference_mode():
                expected = wrapped(torch.from_numpy(pixels)).numpy()
            got = session.run(None, {"image": pixels})[0]
            if got.shape != expected.shape:
                return float("inf")
            worst = max(worst, float(np.abs(got - expected).max()))
    return worst
