"""The graph of `training.combine`: peaks of a scout map, loops over the windows round them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segmitos.detection.model import WRITTEN, ModelSpec
from segmitos.detection.spec import FirstLook

# Of a window's map, what lies nearer to its border than this is not used.
RIM_PX = 16
# Windows that go through the networks together: enough to fill the CPU, few enough for its cache.
CHUNK = 8
# Outside of the image is what the networks' own padding stands for: their mean.
_OUTSIDE = 127


class Builder:
    """Nodes and constants of a graph in the making; values go by name."""

    def __init__(self, prefix: str = "") -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.prefix = prefix

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = output or f"{self.prefix}{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, values: Any, kind: Any = np.int64) -> str:
        from onnx import numpy_helper

        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def optional(self, name: str, values: Sequence[int]) -> Any:
        """Add an input of whole numbers that need not be given; return its description."""
        from onnx import TensorProto, helper, numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
        return helper.make_tensor_value_info(name, TensorProto.INT64, [len(values)])

    def include(self, graph: Any, image: str) -> str:
        """Take in a network's graph, its names made its own; return its output."""
        start = f"{self.prefix}network_{len(self.nodes)}/"
        own = {"": "", graph.input[0].name: image}

        def named(name: str) -> str:
            return own.setdefault(name, start + name)

        for constant in graph.initializer:
            copied = type(constant)()
            copied.CopyFrom(constant)
            copied.name = named(constant.name)
            self.constants.append(copied)
        for node in graph.node:
            copied = type(node)()
            copied.CopyFrom(node)
            copied.name = start + node.name if node.name else ""
            copied.input[:] = [named(name) for name in node.input]
            copied.output[:] = [named(name) for name in node.output]
            self.nodes.append(copied)
        return named(graph.output[0].name)


def mean_of(builder: Builder, maps: Sequence[str]) -> str:
    if len(maps) == 1:
        return maps[0]
    return builder.op("Mean", *maps)


@dataclass(frozen=True)
class _Sizes:
    """Of windows: in pixels, and of their maps in cells of the networks' stride."""

    cell_px: int
    window_px: int
    stride: int

    @property
    def rim_px(self) -> int:
        """From a window's border to the cell it stands round."""
        return (self.window_px - self.cell_px) // 2

    @property
    def margin(self) -> int:
        """Cells that windows write beyond the image."""
        return (self.rim_px - RIM_PX) // self.stride

    @property
    def written(self) -> int:
        """Cells across that a window writes."""
        return (self.window_px - 2 * RIM_PX) // self.stride

    @property
    def per_cell(self) -> int:
        """Cells of the map across a cell of the scout's."""
        return self.cell_px // self.stride


def windows(
    top: Builder,
    look_map: str,
    graphs: Sequence[Any],
    look: FirstLook,
    cell_px: int,
    spec: ModelSpec,
) -> str:
    """Add the first look's peaks and the loops over their windows; return the map.

    Args:
        top: the graph, which has the inputs `image` (N, H, W, 3) uint8 and `WRITTEN`.
        look_map: the scout's map (N, H / cell_px, W / cell_px).
        graphs: the networks, from image to map; what `look.confirm_above` says is of the first.
        look: which peaks, how large the windows.
        cell_px: pixels of the image that a cell of the scout's map covers.
        spec: of the networks.

    Returns:
        Name of the map (N, H / stride, W / stride), float32; 0 where nobody looked.
    """
    sizes = _Sizes(cell_px, look.window_px, spec.stride)
    peaks = _touching(top, _peaks(top, look_map, look.above), cell_px, sizes.rim_px - RIM_PX)
    image = _in_eights(top, sizes)
    filled = _empty_map(top, look_map, sizes)
    if look.confirm_above:
        first = _maps_of_windows(top, peaks, image, graphs[0], sizes)
        highest = top.op("ReduceMax", first, top.constant([1, 2]), keepdims=0)
        found = top.op("Greater", highest, top.constant(look.confirm_above, np.float32))
        peaks, first = (top.op("Compress", rows, found, axis=0) for rows in (peaks, first))
        filled = _fill(top, filled, peaks, image, graphs[1:], sizes, first)
    else:
        filled = _fill(top, filled, peaks, image, graphs, sizes)
    margin = sizes.margin
    return top.op(
        "Slice",
        filled,
        top.constant([margin, margin]),
        top.constant([-margin, -margin]),
        top.constant([1, 2]),
    )


