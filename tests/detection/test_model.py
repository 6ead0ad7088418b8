"""Model files: what is taken, what is refused and how."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from segmitos.detection import model as model_module
from segmitos.detection.model import DEFAULT_MODEL, Model, is_builtin
from segmitos.detection.model_file import read_model_file
from segmitos.detection.runtimes import compile_openvino, import_onnxruntime, open_onnxruntime
from segmitos.errors import ModelError, UsageError
from tests.factories.synthetic_fields import draw_field
from tests.factories.toy_models import SPEC, write_toy, write_toy_cascade


def test_a_model_file_is_read_back_as_written(tmp_path):
    model = Model.load(write_toy(tmp_path / "toy.segmitos"), "cpu", 1)
    assert model.spec == SPEC and len(model.sha256) == 64 and model.device == "cpu"
    images = np.full((1, 64, 96, 3), 240, np.uint8)
    images[0, 20:40, 40:60] = 10
    probability = model.predict(images)
    assert probability.shape == (1, 16, 24) and probability.dtype == np.float32
    assert probability[0, 7, 12] > 0.99 and probability[0, 2, 2] < 0.01


def test_a_map_of_another_stride_than_stated_is_refused(tmp_path):
    model = Model.load(write_toy(tmp_path / "toy.segmitos", stride=8), "cpu", 1)
    with pytest.raises(ModelError, match="stride of 8"):
        model.predict(np.zeros((1, 64, 64, 3), np.uint8))


def test_an_image_that_the_graph_cannot_take_is_an_error_of_one_line(tmp_path):
    model = Model.load(write_toy(tmp_path / "toy.segmitos"), "cpu", 1)
    with pytest.raises(ModelError, match=r"toy\.segmitos failed on 1 x 64 x 64 px") as caught:
        model.predict(np.zeros((1, 64, 64, 4), np.uint8))
    assert "\n" not in str(caught.value)


def test_whole_slides_go_to_openvino_where_the_device_is_free(tmp_path):
    pytest.importorskip("openvino")
    path = write_toy(tmp_path / "toy.segmitos")
    free = Model.load(path, "auto", 1)
    assert free.runtime_for(5_000_000) is free and free.device in ("cpu", "cuda")
    if free.device == "cpu":
        large = free.runtime_for(500_000_000)
        assert large.device == "openvino" and large.sha256 == free.sha256
        assert free.runtime_for(500_000_000) is large
        early = Model.load(path, "auto", 1)
        assert early.prewarm(5_000_000) is None
        started = early.prewarm(500_000_000)
        assert started is not None and early.prewarm(500_000_000) is started
        assert early.runtime_for(5_000_000) is early
        assert early.runtime_for(500_000_000).device == "openvino"
        assert early.runtime_for(500_000_000) is started.result()
    forced = Model.load(path, "cpu", 1)
    assert forced.runtime_for(500_000_000) is forced


@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 3, 6])
def test_slides_go_through_onnx_runtime_in_streams_with_the_same_bytes(threads, tmp_path):
    path = write_toy_cascade(tmp_path / "toy.segmitos")
    one, many = (Model.load(path, "cpu", number) for number in (1, threads))
    assert one.runtime_for(500_000_000) is one and many.runtime_for(5_000_000) is many
    large = many.runtime_for(500_000_000)
    assert large.streams == min(threads, 4) and large.device == "cpu"
    assert (large.sha256, large.spec) == (one.sha256, one.spec)
    rng = np.random.default_rng(9)
    images = [draw_field(rng, size=256, mitoses=6, others=4)[0][None] for _ in range(6)]
    with ThreadPoolExecutor(large.streams) as pool:
        found = list(pool.map(large.predict, images))
    for image, map_ in zip(images, found, strict=True):
        np.testing.assert_array_equal(map_, one.predict(image))
    assert max(map_.max() for map_ in found) > 0.3
    assert many.runtime_for(500_000_000) is large
    many.release()
    again = many.runtime_for(500_000_000)
    assert again is not large and again.streams == large.streams


def test_streams_share_what_one_thread_runs(tmp_path, monkeypatch):
    started = []

    def counted(graph, where, device, threads, rank):
        started.append((where.rpartition(" ")[2], threads))
        return open_onnxruntime(graph, where, device, threads, rank)

    monkeypatch.setattr(model_module, "open_onnxruntime", counted)
    model = Model.load(write_toy_cascade(tmp_path / "toy.segmitos"), "cpu", 2)
    alone = [("network-0.onnx", 1), ("network-1.onnx", 1), ("proposal.onnx", 2)]
    assert sorted(started) == alone
    model.runtime_for(500_000_000)
    assert sorted(started) == sorted([*alone, ("proposal.onnx", 1)])
    # What was started for the slide is released with its streams.
    model.release()
    model.runtime_for(500_000_000)
    assert sorted(started) == sorted([*alone, *[("proposal.onnx", 1)] * 2])


def test_openvino_stays_ready_between_slides(tmp_path):
    pytest.importorskip("openvino")
    free = Model.load(write_toy(tmp_path / "toy.segmitos"), "auto", 2)
    large = free.runtime_for(500_000_000)
    free.release()
    assert free.runtime_for(500_000_000) is large


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.segmitos"):
        Model.load(tmp_path / "absent.segmitos")


def test_a_forced_device_that_is_not_there_is_an_error(tmp_path):

    path = write_toy(tmp_path / "toy.segmitos")
    with pytest.raises(UsageError, match="tpu"):
        Model.load(path, "tpu")
    if "CUDAExecutionProvider" not in import_onnxruntime().get_available_providers():
        with pytest.raises(ModelError, match="device cuda"):
            Model.load(path, "cuda")


def test_openvino_gives_the_same_map(tmp_path):
    pytest.importorskip("openvino")
    path = write_toy(tmp_path / "toy.segmitos")
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    cpu = Model.load(path, "cpu", 1).predict(images)
    other = Model.load(path, "openvino", 1)
    assert other.device == "openvino"
    np.testing.assert_allclose(other.predict(images), cpu, atol=0.02)


def test_input_beyond_its_context_does_not_affect_the_builtin_model(data_dir):
    """A mitosis lies 20 px left of the edge from which on the image is changed."""
    model = Model.load(DEFAULT_MODEL, "cpu", 2)
    edge, context = 256, model.spec.context_px
    frames = data_dir / "mitos-atypia-14" / "H03"
    pixels = np.asarray(Image.open(frames / "frames" / "x40" / "H03_01Cb.jpg").convert("RGB"))
    rows = (frames / "mitosis" / "H03_01Cb_mitosis.csv").read_text().split()
    points = [tuple(int(float(value)) for value in row.split(",")[:2]) for row in rows]
    height, width = pixels.shape[:2]
    x, y = next((x, y) for x, y in points if 236 < x < width - 276 and 256 < y < height - 256)
    image = np.ascontiguousarray(pixels[y - 256 : y + 256, x - 236 : x + 276])[None]
    other = image.copy()
    other[:, :, edge + context :] = 255
    nearer = image.copy()
    nearer[:, :, edge + 8 :] = 255
    cells = edge // model.spec.stride
    before, after, near = (model.predict(i)[0, :, :cells] for i in (image, other, nearer))
    assert np.abs(before - after).max() <= 1e-5
    assert np.abs(before - near).max() > 1e-3


@pytest.mark.slow
def test_streams_of_openvino_run_at_once_and_give_the_same_bytes():
    pytest.importorskip("openvino")
    one, two = (Model.load("lite", "openvino", threads) for threads in (1, 2))
    assert (one.streams, two.streams) == (1, 2)
    rng = np.random.default_rng(0)
    images = [draw_field(rng, size=256, mitoses=4, others=4)[0][None] for _ in range(6)]
    expected = [one.predict(image) for image in images]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(two.predict, images))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_openvino_in_float32_agrees_with_onnx_runtime():
    pytest.importorskip("openvino")
    image = draw_field(np.random.default_rng(1), size=384, mitoses=12, others=8)[0][None]
    graph = read_model_file(DEFAULT_MODEL).proposal
    expected = open_onnxruntime(graph, "proposal", "cpu", 1)[0](image)
    assert np.ptp(expected) > 0.5
    run = compile_openvino(graph, "proposal", 1, 1, "float32")
    np.testing.assert_allclose(run(image), expected, atol=2e-4)
    rounded = compile_openvino(graph, "proposal", 1, 1)
    assert np.abs(rounded(image) - expected).max() < 0.1


def test_the_builtin_model_goes_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_builtin("lite") and not is_builtin("nothing")
    assert Model.load("lite").spec.name == "lite"
    with pytest.raises(ModelError, match=r"lite-int8: .*built-in models: lite$"):
        Model.load("lite-int8")
    (tmp_path / "lite").write_text("a file of that name comes first")
    assert not is_builtin("lite")
