"""Model files -> one: networks whose maps are averaged, behind a proposal network.

The cascade itself is a step of detection (`detection.cascade`); here its parts are checked and put
into one file. The proposal network works at a coarser scale than the networks; the averaging of
pixels becomes part of its first convolution, so that it takes the same image as they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from segmitos.detection.model_file import (
    PROPOSAL,
    ModelFile,
    network_entry,
    read_model_file,
    write_model_file,
)
from segmitos.detection.postprocess import tuned_thresholds
from segmitos.detection.spec import CascadeSettings, ModelSpec, cascade_context
from segmitos.errors import ModelError, UsageError
from segmitos.evaluation.tuning import check_tuned_for
from segmitos.training.halves import without_halves

# Constants of fewer numbers are not worth rounding.
MIN_HALF_PRECISION = 64
SIZES = {"block_px": 32, "patch_px": 224, "margin_px": 80, "grid_px": 32}


def combine(
    networks: Sequence[Path],
    out: Path,
    proposal_network: Path | None = None,
    proposal_threshold: float = 0.15,
    ensemble_threshold: float = 0.0,
    half_precision: bool = False,
    tuned: Mapping[str, Any] | None = None,
    name: str = "model",
    description: str | None = None,
    **sizes: int,
) -> ModelSpec:
    """Write several model files as one.

    Args:
        networks: model files of one scale and stride; their maps are averaged.
        out: the `.segmitos` file to write.
        proposal_network: model file of the proposal network; None runs the networks on whole
            images.
        proposal_threshold: probability above which a local maximum is a proposal.
        ensemble_threshold: the networks after the first see only the patches in whose middle the
            first one's probability exceeds this; 0 shows them all.
        half_precision: store weights in float16: half the size; probabilities change by 0.001.
        tuned: content of the thresholds.json of `evaluate --tune`; None takes what the first
            network has.
        name: of the new model.
        description: one line; None takes the first network's.
        sizes: `block_px`, `patch_px`, `margin_px` and `grid_px` of `CascadeSettings`, in place of
            `SIZES`.

    Returns:
        The specification of what was written.

    Raises:
        ModelError: for files that are no models, have a cascade already or do not fit together.
        UsageError: for numbers that cannot be, or thresholds that are of another model.
    """
    unknown = sorted(set(sizes) - set(SIZES))
    if unknown:
        raise UsageError(f"size {unknown[0]!r}: choose among {', '.join(SIZES)}")
    if sizes and proposal_network is None:
        raise UsageError(f"{next(iter(sizes))} means nothing without a proposal network")
    files = _read_alike(networks)
    spec = files[0].spec
    graphs = {network_entry(index): file.networks[0] for index, file in enumerate(files)}
    context_px = max(file.spec.context_px for file in files)
    cascade: CascadeSettings | None = None
    if proposal_network is not None:
        graphs[PROPOSAL], cascade, context_px = _behind(
            proposal_network,
            spec.mpp,
            proposal_threshold=proposal_threshold,
            ensemble_threshold=ensemble_threshold,
            **{**SIZES, **sizes},
        )
        graphs = {
            entry: graph if entry == PROPOSAL else without_halves(graph)
            for entry, graph in graphs.items()
        }
    if ensemble_threshold and (cascade is None or len(files) < 2):
        raise UsageError(
            f"ensemble threshold {ensemble_threshold:g} needs a proposal network and two networks: "
            "it says which patches the second one sees"
        )
    spec = msgspec.structs.replace(
        spec,
        name=name,
        description=spec.description if description is None else description,
        context_px=context_px,
        thresholds=spec.thresholds if tuned is None else tuned_thresholds(tuned),
        validation=_of_first(spec.validation) if tuned is None else tuned.get("validation", {}),
        cascade=cascade,
        datasets=_joined(file.spec.datasets for file in files),
        laboratories=_joined(file.spec.laboratories for file in files),
    )
    if half_precision:
        graphs = {entry: store_half_precision(graph) for entry, graph in graphs.items()}
    check_tuned_for(tuned or {}, spec, graphs)
    write_model_file(out, spec, graphs)
    return spec


def store_half_precision(graph: bytes) -> bytes:
    """Return a graph whose float32 weights are stored as float16 and cast back when it is loaded.

    Runtimes fold the cast, so that it costs no time; biases and other small constants stay.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(graph)
    casts = []
    for constant in model.graph.initializer:
        values = numpy_helper.to_array(constant)
        if constant.data_type != TensorProto.FLOAT or values.size < MIN_HALF_PRECISION:
            continue
        name = constant.name
        constant.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}/float16"))
        casts.append(helper.make_node("Cast", [f"{name}/float16"], [name], to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _of_first(validation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the score of the first network, which is not that of the whole, and says so."""
    if not validation:
        return {}
    data = validation.get("data", "data not stated")
    return {**validation, "data": f"{data}, by the first network alone"}


def _joined(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Return each entry of several lists once, in order."""
    return tuple(dict.fromkeys(entry for entries in lists for entry in entries))


def _read_alike(paths: Sequence[Path]) -> list[ModelFile]:
    """Read model files of one network each, which read images alike."""
    if not paths:
        raise UsageError("no network to combine")
    files = [_read_single(path) for path in paths]
    for path, file in zip(paths, files, strict=True):
        for key in ("mpp", "stride", "stain", "smoothing_sigma_um"):
            one, other = getattr(files[0].spec, key), getattr(file.spec, key)
            if one != other:
                raise ModelError(
                    f"{paths[0]} and {path} differ in {key}: {one} and {other}; only "
                    "networks that read images alike can be averaged"
                )
    return files


def _read_single(path: Path) -> ModelFile:
    """Read a model file of one network alone. Raises ModelError for others."""
    file = read_model_file(path)
    if file.spec.cascade is not None or len(file.networks) > 1:
        raise ModelError(f"{path} is combined already; combine the networks it was made of")
    if file.spec.verifier is not None:
        raise ModelError(f"{path} has a verifier; combine the networks it was made of")
    return file


def _behind(path: Path, mpp: float, **settings: Any) -> tuple[bytes, CascadeSettings, int]:
    """Return the graph of a proposal network, the cascade behind it, and its context in pixels."""
    file = _read_single(path)
    factor = round(file.spec.mpp / mpp)
    if abs(file.spec.mpp / mpp - factor) > 1e-6 or factor not in (1, 2, 4):
        raise ModelError(
            f"the proposal network reads {file.spec.mpp:g} um per pixel and the networks "
            f"{mpp:g}: it must be as much, twice or four times"
        )
    for name in ("proposal_threshold", "ensemble_threshold"):
        if not 0 <= settings[name] < 1:
            raise UsageError(f"threshold {settings[name]:g} is no probability from 0 to below 1")
    try:
        cascade = CascadeSettings(
            proposal_network=file.spec.name,
            proposal_mpp=file.spec.mpp,
            proposal_stride_px=file.spec.stride * factor,
            **settings,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    context_px = cascade_context(cascade, file.spec.context_px * factor)
    return _read_finer(file.networks[0], factor, path), cascade, context_px


def _read_finer(graph: bytes, factor: int, path: Path) -> bytes:
    """Let a network take its image at `factor` times the resolution, averaged down.

    Averaging blocks of pixels is linear, and so is the first convolution: both become one, with a
    larger kernel and stride.
    """
    import onnx
    from onnx import numpy_helper

    if factor == 1:
        return graph
    model = onnx.load_from_string(graph)
    first = next((node for node in model.graph.node if node.op_type == "Conv"), None)
    constants = {entry.name: entry for entry in model.graph.initializer}
    if first is None or first.input[1] not in constants:
        raise ModelError(f"{path} does not begin with a convolution: it cannot propose")
    weight = constants[first.input[1]]
    values = numpy_helper.to_array(weight)
    spread = np.kron(values, np.ones((1, 1, factor, factor), values.dtype)) / factor**2
    weight.CopyFrom(numpy_helper.from_array(spread.astype(values.dtype), weight.name))
    for attribute in first.attribute:
        if attribute.name in ("kernel_shape", "strides", "pads"):
            attribute.ints[:] = [value * factor for value in attribute.ints]
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