def _in_eights(top: Builder, sizes: _Sizes) -> str:
    """Pad the image so that the window of cell (row, column) begins at (row, column) * cell_px.

    Rows of 8 px become one, as they are gathered faster than single pixels.
    """
    rim = sizes.rim_px
    image = top.op(
        "Pad",
        "image",
        top.constant([0, rim, rim, 0, 0, rim, rim, 0]),
        top.constant(_OUTSIDE, np.uint8),
    )
    shape = top.op("Shape", image)
    eights = top.op(
        "Concat",
        top.op("Slice", shape, top.constant([0]), top.constant([2])),
        top.constant([-1, 24]),
        axis=0,
    )
    return top.op("Reshape", image, eights)


def _maps_of_windows(top: Builder, peaks: str, image: str, network: Any, sizes: _Sizes) -> str:
    """Add a loop that gives (k, written, written): what one network says of each window."""
    body = Builder("first/")
    some, pixels = _cut_windows(body, peaks, image, sizes)
    middle = _middle(body, body.include(network, pixels), sizes)
    begin = body.op("Mul", "first/round", body.constant(CHUNK))
    end = body.op("Add", begin, _count(body, some))
    rows = body.op("Unsqueeze", body.op("Range", begin, end, body.constant(1)), body.constant([1]))
    body.op("ScatterND", "first/maps", rows, middle, output="first/maps_out")
    side = top.constant([sizes.written, sizes.written])
    shape = top.op("Concat", top.op("Reshape", _count(top, peaks), top.constant([1])), side, axis=0)
    return _loop(top, body, "maps", _zeros(top, shape), peaks)


def _fill(
    top: Builder,
    empty: str,
    peaks: str,
    image: str,
    networks: Sequence[Any],
    sizes: _Sizes,
    first: str | None = None,
) -> str:
    """Add a loop that writes the networks' mean for each window into the map.

    `first` holds one more network's maps of these windows (k, written, written).
    """
    body = Builder("window/")
    some, pixels = _cut_windows(body, peaks, image, sizes)
    maps = [_middle(body, body.include(graph, pixels), sizes) for graph in networks]
    if first is not None:
        maps.insert(0, _chunk(body, first))
    cells = _grid(body, some, (sizes.per_cell, sizes.written), (sizes.per_cell, sizes.written))
    mean = mean_of(body, maps)
    body.op("ScatterND", "window/map", cells, mean, output="window/map_out", reduction="max")
    return _loop(top, body, "map", empty, peaks)


