"""Initial weights from files that the tests write: torchvision's names, Caffe's net, a run."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from experiments.convert_caffe import LAYERS, convert, net_parameter, read_caffemodel
from segmitos.errors import ModelError, UsageError
from segmitos.training.checkpoint import TrainingState, save_checkpoint
from segmitos.training.networks.fcn import FCN
from segmitos.training.networks.lite import LiteNetwork
from segmitos.training.weights import load_weights

WIDTH = 1 / 32
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def vgg16_tensors(network: FCN) -> dict[str, torch.Tensor]:
    """Random weights in torchvision's names and shapes for a network of this width."""
    generator = torch.Generator().manual_seed(7)
    own = network.state_dict()
    names = {f"features.{i}": f"features.{i}" for i in CONVOLUTIONS}
    names |= {"fc6": "classifier.0", "fc7": "classifier.3"}
    found = {}
    for ours, theirs in names.items():
        weight = torch.randn(own[f"{ours}.weight"].shape, generator=generator) * 0.1
        found[f"{theirs}.weight"] = weight.flatten(1) if theirs.startswith("class") else weight
        found[f"{theirs}.bias"] = torch.randn(len(weight), generator=generator) * 0.1
    width = len(found["classifier.3.bias"])
    found["classifier.6.weight"] = torch.randn(1000, width, generator=generator)
    found["classifier.6.bias"] = torch.zeros(1000)
    return found


def classify(tensors: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """VGG-16 as torchvision computes it, up to its second fully connected layer."""
    x = image
    template = FCN(32, WIDTH)
    for index, layer in enumerate(template.features):
        if isinstance(layer, nn.Conv2d):
            x = nn.functional.conv2d(
                x, tensors[f"features.{index}.weight"], tensors[f"features.{index}.bias"], padding=1
            )
        else:
            x = layer(x)
    x = x.flatten(1)
    for name in ("classifier.0", "classifier.3"):
        x = torch.relu(nn.functional.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"]))
    return x


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_vgg16_computes_as_its_classifier_did(tmp_path, suffix):
    network = FCN(32, WIDTH).eval()
    tensors = vgg16_tensors(network)
    path = tmp_path / f"vgg16.{suffix}"
    if suffix == "pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    load_weights(network, f"vgg16:{path}")
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        pool5 = network.maps(image)[2]
        # The classifier saw the whole 7 x 7 map: the center cell of the padded convolution.
        fully = torch.relu(network.fc7(torch.relu(network.fc6(pool5))))[:, :, 3, 3]
        assert torch.allclose(fully, classify(tensors, image), rtol=1e-4, atol=1e-5)
        assert float(fully.std()) > 0


def test_vgg16_keeps_the_scale_that_it_was_trained_with(tmp_path):
    network = FCN(8, WIDTH)
    network.mean.zero_()
    save_file(vgg16_tensors(network), tmp_path / "v.safetensors")
    load_weights(network, f"vgg16:{tmp_path / 'v.safetensors'}")
    assert network.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert network.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])


def write_caffemodel(path, network: FCN, old: bool, skip: str = "") -> dict[str, np.ndarray]:
    """A net as Caffe writes it; `old` is the layout of before 2015, shapes as four numbers."""
    rng = np.random.default_rng(11)
    net = net_parameter()(name="fcn")
    weights = {}
    own = network.state_dict()
    for theirs, ours in LAYERS.items():
        shape = tuple(own[f"{ours}.weight"].shape)
        weights[theirs] = rng.normal(size=shape).astype(np.float32)
        bias = rng.normal(size=shape[0]).astype(np.float32)
        weights[f"{theirs} bias"] = bias
        if theirs == skip:
            continue
        layer = (net.layers if old else net.layer).add(name=theirs)
        for values in (weights[theirs], bias):
            blob = layer.blobs.add()
            blob.data.extend(values.ravel().tolist())
            if old:
                four = (1,) * (4 - values.ndim) + values.shape
                blob.num, blob.channels, blob.height, blob.width = four
            else:
                blob.shape.dim.extend(values.shape)
    (net.layers if old else net.layer).add(name="relu1_1")
    path.write_bytes(net.SerializeToString())
    return weights


