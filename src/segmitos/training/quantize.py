"""Model file -> the same in eight-bit integers: static quantization, calibrated on real fields.

Weights are rounded per output channel, activations per layer, to ranges seen on the calibration
crops (Jacob et al. 2018; ONNX QDQ form, which ONNX Runtime and OpenVINO both run as integers).
Weights use seven of the eight bits: CPUs without VNNI add pairs of products in 16 bits, which full
eight bits overflow. The head, whose one channel is the logit, stays in floats. Rounding moves the
logits as a whole by a little; the head's bias is moved back by the mean of that.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.model import METADATA_KEY, Model, ModelSpec
from segmitos.detection.spec import holds_integers
from segmitos.detection.stain import Stain, apply_lookup, od_statistics, stain_lookup
from segmitos.errors import DataError, ModelError
from segmitos.io.datasets import Case
from segmitos.io.files import write_bytes
from segmitos.training.sampling import TrainingImage, load_training_images

CROP_PX = 256
_MITOSES_A_CASE = 2
_KINDS = ["Conv", "Add", "Resize", "Clip", "Relu"]
# Probabilities in between matter: outside, the logit is nearly free to move.
_UNSURE = (0.05, 0.99)


@dataclass(frozen=True)
class Quantized:
    """What quantization did, on the calibration crops.

    Attributes:
        crops: calibrated on; shift: mean change of unsure logits, since taken back; difference:
        mean and 99.9th percentile of the change in probability that is left, over all cells.
    """

    crops: int
    shift: float
    difference: tuple[float, float]


def quantize(path: Path, cases: Sequence[Case], out: Path, threads: int | None = None) -> Quantized:
    """Write an integer version of a model file.

    Args:
        path: of the .onnx to quantize; stays as it is.
        cases: to calibrate on: training slides, some 40 fields or more; never test slides.
        out: the .onnx to write.
        threads: of the CPU.

    Raises:
        ModelError: for a file that is no model, or is quantized already; DataError where no case
            is large enough for a crop of 256 px.
    """
    import onnx

    model = Model.load(path, "cpu", threads)
    if model.spec.first_look is not None:
        raise ModelError(
            f"{path} holds a first look; quantize the network that it was made of, then combine"
        )
    if holds_integers(model.path.read_bytes()):
        raise ModelError(f"{path} holds integers already; quantize the model that it was made of")
    crops = list(_crops(load_training_images(cases, model.spec.mpp), model.spec.color))
    if not crops:
        raise DataError(f"no image of {CROP_PX} x {CROP_PX} px at {model.spec.mpp} um/px to use")
    expected = np.stack([model.predict(crop)[0] for crop in crops])
    unsure = (expected > _UNSURE[0]) & (expected < _UNSURE[1])
    scored = model.spec.validation
    if "data" in scored:
        scored = {**scored, "data": f"{scored['data']}, in floats"}
    spec = dataclasses.replace(
        model.spec,
        name=f"{model.spec.name}-int8",
        context_px=_reach(model, crops),
        validation=scored,
    )
    with tempfile.TemporaryDirectory() as folder:
        integers = _integers(model.path, crops, spec, Path(folder))
        made = Path(folder) / "integers.onnx"
        onnx.save(integers, str(made))
        got = _predict(made, crops, threads)
        shift = (
            float((_logit(got[unsure]) - _logit(expected[unsure])).mean()) if unsure.any() else 0.0
        )
        _move_head(integers, -shift)
        onnx.save(integers, str(made))
        change = np.abs(_predict(made, crops, threads) - expected)
        write_bytes(out, made.read_bytes())
    worst = float(np.percentile(change, 99.9))
    return Quantized(len(crops), shift, (float(change.mean()), worst))


def _reach(model: Model, crops: list[NDArray[np.uint8]]) -> int:
    """Return how far from a cell anything sways it, px: rounding to integers makes steps of it.

    What a float network sees at the rim of its view changes its map in the fifth digit, and its
    context leaves that out; in integers it may be a whole step. Up to 512 px are tried; a network
    that sees further keeps the context of its file.
    """
    middle = 3 * CROP_PX
    strip = np.concatenate([crops[index % len(crops)] for index in range(6)], axis=2)
    before, cells = model.predict(strip), middle // model.spec.stride
    for reach in range(model.spec.context_px, middle - CROP_PX, 16):
        right, left = strip.copy(), strip.copy()
        right[:, :, middle + reach :] = 255 - right[:, :, middle + reach :]
        left[:, :, : middle - reach] = 255 - left[:, :, : middle - reach]
        same_left = (before == model.predict(right))[:, :, :cells].all()
        if same_left and (before == model.predict(left))[:, :, cells:].all():
            return reach
    return model.spec.context_px


def _crops(sources: list[TrainingImage], color: Stain | None) -> Iterator[NDArray[np.uint8]]:
    """One crop from the middle of every image, and one round each of its first mitoses."""
    for source in sources:
        image = source.image
        stain = od_statistics(image[::4, ::4]) if color is not None else None
        if color is not None and stain is not None:
            image = apply_lookup(np.ascontiguousarray(image), stain_lookup(stain, color))
        height, width = image.shape[:2]
        if min(height, width) < CROP_PX:
            continue
        middle = np.array([[width / 2, height / 2]])
        for x, y in np.concatenate([middle, source.mitoses_xy[:_MITOSES_A_CASE]]):
            left = int(np.clip(x - CROP_PX / 2, 0, width - CROP_PX))
            top = int(np.clip(y - CROP_PX / 2, 0, height - CROP_PX))
            part = image[top : top + CROP_PX, left : left + CROP_PX]
            yield np.ascontiguousarray(part)[None]


def _integers(source: Path, crops: list[NDArray[np.uint8]], spec: ModelSpec, folder: Path) -> Any:
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(crops)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            crop = next(self.left, None)
            return None if crop is None else {"image": crop}

    prepared, made = folder / "prepared.onnx", folder / "made.onnx"
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(made),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=_KINDS,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=[_head(onnx.load(str(prepared))).name],
        )
    finally:
        logger.setLevel(level)
    result = onnx.load(str(made))
    del result.metadata_props[:]
    entry = result.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = spec.to_json()
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
    """Add to the bias of the logit, the last channel of the head, which is in floats."""
    from onnx import numpy_helper

    head = _head(model)
    for constant in model.graph.initializer:
        if constant.name == head.input[2]:
            bias = numpy_helper.to_array(constant).copy()
            bias[-1] += by
            constant.CopyFrom(numpy_helper.from_array(bias, constant.name))


def _predict(
    path: Path, crops: list[NDArray[np.uint8]], threads: int | None
) -> NDArray[np.float32]:
    model = Model.load(path, "cpu", threads)
    return np.stack([model.predict(crop)[0] for crop in crops])


def _logit(probability: NDArray[np.float32]) -> NDArray[np.float64]:
    p = np.clip(probability.astype(np.float64), 1e-6, 1 - 1e-6)
    result: NDArray[np.float64] = np.log(p / (1 - p))
    return result
