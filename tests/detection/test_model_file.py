"""The model file: what is read back, and what is refused, in one line that names the file."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from segmitos.detection.graph_check import check_graph
from segmitos.detection.model import DEFAULT_MODEL, Model
from segmitos.detection.model_file import (
    model_file_bytes,
    parse_model_file,
    read_model_file,
    write_model_file,
)
from segmitos.errors import ModelError, SegMitosError
from tests.factories.toy_models import SPEC, toy_graph, write_toy, write_toy_cascade

NETWORK = "network-0.onnx"


def toy_file(**changes: object) -> bytes:
    """Return a model file with changes to its model.json."""
    about = msgspec.to_builtins(SPEC)
    about["graphs"] = {NETWORK: hashlib.sha256(toy_graph()).hexdigest()}
    return zipped({"model.json": json.dumps({**about, **changes}).encode(), NETWORK: toy_graph()})


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def refused(content: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        parse_model_file(content, "m.segmitos")
    assert str(caught.value).startswith("m.segmitos") and "\n" not in str(caught.value)


def test_a_model_file_is_read_back_as_written_and_the_same_bytes_each_time(tmp_path):
    first, second = (write_toy(tmp_path / f"{name}.segmitos") for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    file = read_model_file(first)
    assert file.spec == SPEC and file.networks == (toy_graph(),)
    assert file.proposal is None and file.verifier is None
    assert file.sha256 == hashlib.sha256(first.read_bytes()).hexdigest()
    names = zipfile.ZipFile(first).namelist()
    assert names == ["model.json", NETWORK]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a SegMitos model file"),
        (b"this is no model", "not a SegMitos model file"),
        (toy_graph(), "not a SegMitos model file"),
        (zipped({}), "holds no model.json"),
        (zipped({"model.json": b"{"}), "not JSON"),
        (zipped({"model.json": b"[]"}), "model.json: Expected `object`"),
        (zipped({"model.json": b"[" * 100_000}), "not JSON"),
        (zipped({"model.json": b'{"format_version": 9}'}), "format 9"),
        (zipped({"model.json": b'{"format_version": 2}'}), "missing required field"),
        (zipped({"model.json": b"{}", "../x.onnx": b""}), "does not belong"),
        (zipped({"model.json": b"{}", "/etc/x": b""}), "does not belong"),
        (zipped({"model.json": b"{}" * 9999}, zipfile.ZIP_DEFLATED), "claim to be larger"),
        (zipped({"model.json": bytes(range(256))}, zipfile.ZIP_LZMA), "is compressed"),
    ],
)
def test_a_file_that_is_no_model_is_refused_by_name(content, message):
    refused(content, message)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mpp", -1.0),
        ("mpp", "0.25"),
        ("mpp", None),
        ("stride", 3),
        ("stride", 4.5),
        ("license", None),
        ("validation", "good"),
        ("stain", {"mean": [1, 2, 3], "std": [1, 2]}),
        ("stain", {"mean": [1, 2, 3], "std": [0, 1, 2]}),
        ("stain", {"mean": [1, 2, 3]}),
        ("datasets", None),
        ("context_px", -4),
        ("context_px", 10**9),
        ("thresholds", {"threshold": 2.0, "min_area_um2": 1.0, "min_score": 0.5}),
        ("thresholds", {"threshold": 0.5}),
        ("cascade", {"proposal_network": "x"}),
        ("graphs", {}),
        ("graphs", {NETWORK: "0" * 64}),
        ("graphs", None),
        ("extra", 1),
    ],
)
def test_a_wrong_key_of_the_specification_is_refused(key, value):
    assert parse_model_file(toy_file(), "m.segmitos").spec == SPEC
    refused(toy_file(**{key: value}), r"m\.segmitos: ")


def graph_of(*nodes: onnx.NodeProto, constants: tuple[onnx.TensorProto, ...] = ()) -> bytes:
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", "h", "w"])],
        constants,
    )
    return helper.make_model(graph).SerializeToString()


def external() -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "outside")
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd")
    tensor.ClearField("raw_data")
    return tensor


def promised() -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "huge")
    tensor.dims[:] = [1_000_000, 1_000_000]
    return tensor


EMPTY = helper.make_graph([], "body", [], [])


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (graph_of(helper.make_node("Loop", [], ["x"], body=EMPTY)), "'Loop' is not taken"),
        (graph_of(helper.make_node("If", ["c"], ["x"], then_branch=EMPTY)), "'If' is not taken"),
        (graph_of(helper.make_node("Scan", ["c"], ["x"], body=EMPTY)), "'Scan' is not taken"),
        (graph_of(helper.make_node("ConstantOfShape", ["s"], ["x"])), "'ConstantOfShape'"),
        (graph_of(helper.make_node("Add", ["c"], ["x"], body=EMPTY)), "holds a graph"),
        (graph_of(helper.make_node("Add", ["c"], ["x"], domain="evil")), "evil.Add"),
        (graph_of(constants=(external(),)), "data in another file"),
        (graph_of(helper.make_node("Constant", [], ["x"], value=external())), "another file"),
        (graph_of(constants=(promised(),)), "1,000,000,000,000 numbers"),
        (b"\xff" * 40, "is not an ONNX graph"),
        (b"", "is not an ONNX graph"),
        (toy_graph()[:-9], "is not an ONNX graph"),
    ],
)
def test_a_graph_that_may_run_for_ever_or_read_other_files_is_refused(graph, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        check_graph(graph, "m.segmitos: network-0.onnx")
    with pytest.raises(ModelError, match=message):
        write_model_file(tmp_path / "m.segmitos", SPEC, {NETWORK: graph})
    assert not list(tmp_path.iterdir())


def test_a_graph_of_another_signature_is_refused(tmp_path):
    path = tmp_path / "other.segmitos"
    write_model_file(path, SPEC, {NETWORK: toy_graph().replace(b"probability", b"probabilita")})
    with pytest.raises(ModelError, match="'probability'"):
        Model.load(path, "cpu", 1)


def test_networks_are_numbered_without_a_gap():
    refused(model_file_bytes(SPEC, {"network-1.onnx": toy_graph()}), "network-0.onnx")
    refused(model_file_bytes(SPEC, {}), "network-0.onnx")
    both = {NETWORK: toy_graph(), "proposal.onnx": toy_graph()}
    refused(model_file_bytes(SPEC, both), "'cascade' need each other")


def test_a_screening_network_and_its_key_need_each_other(tmp_path):
    file = read_model_file(write_toy_cascade(tmp_path / "m.segmitos", screened=True))
    assert file.screening is not None and file.graphs["screening.onnx"] == file.screening
    graphs = dict(file.graphs)
    del graphs["screening.onnx"]
    refused(model_file_bytes(file.spec, graphs), "'screening_patch_px' need each other")
    plain = read_model_file(write_toy_cascade(tmp_path / "plain.segmitos"))
    assert plain.screening is None
    both = {**plain.graphs, "screening.onnx": file.screening}
    refused(model_file_bytes(plain.spec, both), "'screening_patch_px' need each other")


def test_a_loaded_model_screens(tmp_path):
    screened = Model.load(write_toy_cascade(tmp_path / "m.segmitos", screened=True), "cpu", 1)
    plain = Model.load(write_toy_cascade(tmp_path / "plain.segmitos"), "cpu", 1)
    image = np.full((1, 320, 320, 3), 235, np.uint8)
    image[0, 64:80, 64:80] = 20
    image[0, 224:240, 224:240] = (255, 20, 0)  # let through by the proposal network alone
    kept, every = screened.predict(image)[0], plain.predict(image)[0]
    assert every[56:60, 56:60].max() > 0 and not kept[40:, 40:].any()
    np.testing.assert_array_equal(kept[:40, :40], every[:40, :40])
    assert kept.any()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9))
def test_a_damaged_file_is_a_model_error_or_nothing(seed):
    rng = np.random.default_rng(seed)
    content = bytearray(toy_file())
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(content)))
        kind = rng.integers(4)
        if kind == 0:
            content[at] = int(rng.integers(256))
        elif kind == 1:
            del content[at : at + int(rng.integers(1, 400))]
        elif kind == 2:
            content[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 9)), dtype=np.uint8))
        else:
            content[at : at + 4] = struct.pack("<I", int(rng.integers(2**32)))
        if not content:
            break
    try:
        parse_model_file(bytes(content), "m.segmitos")
    except SegMitosError as error:
        assert "\n" not in str(error)


def test_the_builtin_model_holds_plain_graphs_and_says_what_it_is():
    file = read_model_file(DEFAULT_MODEL)
    assert file.spec.cascade is not None and file.proposal is not None
    assert file.spec.datasets and file.spec.laboratories and file.spec.license
    assert file.spec.validation["tp"] > 0


def test_a_folder_in_place_of_a_model_file_is_called_one(tmp_path):
    with pytest.raises(ModelError, match=r"it is a folder; name a file \.segmitos"):
        read_model_file(tmp_path)