@pytest.mark.parametrize("old", [True, False])
def test_the_caffe_net_is_read_and_its_colors_turned(tmp_path, old):
    network = FCN(16, WIDTH).eval()
    weights = write_caffemodel(tmp_path / "fcn.caffemodel", network, old)
    load_weights(network, f"fcn32s:{convert(tmp_path / 'fcn.caffemodel')}")
    own = network.state_dict()
    assert np.array_equal(own["features.0.weight"].numpy(), weights["conv1_1"][:, ::-1])
    assert np.array_equal(own["features.28.weight"].numpy(), weights["conv5_3"])
    assert np.array_equal(own["fc6.weight"].numpy(), weights["fc6"])
    assert np.array_equal(own["fc7.bias"].numpy(), weights["fc7 bias"])
    # On an image, the first layer is Caffe's on BGR less its means.
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 255
    bgr = image.flip(1) - torch.tensor([104.00698793, 116.66876762, 122.67891434]).view(1, 3, 1, 1)
    expected = nn.functional.conv2d(
        bgr,
        torch.from_numpy(weights["conv1_1"]),
        torch.from_numpy(weights["conv1_1 bias"]),
        padding=1,
    )
    got = network.features[0]((image - network.mean) / network.std)
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-2)


def test_the_wire_format_is_that_of_caffe(tmp_path):
    """Bytes put together by hand, from the field numbers of caffe.proto."""

    def field(number: int, content: bytes) -> bytes:
        key = number << 3 | 2
        head = bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])
        return head + bytes([len(content)]) + content

    values = np.array([1.5, -2.0, 3.25], "<f4").tobytes()
    blob = field(7, field(1, bytes([1, 3]))) + field(5, values)
    layer = field(1, b"conv") + field(2, b"Convolution") + field(7, blob)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(field(1, b"net") + field(100, layer))
    assert list(read_caffemodel(path)) == ["conv"]
    assert read_caffemodel(path)["conv"][0].tolist() == [[1.5, -2.0, 3.25]]


def test_a_run_of_an_earlier_stage_starts_the_next(tmp_path):
    earlier = FCN(32, WIDTH).eval()
    nn.init.normal_(earlier.score_fr.weight)
    earlier.mean.fill_(3.0)
    save_checkpoint(tmp_path / "run", {"ema": earlier.state_dict()}, TrainingState(step=1))
    later = FCN(16, WIDTH).eval()
    load_weights(later, f"run:{tmp_path / 'run'}")
    image = torch.rand(1, 3, 40, 64) * 255
    with torch.inference_mode():
        assert torch.equal(earlier(image), later(image))
    back = FCN(32, WIDTH)
    save_checkpoint(tmp_path / "later", {"ema": later.state_dict()}, TrainingState(step=1))
    with pytest.raises(ModelError, match=r"holds score_pool4.*does not have"):
        load_weights(back, f"run:{tmp_path / 'later'}")


class Code:
    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.pth", None, r"cannot read weights .*no\.pth"),
        ("bad.pth", b"not weights", r"damaged or no file of tensors"),
        ("code.pth", pickle.dumps(Code(), protocol=2), r"damaged or no file of tensors"),
        ("bad.safetensors", b"{}", r"damaged or no file of tensors"),
    ],
)
def test_a_bad_vgg16_file_gives_one_clear_line(tmp_path, capsys, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load_weights(FCN(32, WIDTH), f"vgg16:{tmp_path / name}")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_weights_that_do_not_fit_name_the_tensor(tmp_path):
    network = FCN(32, WIDTH)
    tensors = vgg16_tensors(network)
    path = tmp_path / "v.safetensors"
    save_file({k: v for k, v in tensors.items() if k != "features.5.bias"}, path)
    with pytest.raises(ModelError, match=r"lack features\.5\.bias"):
        load_weights(network, f"vgg16:{path}")
    save_file(vgg16_tensors(FCN(32, WIDTH * 2)), path)
    with pytest.raises(ModelError, match=r"classifier\.0\.weight has shape|features\.\d+"):
        load_weights(network, f"vgg16:{path}")


def test_a_bad_caffemodel_gives_one_clear_line(tmp_path):
    path = tmp_path / "x.caffemodel"
    path.write_bytes(b"\xff\xff\xff")
    with pytest.raises(ModelError, match=r"is no \.caffemodel, or damaged"):
        convert(path)
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="holds no layer with weights"):
        convert(path)
    write_caffemodel(path, FCN(32, WIDTH), old=False, skip="fc7")
    with pytest.raises(ModelError, match="lacks layer fc7"):
        convert(path)
    net = net_parameter()()
    blob = net.layer.add(name="conv1_1").blobs.add()
    blob.shape.dim.extend([2, 2])
    blob.data.extend([1.0, 2.0, 3.0])
    path.write_bytes(net.SerializeToString())
    with pytest.raises(ModelError, match=r"layer conv1_1: 3 numbers do not fill"):
        convert(path)


def test_a_source_of_another_form_is_refused():
    with pytest.raises(UsageError, match="write vgg16:FILE"):
        load_weights(FCN(32, WIDTH), "vgg.pth")
    with pytest.raises(UsageError, match="for fcn32s, fcn16s and fcn8s alone"):
        load_weights(LiteNetwork(), "vgg16:x.pth")
