"""Model files: what is taken, what is refused and how."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from factories.synthetic_fields import draw_field
from factories.toy_models import SPEC, toy_graph, write_toy
from segmitos.detection.model import DEFAULT_MODEL, METADATA_KEY, WHOLE_MODEL, Model, ModelSpec
from segmitos.detection.openvino_runtime import compile_openvino
from segmitos.errors import ModelError, UsageError


def test_a_model_file_is_read_back_as_written(tmp_path):
    model = Model.load(write_toy(tmp_path / "toy.onnx"), "cpu", 1)
    assert model.spec == SPEC and len(model.sha256) == 64 and model.device == "cpu"
    images = np.full((1, 64, 96, 3), 240, np.uint8)
    images[0, 20:40, 40:60] = 10
    probability = model.predict(images)
    assert probability.shape == (1, 16, 24) and probability.dtype == np.float32
    assert probability[0, 7, 12] > 0.99 and probability[0, 2, 2] < 0.01


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a model file"),
        (b"this is no model", "not a model file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a model file"),
        (toy_graph({}), "no 'segmitos' metadata"),
        (toy_graph({METADATA_KEY: "{"}), "not JSON"),
        (toy_graph({METADATA_KEY: "[]"}), "no JSON object"),
        (toy_graph({METADATA_KEY: '{"format_version": 9}'}), "format 9"),
        (toy_graph({METADATA_KEY: '{"format_version": 1}'}), "missing"),
    ],
)
def test_a_file_that_is_no_model_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "wrong.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        Model.load(path, "cpu", 1)
    assert "wrong.onnx" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mpp", -1.0),
        ("mpp", "0.25"),
        ("stride", 3),
        ("stride", 4.0),
        ("license", None),
        ("validation", "good"),
        ("color", {"mean": [1, 2, 3], "std": [1, 2]}),
        ("color", {"mean": [1, 2, 3], "std": [0, 1, 2]}),
        ("datasets", None),
        ("context_px", -4),
        ("thresholds", {"binarization": 2.0, "min_area_um2": 1.0, "min_score": 0.5}),
        ("thresholds", {"binarization": 0.5}),
        ("color", {"mean": [1, 2, 3]}),
        ("extra", 1),
    ],
)
def test_wrong_metadata_is_refused_by_key(key, value):
    content = json.loads(SPEC.to_json())
    content[key] = value
    with pytest.raises(ModelError, match=r"m\.onnx"):
        ModelSpec.from_json(json.dumps(content), "m.onnx")


def test_a_map_of_another_stride_than_stated_is_refused(tmp_path):
    model = Model.load(write_toy(tmp_path / "toy.onnx", stride=8), "cpu", 1)
    with pytest.raises(ModelError, match="stride of 8"):
        model.predict(np.zeros((1, 64, 64, 3), np.uint8))


def test_an_image_that_the_graph_cannot_take_is_an_error_of_one_line(tmp_path):
    model = Model.load(write_toy(tmp_path / "toy.onnx"), "cpu", 1)
    with pytest.raises(ModelError, match=r"toy\.onnx failed on 1 x 64 x 64 px") as caught:
        model.predict(np.zeros((1, 64, 64, 4), np.uint8))
    assert "\n" not in str(caught.value)


def test_a_graph_of_another_signature_is_refused(tmp_path):
    path = tmp_path / "other.onnx"
    content = toy_graph({METADATA_KEY: SPEC.to_json()})
    path.write_bytes(content.replace(b"probability", b"probabilita"))
    with pytest.raises(ModelError, match="'probability'"):
        Model.load(path, "cpu", 1)


def test_whole_slides_go_to_openvino_where_the_device_is_free(tmp_path):
    pytest.importorskip("openvino")
    path = write_toy(tmp_path / "toy.onnx")
    free = Model.load(path, "auto", 1)
    assert free.for_work(5_000_000) is free and free.device in ("cpu", "cuda")
    if free.device == "cpu":
        large = free.for_work(500_000_000)
        assert large.device == "openvino" and large.sha256 == free.sha256
        assert free.for_work(500_000_000) is large
        early = Model.load(path, "auto", 1)
        assert early.get_ready(5_000_000) is None
        started = early.get_ready(500_000_000)
        assert started is not None and early.get_ready(500_000_000) is started
        assert early.for_work(5_000_000) is early
        assert early.for_work(500_000_000).device == "openvino"
        assert early.for_work(500_000_000) is started.result()
    forced = Model.load(path, "cpu", 1)
    assert forced.for_work(500_000_000) is forced


@pytest.mark.parametrize("threads", [2, 3, 6])
def test_slides_go_through_onnx_runtime_in_streams_with_the_same_bytes(threads):
    one, many = Model.load(device="cpu", threads=1), Model.load(device="cpu", threads=threads)
    assert one.for_work(500_000_000) is one and many.for_work(5_000_000) is many
    large = many.for_work(500_000_000)
    assert large.streams == min(threads, 4) and large.device == "cpu"
    assert (large.sha256, large.spec) == (one.sha256, one.spec)
    rng = np.random.default_rng(9)
    images = [draw_field(rng, size=256, mitoses=6, others=4)[0][None] for _ in range(6)]
    with ThreadPoolExecutor(large.streams) as pool:
        found = list(pool.map(large.predict, images))
    for image, map_ in zip(images, found, strict=True):
        np.testing.assert_array_equal(map_, one.predict(image))
    assert max(map_.max() for map_ in found) > 0.3
    assert many.for_work(500_000_000) is large
    many.rest()
    again = many.for_work(500_000_000)
    assert again is not large and again.streams == large.streams


def test_openvino_stays_ready_between_slides(tmp_path):
    pytest.importorskip("openvino")
    free = Model.load(write_toy(tmp_path / "toy.onnx"), "auto", 2)
    large = free.for_work(500_000_000)
    free.rest()
    assert free.for_work(500_000_000) is large


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.onnx"):
        Model.load(tmp_path / "absent.onnx")


def test_a_forced_device_that_is_not_there_is_an_error(tmp_path):
    import onnxruntime

    path = write_toy(tmp_path / "toy.onnx")
    with pytest.raises(UsageError, match="tpu"):
        Model.load(path, "tpu")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ModelError, match="device cuda"):
            Model.load(path, "cuda")


def test_openvino_gives_the_same_map(tmp_path):
    pytest.importorskip("openvino")
    path = write_toy(tmp_path / "toy.onnx")
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    cpu = Model.load(path, "cpu", 1).predict(images)
    other = Model.load(path, "openvino", 1)
    assert other.device == "openvino"
    np.testing.assert_allclose(other.predict(images), cpu, atol=0.02)


@pytest.mark.parametrize(("path", "tolerance"), [(DEFAULT_MODEL, 1e-5), (WHOLE_MODEL, 3e-4)])
def test_beyond_its_context_nothing_sways_a_shipped_model(path, tolerance):
    model = Model.load(path, "cpu", 2)
    image = draw_field(np.random.default_rng(2), size=512, mitoses=20, others=20)[0][None]
    edge, context = 256, model.spec.context_px
    other = image.copy()
    other[:, :, edge + context :] = 255
    nearer = image.copy()
    nearer[:, :, edge + 8 :] = 255
    cells = edge // model.spec.stride
    before, after, near = (model.predict(i)[0, :, :cells] for i in (image, other, nearer))
    assert np.abs(before - after).max() <= tolerance
    assert np.abs(before - near).max() > 1e-3


@pytest.mark.parametrize(("name", "streams"), [("lite-float", 2), ("lite", 1)])
def test_streams_of_openvino_run_at_once_and_give_the_same_bytes(name, streams, monkeypatch):
    # Integers in loops stay in one stream: OpenVINO gets them wrong in two.
    pytest.importorskip("openvino")
    monkeypatch.setattr("segmitos.detection.openvino_runtime.STREAMS", 2)
    one, two = (Model.load(name, "openvino", threads) for threads in (1, 2))
    assert (one.streams, two.streams) == (1, streams)
    rng = np.random.default_rng(0)
    images = [draw_field(rng, size=256, mitoses=4, others=4)[0][None] for _ in range(6)]
    expected = [one.predict(image) for image in images]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(two.predict, images))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_openvino_in_float32_agrees_with_onnx_runtime(monkeypatch):
    pytest.importorskip("openvino")
    image = draw_field(np.random.default_rng(1), size=384, mitoses=12, others=8)[0][None]
    expected = Model.load(WHOLE_MODEL, "cpu", 1).predict(image)
    run, _ = compile_openvino(WHOLE_MODEL.read_bytes(), 1, "float32")
    np.testing.assert_allclose(run(image, None), expected, atol=2e-4)
    rounded, _ = compile_openvino(WHOLE_MODEL.read_bytes(), 1)
    assert np.abs(rounded(image, None) - expected).max() < 0.1
