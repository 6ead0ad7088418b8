"""Several model files as one: averaged networks, and a scout that chooses what they see."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy import ndimage

from factories.toy_models import SPEC, toy_graph
from segmitos.cli import main
from segmitos.detection.model import METADATA_KEY, Model, ModelSpec
from segmitos.errors import ModelError, UsageError
from segmitos.training.combine import combine

SIDE, CELL, RIM = 96, 16, 16
SCOUT = dataclasses.replace(SPEC, name="toy-scout", mpp=0.5, stride=8, context_px=12)


def scout_graph() -> bytes:
    """Probability that a cell of 8 px is dark: one convolution over bytes, then a sigmoid."""
    weight = np.full((1, 3, 8, 8), -1 / 192, np.float32)
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["float"], to=TensorProto.FLOAT),
        helper.make_node(
            "Conv", ["float", "weight"], ["dark"], kernel_shape=[8, 8], strides=[8, 8], pads=[0] * 4
        ),
        helper.make_node("Add", ["dark", "level"], ["shifted"]),
        helper.make_node("Mul", ["shifted", "sharpness"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["sure"]),
        helper.make_node("Squeeze", ["sure", "axis"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "scout",
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
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, SCOUT.to_json()
    return model.SerializeToString()


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    made = {
        "soft": toy_graph({METADATA_KEY: SPEC.to_json()}, 0.05),
        "sharp": toy_graph({METADATA_KEY: SPEC.to_json()}, 0.15),
        "coarse": toy_graph({METADATA_KEY: dataclasses.replace(SPEC, mpp=0.5).to_json()}),
        "scout": scout_graph(),
    }
    for name, content in made.items():
        (folder / f"{name}.onnx").write_bytes(content)
    return {name: folder / f"{name}.onnx" for name in made}


def field(seed: int, height: int, width: int) -> np.ndarray:
    """Pale noise with dark discs, some at the borders."""
    rng = np.random.default_rng(seed)
    image = rng.integers(200, 240, (height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for _ in range(12):
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(5, 14)
        image[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = rng.integers(20, 110)
    return image


def by_hand(
    image: np.ndarray,
    scout: Model,
    network: Model,
    above: float,
    other: Model | None = None,
    confirm_above: float = 0.0,
) -> np.ndarray:
    """What the combined graph should give, window by window in NumPy."""
    height, width = image.shape[:2]
    coarse = image.reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))
    # The toy scout is linear but for its sigmoid, so that its map of means is exact.
    dark = 150 - coarse.reshape(height // 16, 8, width // 16, 8, 3).mean(axis=(1, 3, 4))
    look = 1 / (1 + np.exp(-0.05 * dark))
    peaks = (look >= ndimage.maximum_filter(look, 3, mode="constant")) & (look > above)
    rim = (SIDE - CELL) // 2
    padded = np.pad(image, ((rim, rim), (rim, rim), (0, 0)), constant_values=127)
    margin = (rim - RIM) // 4
    whole = np.zeros((height // 4 + 2 * margin, width // 4 + 2 * margin), np.float32)
    for row, column in np.argwhere(peaks):
        y, x = row * CELL, column * CELL
        window = padded[None, y : y + SIDE, x : x + SIDE]
        found = network.predict(window)[0, 4:20, 4:20]
        if other is not None:
            if found.max() <= confirm_above:
                continue
            found = (found + other.predict(window)[0, 4:20, 4:20]) / 2
        part = whole[row * 4 : row * 4 + 16, column * 4 : column * 4 + 16]
        np.maximum(part, found, out=part)
    return whole[margin:-margin, margin:-margin]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 64), (320, 448)])
def test_only_windows_round_the_scouts_peaks_are_looked_at(parts, tmp_path, height, width):
    out = tmp_path / "both.onnx"
    combine([parts["sharp"]], out, parts["scout"], above=0.3, window_px=SIDE)
    model, scout = Model.load(out, "cpu", 1), Model.load(parts["scout"], "cpu", 1)
    network = Model.load(parts["sharp"], "cpu", 1)
    images = [field(seed, height, width) for seed in range(3)]
    expected = [by_hand(image, scout, network, 0.3) for image in images]
    assert max(one.max() for one in expected) > 0.9
    found = model.predict(np.stack(images))
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-6)
    assert (found == 0).any() or height < 200


@pytest.mark.parametrize(("height", "width"), [(32, 32), (320, 448)])
def test_the_second_network_sees_only_where_the_first_found_something(
    parts, tmp_path, height, width
):
    out = tmp_path / "both.onnx"
    combine([parts["soft"], parts["sharp"]], out, parts["scout"], 0.2, SIDE, confirm_above=0.97)
    model, scout = Model.load(out, "cpu", 1), Model.load(parts["scout"], "cpu", 1)
    soft, sharp = (Model.load(parts[name], "cpu", 1) for name in ("soft", "sharp"))
    images = [field(seed, height, width) for seed in range(3)]
    expected = [by_hand(image, scout, soft, 0.2, sharp, 0.97) for image in images]
    np.testing.assert_allclose(model.predict(np.stack(images)), np.stack(expected), atol=1e-6)
    everywhere = [by_hand(image, scout, soft, 0.2, sharp) for image in images]
    dropped = (np.stack(everywhere) > 0) & (np.stack(expected) == 0)
    assert (dropped.any() or height < 200) and np.stack(expected).max() > 0.97
    blank = np.full((1, height, width, 3), 240, np.uint8)
    assert not model.predict(blank).any()


def test_windows_that_write_nothing_asked_for_are_left_out(parts, tmp_path):
    combine([parts["sharp"]], tmp_path / "both.onnx", parts["scout"], above=0.2, window_px=SIDE)
    model = Model.load(tmp_path / "both.onnx", "cpu", 1)
    image = field(11, 320, 448)[None]
    whole = model.predict(image)[0]
    np.testing.assert_array_equal(whole, model.predict(image, (-20, -20, 900, 900))[0])
    assert not model.predict(image, (160, 160, 160, 160))[0].all()
    for top, left, bottom, right in ((96, 128, 224, 320), (0, 4, 60, 100), (300, 400, 320, 448)):
        found = model.predict(image, (top, left, bottom, right))[0]
        inside = np.s_[top // 4 : bottom // 4, left // 4 : right // 4]
        np.testing.assert_array_equal(found[inside], whole[inside])
        # A window writes 64 px, so that one which touches the rectangle ends within 60 px of it.
        far = np.ones_like(whole, bool)
        far[max(0, top - 64) // 4 : bottom // 4 + 16, max(0, left - 64) // 4 : right // 4 + 16] = 0
        assert not found[far].any() and whole[far].any()


def test_where_the_scout_sees_nothing_there_is_nothing(parts, tmp_path):
    combine([parts["sharp"]], tmp_path / "both.onnx", parts["scout"], above=0.5, window_px=SIDE)
    image = np.full((1, 64, 96, 3), 240, np.uint8)
    found = Model.load(tmp_path / "both.onnx", "cpu", 1).predict(image)
    assert found.shape == (1, 16, 24) and not found.any()


@pytest.mark.parametrize("confirm_above", [0.0, 0.7])
def test_the_whole_equals_its_parts_to_the_byte(parts, tmp_path, confirm_above):
    networks = [parts["soft"], parts["sharp"]]
    out = tmp_path / "both.onnx"
    spec = combine(networks, out, parts["scout"], 0.2, SIDE, confirm_above)
    model = Model.load(tmp_path / "both.onnx", "cpu", 2)
    image = field(7, 640, 640)
    whole = model.predict(image[None])[0]
    margin = -(-spec.context_px // 32) * 32
    assert (whole[margin // 4 : -margin // 4] > 0.5).any()
    for left in (0, 96, 224):
        part = model.predict(image[None, :, left:])[0]
        first = margin if left else 0
        np.testing.assert_array_equal(part[:, first // 4 :], whole[:, (left + first) // 4 :])


def test_the_maps_of_networks_are_averaged(parts, tmp_path):
    image = field(1, 128, 128)[None]
    one, other = (Model.load(parts[name], "cpu", 1).predict(image) for name in ("soft", "sharp"))
    combine([parts["soft"], parts["sharp"]], tmp_path / "mean.onnx")
    found = Model.load(tmp_path / "mean.onnx", "cpu", 1)
    np.testing.assert_allclose(found.predict(image), (one + other) / 2, atol=1e-6)
    assert found.spec.first_look is None
    combine(
        [parts["soft"], parts["sharp"]],
        tmp_path / "both.onnx",
        parts["scout"],
        above=0.2,
        window_px=SIDE,
    )
    seen = Model.load(tmp_path / "both.onnx", "cpu", 1).predict(image)
    looked_at = seen > 0.6
    # Beyond the image the networks alone see black, their windows grey.
    looked_at[:, [0, -1]] = looked_at[:, :, [0, -1]] = False
    assert looked_at.any()
    np.testing.assert_allclose(seen[looked_at], ((one + other) / 2)[looked_at], atol=1e-6)


def test_the_specification_tells_of_the_first_look(parts, tmp_path):
    out = tmp_path / "both.onnx"
    spec = combine(
        [parts["sharp"]], out, parts["scout"], 0.25, SIDE, name="both", description="new"
    )
    read = Model.load(out, "cpu", 1).spec
    assert read == spec and (read.name, read.description) == ("both", "new")
    assert read.first_look is not None
    assert dataclasses.astuple(read.first_look) == ("toy-scout", 0.5, 0.25, 96, 0.0)
    assert read.context_px >= 80 and read.thresholds == SPEC.thresholds
    old = json.loads(SPEC.to_json())
    del old["first_look"]
    assert ModelSpec.from_json(json.dumps(old)) == SPEC
    for wrong in ({"network": "x"}, {**json.loads(read.to_json())["first_look"], "above": 2.0}, 7):
        content = {**json.loads(read.to_json()), "first_look": wrong}
        with pytest.raises(ModelError, match=r"m\.onnx"):
            ModelSpec.from_json(json.dumps(content), "m.onnx")


@pytest.mark.parametrize("confirm_above", [0.0, 0.97])
def test_onnx_runtime_does_slides_and_openvino_where_forced(parts, tmp_path, confirm_above):
    pytest.importorskip("openvino")
    networks = [parts["soft"], parts["sharp"]]
    combine(networks, tmp_path / "both.onnx", parts["scout"], 0.3, SIDE, confirm_above)
    free = Model.load(tmp_path / "both.onnx", "auto", 1)
    assert free.for_work(500_000_000) is free
    image = field(3, 320, 320)[None]
    forced = Model.load(tmp_path / "both.onnx", "openvino", 1).predict(image)
    np.testing.assert_allclose(forced, free.predict(image), atol=0.02)


def test_what_does_not_fit_together_is_refused_by_name(parts, tmp_path):
    out = tmp_path / "both.onnx"
    with pytest.raises(ModelError, match="differ in mpp"):
        combine([parts["sharp"], parts["coarse"]], out)
    with pytest.raises(UsageError, match="window 100 px"):
        combine([parts["sharp"]], out, parts["scout"], window_px=100)
    with pytest.raises(ModelError, match=r"the scout reads 0\.25"):
        combine([parts["coarse"]], out, parts["sharp"])
    for networks, scout in ((["sharp"], parts["scout"]), (["soft", "sharp"], None)):
        with pytest.raises(UsageError, match=r"confirm_above = 0\.2 needs a scout and two"):
            combine([parts[name] for name in networks], out, scout, confirm_above=0.2)
    for wrong in (1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match="confirm_above"):
            combine([parts["sharp"]] * 2, out, parts["scout"], confirm_above=wrong)
    with pytest.raises(UsageError, match=r"above = 1\.5"):
        combine([parts["sharp"]], out, parts["scout"], above=1.5, window_px=SIDE)
    assert not out.exists()
    combine([parts["sharp"]], out, parts["scout"])
    with pytest.raises(ModelError, match="holds a first look already"):
        combine([out], tmp_path / "again.onnx", parts["scout"])


def test_the_command_line_says_what_it_made_and_what_is_wrong(parts, tmp_path, capsys):
    out = tmp_path / "both.onnx"
    given = ["combine", str(parts["sharp"]), "--scout", str(parts["scout"]), "-o"]
    tuned = tmp_path / "thresholds.json"
    thresholds = {"binarization": 0.5, "min_area_um2": 9.0, "min_score": 0.7}
    tuned.write_text(json.dumps({"thresholds": thresholds, "validation": {"f_score": 0.5}}))
    assert main([*given, str(out), "--thresholds", str(tuned)]) == 0
    assert "1 network(s), behind a first look" in capsys.readouterr().out
    spec = Model.load(out, "cpu", 1).spec
    assert (spec.name, spec.thresholds.min_area_um2) == ("both", 9.0)
    assert spec.validation == {"f_score": 0.5}
    for wrong, message in (
        ([*given, "both.txt"], "must end in .onnx"),
        (["combine", "absent.onnx", "-o", str(out)], "absent.onnx"),
        ([*given, str(out), "--thresholds", "absent.json"], "absent.json"),
        ([*given, str(out), "--above", "0"], "above = 0"),
        ([*given, str(out), "--window", "40"], "window 40 px"),
    ):
        assert main(wrong) in (1, 2)
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_the_file_is_of_standard_operators(parts, tmp_path):
    networks = [parts["soft"], parts["sharp"]]
    combine(networks, tmp_path / "both.onnx", parts["scout"], confirm_above=0.3)
    model = onnx.load(tmp_path / "both.onnx")
    assert {entry.domain for entry in model.opset_import} == {""}