def _cut_windows(body: Builder, peaks: str, image: str, sizes: _Sizes) -> tuple[str, str]:
    """Return some of the peaks, by the loop's round, and (n, side, side, 3) round each."""
    some = _chunk(body, peaks)
    side = sizes.window_px
    places = _grid(body, some, (sizes.cell_px, side), (sizes.cell_px // 8, side // 8))
    pixels = body.op("GatherND", image, places)
    return some, body.op("Reshape", pixels, body.constant([-1, side, side, 3]))


def _chunk(body: Builder, rows: str) -> str:
    """Return the rows that a round of a loop is about."""
    begin = body.op("Mul", f"{body.prefix}round", body.constant(CHUNK))
    end = body.op("Add", begin, body.constant(CHUNK))
    one = body.constant([1])
    begin, end = body.op("Reshape", begin, one), body.op("Reshape", end, one)
    return body.op("Slice", rows, begin, end, body.constant([0]))


def _middle(body: Builder, map_: str, sizes: _Sizes) -> str:
    rim = RIM_PX // sizes.stride
    begin, end = body.constant([rim, rim]), body.constant([rim + sizes.written] * 2)
    return body.op("Slice", map_, begin, end, body.constant([1, 2]))


def _loop(top: Builder, body: Builder, carried: str, start: str, peaks: str) -> str:
    """Run a body over all peaks; return what it carries from round to round, begun at `start`."""
    import onnx
    from onnx import helper

    at = body.prefix
    body.op("Identity", f"{at}go_on", output=f"{at}go_on_out")
    kinds = onnx.TensorProto
    values: tuple[tuple[str, int, list[int] | None], ...]
    values = (("round", kinds.INT64, []), ("go_on", kinds.BOOL, []), (carried, kinds.FLOAT, None))
    graph = helper.make_graph(
        body.nodes,
        at.strip("/"),
        [helper.make_tensor_value_info(at + name, kind, shape) for name, kind, shape in values],
        [
            helper.make_tensor_value_info(f"{at}{name}_out", kind, shape)
            for name, kind, shape in values[1:]
        ],
        body.constants,
    )
    rounds = top.op(
        "Div", top.op("Add", _count(top, peaks), top.constant(CHUNK - 1)), top.constant(CHUNK)
    )
    return top.op("Loop", rounds, top.constant(True, np.bool_), start, body=graph)


def _count(builder: Builder, rows: str) -> str:
    return builder.op("Gather", builder.op("Shape", rows), builder.constant(0))


def _peaks(top: Builder, look_map: str, above: float) -> str:
    """Return (k, 3): image, row, column of the cells that no neighbour exceeds."""
    one = top.op("Unsqueeze", look_map, top.constant([1]))
    highest = top.op("MaxPool", one, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    peak = top.op(
        "And",
        top.op("GreaterOrEqual", one, highest),
        top.op("Greater", one, top.constant(above, np.float32)),
    )
    where = top.op("NonZero", top.op("Squeeze", peak, top.constant([1])))
    return top.op("Transpose", where, perm=[1, 0])


def _touching(top: Builder, peaks: str, cell_px: int, reach_px: int) -> str:
    """Keep the peaks whose windows write to what is asked for: `reach_px` beyond their cell."""
    from onnx import TensorProto

    corners = top.op("Slice", peaks, top.constant([1]), top.constant([3]), top.constant([1]))
    begin = top.op("Mul", corners, top.constant(cell_px))
    first = top.op("Slice", WRITTEN, top.constant([0]), top.constant([2]))
    end = top.op("Slice", WRITTEN, top.constant([2]), top.constant([4]))
    inside = top.op(
        "And",
        top.op("Greater", top.op("Add", begin, top.constant(cell_px + reach_px)), first),
        top.op("Less", top.op("Sub", begin, top.constant(reach_px)), end),
    )
    both = top.op(
        "ReduceMin", top.op("Cast", inside, to=TensorProto.INT32), top.constant([1]), keepdims=0
    )
    return top.op("Compress", peaks, top.op("Cast", both, to=TensorProto.BOOL), axis=0)


def _empty_map(top: Builder, look_map: str, sizes: _Sizes) -> str:
    scale = top.constant([1, sizes.per_cell, sizes.per_cell])
    sides = top.op("Mul", top.op("Shape", look_map), scale)
    return _zeros(top, top.op("Add", sides, top.constant([0, 2 * sizes.margin, 2 * sizes.margin])))


def _zeros(top: Builder, shape: str) -> str:
    from onnx import numpy_helper

    zero = numpy_helper.from_array(np.zeros(1, np.float32))
    return top.op("ConstantOfShape", shape, value=zero)


def _grid(body: Builder, cells: str, rows: tuple[int, int], columns: tuple[int, int]) -> str:
    """Return indices (k, rows, columns, 3) of the blocks that begin at cells (k, 3).

    `rows` and `columns` are (step per cell, length of a block).
    """
    offsets = np.zeros((1, rows[1], columns[1], 3), np.int64)
    offsets[..., 1] = np.arange(rows[1])[None, :, None]
    offsets[..., 2] = np.arange(columns[1])[None, None, :]
    corners = body.op("Mul", cells, body.constant([1, rows[0], columns[0]]))
    corners = body.op("Unsqueeze", corners, body.constant([1, 2]))
    return body.op("Add", corners, body.constant(offsets))
