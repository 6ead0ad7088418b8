"""Model files -> one: a scout that looks first, and networks whose maps are averaged.

The scout (`networks.proposal`) reads the image at a coarser scale, says where a mitosis is. Round
each of its peaks a window is cut, and only these windows go through the networks; elsewhere the map
is zero. Where several networks are averaged, the others may look only at the windows in which the
first one found something; the map is zero in the rest as well. It is one graph of standard ONNX
operators, so that whatever runs a model file runs this one. A window sees the same pixels wherever
an image was cut into tiles, so that a cell's probability follows from the slide alone. Of a tile
only what will be written need be right: windows that do not touch the rectangle `written` are left
out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmitos.detection.model import METADATA_KEY, WRITTEN, Model, ModelSpec
from segmitos.detection.postprocess import tuned_thresholds
from segmitos.detection.spec import FirstLook
from segmitos.errors import ModelError, UsageError
from segmitos.io.files import write_bytes
from segmitos.training.windows import RIM_PX, Builder, mean_of, windows

OPSET = 18
# Pixels (top, left, bottom, right) whose map is asked for, where the caller does not say.
_ALL = (0, 0, 2**31 - 1, 2**31 - 1)


def combine(
    networks: Sequence[Path],
    out: Path,
    scout: Path | None = None,
    above: float = 0.1,
    window_px: int = 128,
    confirm_above: float = 0.0,
    tuned: Mapping[str, Any] | None = None,
    name: str = "model",
    description: str | None = None,
) -> ModelSpec:
    """Write several model files as one.

    Args:
        networks: model files of one scale and stride; their maps are averaged.
        out: the .onnx to write.
        scout: model file of the first look; None runs the networks on all of an image.
        above: probability of the scout from which on a peak is looked at.
        window_px: side of the windows.
        confirm_above: the networks after the first see only the windows in whose middle the first
            one's probability exceeds this; 0 shows them all.
        tuned: content of the thresholds.json of `evaluate --tune`; None takes what the first
            network has.
        name: of the new model.
        description: one line; None takes the first network's.

    Returns:
        The specification of what was written.

    Raises:
        ModelError: for files that are no models, hold a scout already or do not fit together;
            UsageError: for numbers that cannot be.
    """
    import onnx

    models = [Model.load(path, "cpu") for path in networks]
    _check_alike(models)
    _check_probabilities(above, confirm_above, scout is not None and len(models) > 1)
    spec = models[0].spec
    graphs = [_load(model.path) for model in models]
    context_px = max(model.spec.context_px for model in models)
    look: FirstLook | None = None
    builder = Builder()
    inputs = [
        onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["N", "H", "W", 3])
    ]
    if scout is None:
        result = mean_of(builder, [builder.include(graph, "image") for graph in graphs])
    else:
        first = Model.load(scout, "cpu")
        look = FirstLook(first.spec.name, first.spec.mpp, above, window_px, confirm_above)
        cell_px = _check_scout(first.spec, spec, look)
        factor = round(first.spec.mpp / spec.mpp)
        graph = _load(first.path)
        _read_finer(graph, factor, first.path)
        inputs.append(builder.optional(WRITTEN, _ALL))
        result = windows(builder, builder.include(graph, "image"), graphs, look, cell_px, spec)
        # What a cell follows from: the windows whose written middle covers it, and what made
        # their peaks, the scout's view of the peak and of its neighbours.
        view = first.spec.context_px * factor + cell_px + cell_px // 2
        context_px = window_px // 2 - RIM_PX + max(window_px // 2, view)
    spec = dataclasses.replace(
        spec,
        name=name,
        description=spec.description if description is None else description,
        context_px=context_px,
        thresholds=spec.thresholds if tuned is None else tuned_thresholds(tuned),
        validation=spec.validation if tuned is None else tuned.get("validation", {}),
        first_look=look,
        datasets=tuple(dict.fromkeys(one for model in models for one in model.spec.datasets)),
    )
    spec.check(str(out))
    _write(builder, inputs, result, spec, out)
    return spec


def _load(path: Path) -> Any:
    import onnx

    model = onnx.version_converter.convert_version(onnx.load(str(path)), OPSET)
    if any(node.op_type == "Loop" for node in model.graph.node):
        raise ModelError(f"{path} holds a first look already; combine the networks it was made of")
    return model.graph


def _check_alike(models: Sequence[Model]) -> None:
    if not models:
        raise UsageError("no network to combine")
    first = models[0]
    for model in models[1:]:
        for key in ("mpp", "stride", "color", "smoothing_sigma_um"):
            one, other = getattr(first.spec, key), getattr(model.spec, key)
            if one != other:
                raise ModelError(
                    f"{first.path} and {model.path} differ in {key}: {one} and {other}; only "
                    "networks that read images alike can be averaged"
                )


def _check_probabilities(above: float, confirm_above: float, has_second: bool) -> None:
    if not (0 < above < 1 and 0 <= confirm_above < 1):
        raise UsageError(
            f"above = {above:g}, confirm_above = {confirm_above:g}: probabilities from 0 to 1, the "
            "first one not 0, neither of them 1"
        )
    if confirm_above and not has_second:
        raise UsageError(
            f"confirm_above = {confirm_above:g} needs a scout and two networks: it says which "
            "windows the second one sees"
        )


def _check_scout(scout: ModelSpec, spec: ModelSpec, look: FirstLook) -> int:
    """Return the pixels of the networks' scale that a cell of the scout's map covers."""
    factor = scout.mpp / spec.mpp
    if abs(factor - round(factor)) > 1e-6 or round(factor) not in (1, 2, 4):
        raise ModelError(
            f"the scout reads {scout.mpp:g} um per pixel and the networks {spec.mpp:g}: it must "
            "be as much, twice or four times"
        )
    cell = scout.stride * round(factor)
    if look.window_px % 32 or not 2 * RIM_PX + cell <= look.window_px <= 512:
        raise UsageError(
            f"window {look.window_px} px must be a multiple of 32, from {2 * RIM_PX + cell} to 512"
        )
    if ((look.window_px - cell) // 2) % 8 or cell % 8 or cell % spec.stride:
        raise ModelError(f"a scout of {cell} px per cell does not fit windows on a grid of 8 px")
    return cell


def _read_finer(graph: Any, factor: int, path: Path) -> None:
    """Let a network take its image at `factor` times the resolution, averaged down.

    Averaging blocks of pixels is linear, and so is the first convolution: both become one, with a
    larger kernel and stride.
    """
    from onnx import numpy_helper

    if factor == 1:
        return
    first = next((node for node in graph.node if node.op_type == "Conv"), None)
    constants = {entry.name: entry for entry in graph.initializer}
    if first is None or first.input[1] not in constants:
        raise ModelError(f"{path} does not begin with a convolution; it cannot be a scout")
    weight = constants[first.input[1]]
    values = numpy_helper.to_array(weight)
    spread = np.kron(values, np.ones((1, 1, factor, factor), values.dtype)) / factor**2
    weight.CopyFrom(numpy_helper.from_array(spread.astype(values.dtype), weight.name))
    for attribute in first.attribute:
        if attribute.name in ("kernel_shape", "strides", "pads"):
            attribute.ints[:] = [value * factor for value in attribute.ints]


def _write(
    builder: Builder, inputs: Sequence[Any], result: str, spec: ModelSpec, out: Path
) -> None:
    """Make one graph of what was built, check it, and write it with its specification."""
    import onnx

    builder.op("Identity", result, output="probability")
    map_ = onnx.helper.make_tensor_value_info(
        "probability", onnx.TensorProto.FLOAT, ["N", "h", "w"]
    )
    combined = onnx.helper.make_model(
        onnx.helper.make_graph(builder.nodes, "segmitos", inputs, [map_], builder.constants),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        producer_name="segmitos",
        ir_version=9,
    )
    entry = combined.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, spec.to_json()
    onnx.checker.check_model(combined)
    write_bytes(out, combined.SerializeToString())
