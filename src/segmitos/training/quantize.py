"""Model file -> the same in int8: static quantization, calibrated on real fields.

Weights are rounded per output channel, activations per layer, to ranges seen on the calibration
crops (Jacob et al. 2018; ONNX QDQ form, which ONNX Runtime and OpenVINO both run as integers).
Weights use seven of the eight bits: CPUs without VNNI add pairs of products in 16 bits, which full
eight bits overflow. The head, whose one channel is the logit, stays in float32. Rounding moves the
logits as a whole by a little; the head's bias is moved back by the mean of that.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from segmitos.detection.model import checked_threads, find_model
from segmitos.detection.model_file import (
    PROPOSAL,
    network_entry,
    read_model_file,
    write_model_file,
)
from segmitos.detection.runtimes import Network, import_quantization, open_onnxruntime
from segmitos.detection.spec import ModelSpec, cascade_context
from segmitos.detection.stain import Stain, apply_lookup, od_statistics, stain_lookup
from segmitos.detection.verify import REACH_PX, log_odds
from segmitos.detection.view import stain_pixels
from segmitos.errors import DataError, ModelError
from segmitos.io.datasets import Case
from segmitos.training.sampling import TrainingImage, load_training_images, warnings_of

# A model is calibrated on every n-th image of each data set: this many to twice as many in all,
# as many of each, since ranges of activations differ by laboratory.
CALIBRATION_CASES = 48
CROP_PX = 256
_MITOSES_A_CASE = 2
_KINDS = ["Conv", "Add", "Resize", "Clip", "Relu"]
# Patches of a verifier that are calibrated on together.
_BATCH = 8
# The logit's shift is measured between these probabilities; beyond them it hardly matters.
_UNCERTAIN = (0.05, 0.99)


@dataclass(frozen=True)
class Quantized:
    """What quantization did, on the calibration crops.

    Attributes:
        crops: calibrated on.
        shift: mean change of uncertain logits, since taken back; of the network where it is most.
        difference: mean and 99.9th percentile of the change in probability that is left.
        warnings: of the scales of the images.
    """

    crops: int
    shift: float
    difference: tuple[float, float]
    warnings: tuple[str, ...] = ()


def quantize(
    path: str | Path, cases: Sequence[Case], out: Path, threads: int | None = None
) -> Quantized:
    """Write an int8 version of a model file: of its networks and the proposal network before them.

    What is in int8 already stays as it is, and so do a screening network and a verifier.

    Args:
        path: of the model file, or the name of a built-in model; stays as it is.
        cases: to calibrate on: training images of every laboratory, some 40 or more; never test
            images.
        out: the `.segmitos` file to write.
        threads: of the CPU.

    Raises:
        ModelError: for a file that is no model, or is quantized already.
        DataError: where no case is large enough for a crop of 256 px.
        UsageError: for a number of threads that cannot be.
    """
    threads = checked_threads(threads) or 1
    found = find_model(path)
    file = read_model_file(found)
    graphs = file.graphs
    names = [*map(network_entry, range(len(file.networks))), *({PROPOSAL} & set(graphs))]
    names = [name for name in names if not _is_quantized(graphs[name])]
    if not names:
        raise ModelError(f"{found} is quantized already; quantize the model that it was made of")
    images = load_training_images(cases, file.spec.mpp)
    crops = list(_crops(images, file.spec.stain))
    if not crops:
        raise DataError(f"no image of {CROP_PX} x {CROP_PX} px at {file.spec.mpp} um/px to use")
    shifts: list[float] = []
    differences: list[tuple[float, float]] = []
    context_px = file.spec.context_px
    for name in names:
        graph = graphs[name]
        network = open_onnxruntime(graph, f"{found}: {name}", "cpu", threads)[0]
        context_px = max(context_px, _context_of(file.spec, name, network, crops))
        graphs[name], shift, difference = _quantize_network(graph, network, crops, threads)
        shifts.append(shift)
        differences.append(difference)
    scored = file.spec.validation
    if "data" in scored:
        # Of a combined model some networks may have been in int8 when it was scored.
        scored = {**scored, "data": f"{scored['data']}, before it was quantized"}
    name = f"{file.spec.name.removesuffix('-int8')}-int8"
    spec = msgspec.structs.replace(file.spec, name=name, context_px=context_px, validation=scored)
    write_model_file(out, spec, graphs)
    return Quantized(
        crops=len(crops),
        shift=max(shifts, key=abs),
        difference=max(differences, key=lambda pair: pair[1]),
        warnings=tuple(warnings_of(images)),
    )


def calibration_cases(found: Sequence[Case], data_sets: int) -> list[Case]:
    """Return every n-th case of each folder of a data set, as many of each data set."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in found:
        # A folder of points is a data set; the others have a folder for each slide.
        folder = str(case.image.parent) if case.dataset == "points" else ""
        groups.setdefault((case.dataset, folder), []).append(case)
    wanted = max(1, CALIBRATION_CASES // max(data_sets, len(groups)))
    return [case for group in groups.values() for case in group[:: max(1, len(group) // wanted)]]


def _quantize_network(
    graph: bytes, network: Network, crops: list[NDArray[np.uint8]], threads: int
) -> tuple[bytes, float, tuple[float, float]]:
    """Return the int8 version of one graph, and `Quantized.shift` and `.difference` of it."""
    expected = np.stack([network(crop)[0] for crop in crops])
    uncertain = (expected > _UNCERTAIN[0]) & (expected < _UNCERTAIN[1])
    with tempfile.TemporaryDirectory() as folder:
        int8 = _quantize_static(graph, crops, Path(folder), lambda model: [_head(model).name])
    got = _predict(int8.SerializeToString(), crops, threads)
    shift = 0.0
    if uncertain.any():
        before, after = (log_odds(p[uncertain].astype(np.float64)) for p in (expected, got))
        shift = float((after - before).mean())
    _move_head(int8, -shift)
    content: bytes = int8.SerializeToString()
    change = np.abs(_predict(content, crops, threads) - expected)
    difference = (float(change.mean()), float(np.percentile(change, 99.9)))
    return content, shift, difference


def _is_quantized(graph: bytes) -> bool:
    """Tell whether a graph holds quantized layers: only they quantize activations."""
    return b"\x22\x0eQuantizeLinear" in graph


def _context_of(
    spec: ModelSpec, name: str, network: Network, crops: list[NDArray[np.uint8]]
) -> int:
    """Return the context in pixels that a model needs for one of its networks in int8."""
    if spec.cascade is None:
        return _measured_context(network, spec.context_px, crops)
    if name != PROPOSAL:
        # Patches are seen whole.
        return spec.context_px
    beyond_px = 0 if spec.verifier is None else REACH_PX
    seen_px = _measured_context(network, spec.cascade.proposal_stride_px, crops)
    return cascade_context(spec.cascade, seen_px) + beyond_px


def _measured_context(network: Network, stated_px: int, crops: list[NDArray[np.uint8]]) -> int:
    """Return how far from a map pixel any input affects it, px: rounding makes steps of little.

    What a float32 network sees at the rim of its view changes its map in the fifth digit, and its
    context leaves that out; in int8 it may be a whole step. Up to 512 px are tried; a network
    that sees further keeps the context of its file.
    """
    middle = 3 * CROP_PX
    strip = np.concatenate([crops[index % len(crops)] for index in range(6)], axis=2)
    before = network(strip)
    pixels = middle * before.shape[2] // strip.shape[2]
    for reach in range(stated_px, middle - CROP_PX, 16):
        right, left = strip.copy(), strip.copy()
        right[:, :, middle + reach :] = 255 - right[:, :, middle + reach :]
        left[:, :, : middle - reach] = 255 - left[:, :, : middle - reach]
        same_left = (before == network(right))[:, :, :pixels].all()
        if same_left and (before == network(left))[:, :, pixels:].all():
            return reach
    return stated_px


def _crops(sources: list[TrainingImage], target: Stain | None) -> Iterator[NDArray[np.uint8]]:
    """One crop from the middle of every image, and one round each of its first mitoses.

    `target` is the stain that images are matched to, None to take them as they are.
    """
    for source in sources:
        image = source.image
        stain = None if target is None else od_statistics(stain_pixels(image, source.mpp, 4))
        if target is not None and stain is not None:
            image = apply_lookup(np.ascontiguousarray(image), stain_lookup(stain, target))
        height, width = image.shape[:2]
        if min(height, width) < CROP_PX:
            continue
        middle = np.array([[width / 2, height / 2]])
        for x, y in np.concatenate([middle, source.mitoses_xy[:_MITOSES_A_CASE]]):
            left = int(np.clip(x - CROP_PX / 2, 0, width - CROP_PX))
            top = int(np.clip(y - CROP_PX / 2, 0, height - CROP_PX))
            part = image[top : top + CROP_PX, left : left + CROP_PX]
            yield np.ascontiguousarray(part)[None]


def quantize_verifier(graph: bytes, patches: NDArray[np.uint8], threads: int = 1) -> bytes:
    """Return the int8 version of a verifier's graph: encoders in int8, what follows in float32.

    Args:
        graph: patches (n, side, side, 3) uint8 -> probabilities (n,), of one verifier or more.
        patches: (n, side, side, 3) to calibrate on, of every laboratory that it learned from.
        threads: of the CPU.
    """
    batches = [patches[k : k + _BATCH] for k in range(0, len(patches), _BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        int8 = _quantize_static(graph, batches, Path(folder), _pools)

    def logits(graph: bytes) -> NDArray[np.float64]:
        network = open_onnxruntime(graph, "the verifier", "cpu", threads, 1)[0]
        return log_odds(np.concatenate([network(batch) for batch in batches]).astype(np.float64))

    shift = float((logits(int8.SerializeToString()) - logits(graph)).mean())
    for node in int8.graph.node:
        if node.op_type == "Gemm":
            _add_to_constant(int8, node.input[2], -shift)
    content: bytes = int8.SerializeToString()
    return content


def _pools(model: Any) -> list[str]:
    """The convolutions of `VerifierNetwork.pool8` and `.pool16`: averages over a whole patch."""
    return [
        node.name for node in model.graph.node if node.op_type == "Conv" and "/pool" in node.name
    ]


def _quantize_static(
    graph: bytes,
    crops: Sequence[NDArray[np.uint8]],
    folder: Path,
    kept: Callable[[Any], list[str]],
) -> Any:
    """Quantize a graph but for the nodes whose names `kept` returns."""
    import onnx

    tools, prepare = import_quantization()

    inputs = ({"image": crop} for crop in crops)
    source, prepared, made = (folder / f"{name}.onnx" for name in ("source", "prepared", "made"))
    source.write_bytes(graph)
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        prepare(str(source), str(prepared), skip_symbolic_shape=True)
        tools.quantize_static(
            str(prepared),
            str(made),
            SimpleNamespace(get_next=lambda: next(inputs, None)),
            quant_format=tools.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            op_types_to_quantize=_KINDS,
            calibrate_method=tools.CalibrationMethod.MinMax,
            nodes_to_exclude=kept(onnx.load(str(prepared))),
        )
    finally:
        logger.setLevel(level)
    result = onnx.load(str(made))
    del result.metadata_props[:]
    result.producer_name = "segmitos"
    return result


def _head(model: Any) -> Any:
    """The convolution that gives the logits: the last before the output."""
    made = {name: node for node in model.graph.node for name in node.output}
    node = made[model.graph.output[0].name]
    while node.op_type != "Conv":
        if node.input[0] not in made:
            raise ModelError("no convolution leads to the model's output; it cannot be quantized")
        node = made[node.input[0]]
    return node


def _move_head(model: Any, by: float) -> None:
    """Add to the bias of the logit, the last channel of the head, which is in float32."""
    _add_to_constant(model, _head(model).input[2], by)


def _add_to_constant(model: Any, name: str, by: float) -> None:
    """Add to the last number of a constant."""
    from onnx import numpy_helper

    for constant in model.graph.initializer:
        if constant.name == name:
            values = numpy_helper.to_array(constant).copy()
            values[-1] += by
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))


def _predict(graph: bytes, crops: list[NDArray[np.uint8]], threads: int) -> NDArray[np.float32]:
    network = open_onnxruntime(graph, "the int8 graph", "cpu", threads)[0]
    return np.stack([network(crop)[0] for crop in crops])
