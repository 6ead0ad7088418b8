"""What holds at every scale and for every kind of weight: positions, distances, rates, stains."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from segmitos.cli import main
from segmitos.detection.stain import OD_TABLE, Stain
from segmitos.errors import UsageError
from segmitos.training.augment import NONE, augment_stain
from segmitos.training.loop import _one_step
from segmitos.training.optimizer import make_optimizer, set_learning_rate
from segmitos.training.recipe import Recipe
from segmitos.training.run import make_fabric
from segmitos.training.sampling import CropSampler, TrainingImage, load_training_images
from segmitos.training.validate import validate
from tests.factories.synthetic_fields import write_cases

NOTHING = np.zeros((0, 2))


def test_points_keep_their_half_pixel_at_another_scale(tmp_path):
    case = write_cases(tmp_path, slides=1, fields=1)[0]
    points = np.array([[10.0, 20.0], [0.0, 191.0]])
    case = dataclasses.replace(case, mitoses_xy=points, hard_negatives_xy=points)
    image = load_training_images([case], 0.5)[0]
    assert image.image.shape == (96, 96, 3)
    # Two pixels become one: the center of pixels 10 and 11 is that of pixel 5.
    expected = [[4.75, 9.75], [-0.25, 95.25]]
    assert image.mitoses_xy.tolist() == image.hard_negatives_xy.tolist() == expected


class Darkness(torch.nn.Module):
    """Certain of a mitosis where the image is black, of none where it is white."""

    stride = 4

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image_BCHW):
        light = torch.nn.functional.avg_pool2d(image_BCHW.mean(1, keepdim=True), 4)
        return (128 - light) / 10


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
@pytest.mark.parametrize(("away_um", "hits"), [(6.0, 1), (9.0, 0)])
def test_validation_matches_within_micrometers_at_every_scale(mpp, away_um, hits):
    image = np.full((128, 128, 3), 255, np.uint8)
    image[56:72, 56:72] = 0
    place = np.array([[63.5 + away_um / mpp, 63.5]])
    source = TrainingImage("f", "S", image, place, NOTHING, False)
    recipe = Recipe(mpp=mpp, smoothing_sigma_um=0.0)
    figures, examples = validate(Darkness(), [source], recipe)
    assert figures["precision_fixed"] == figures["recall_fixed"] == figures["f_fixed"] == hits
    kinds = [example.kind for example in examples]
    assert kinds == (["found"] if hits else ["wrong", "missed"])


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_examples_of_validation_are_where_they_are_in_the_file(ratio):
    image = np.full((128, 128, 3), 255, np.uint8)
    image[56:72, 56:72] = 0
    place = np.array([[100.0, 20.0]])
    source = TrainingImage("f", "S", image, place, NOTHING, False, ratio=ratio)
    _, (wrong, missed) = validate(Darkness(), [source], Recipe(smoothing_sigma_um=0.0))
    middle = (63.5 + 0.5) * ratio - 0.5
    assert (wrong.x_px, wrong.y_px) == (middle, middle)
    assert (missed.x_px, missed.y_px) == (100.5 * ratio - 0.5, 20.5 * ratio - 0.5)


def test_biases_have_their_own_rate_and_do_not_decay():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))
    with torch.no_grad():
        for value in network.parameters():
            value.fill_(3.0)
    recipe = Recipe(
        optimizer="sgd",
        momentum=0.0,
        learning_rate=0.1,
        bias_rate=2.0,
        weight_decay=0.5,
        schedule="constant",
        warmup_steps=0,
    )
    optimizer = make_optimizer(network, recipe)
    set_learning_rate(optimizer, recipe, 0)
    for value in network.parameters():
        value.grad = torch.ones_like(value)
    optimizer.step()
    after = {name: round(float(value.detach()), 6) for name, value in network.named_parameters()}
    # The weight: its gradient and half of itself, at the rate. All others: twice the rate alone.
    assert after == {"0.weight": 2.75, "0.bias": 2.8, "1.weight": 2.8, "1.bias": 2.8}


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_gradient_of_a_summed_loss_is_that_of_all_devices_together(reduction):
    """Of two devices each has half of the batch, and their gradients are averaged."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8))
    labels = torch.from_numpy(rng.integers(0, 2, (4, 8, 8)).astype(np.uint8))

    def gradient(part: slice, devices: int) -> torch.Tensor:
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 2, 1)
        run: Any = SimpleNamespace(
            recipe=Recipe.from_dict({"reduction": reduction, "gradient_clip": 0.0}),
            step=0,
            mine_steps=set(),
            network=network,
            wrapped=network,
            optimizer=torch.optim.SGD(
                [{"params": list(network.parameters()), "rate": 0.0}], lr=0.0
            ),
            average=SimpleNamespace(update_parameters=lambda network: None),
            fabric=SimpleNamespace(
                device=torch.device("cpu"),
                world_size=devices,
                backward=lambda loss: loss.backward(),
            ),
            losses=[],
            tell=lambda event, content: None,
        )
        batches: Any = SimpleNamespace(take=lambda step, more: (images[part], labels[part]))
        _one_step(run, batches)
        assert network.weight.grad is not None
        return network.weight.grad

    alone = gradient(slice(None), 1)
    averaged = (gradient(slice(2), 2) + gradient(slice(2, 4), 2)) / 2
    torch.testing.assert_close(averaged, alone)


def test_more_devices_than_crops_in_a_batch_are_refused():
    with pytest.raises(UsageError, match=r"devices 2 .* batch = 1, .* --devices 1"):
        make_fabric(Recipe(batch=1), "cpu", 2)


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_devices_the_first_process_alone_writes_the_model(tmp_path, monkeypatch, rank):
    for case in write_cases(tmp_path / "clicks"):
        case.image.with_suffix(".csv").write_text("x,y\n30,40\n")
    finished = []

    def finish(*given):
        finished.append(given)
        return SimpleNamespace(text=lambda: "done")

    monkeypatch.setattr("segmitos.training.train.train", lambda *given, **settings: None)
    monkeypatch.setattr("segmitos.training.finish.finish", finish)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
    given = [f"points:{tmp_path / 'clicks'}", "--mpp", "0.25", "--devices", "2"]
    assert main(["train", *given, "-o", str(tmp_path / "run")]) == 0
    assert len(finished) == 1 - rank


def test_stain_jitter_leaves_a_pure_stain_pure():
    """Hematoxylin may become more or less; it does not turn into eosin."""
    hematoxylin = np.array([0.65, 0.70, 0.29])
    levels = [np.rint(np.exp(-c * hematoxylin) * 256 - 1).astype(np.uint8) for c in (0.4, 1.4)]
    crop = np.stack(levels)[None]
    recipe = msgspec.structs.replace(NONE, stain_jitter=0.3)
    gains = []
    for seed in range(20):
        out = augment_stain(crop, None, [], None, recipe, np.random.default_rng(seed))
        # Whatever is added to all pixels alike goes out in the difference of two.
        change = np.diff(OD_TABLE[out][0].astype(float), axis=0)[0]
        along = change @ hematoxylin / (np.linalg.norm(change) * np.linalg.norm(hematoxylin))
        assert along > 0.998
        gains.append(np.linalg.norm(change))
    assert np.std(gains) > 0.05


def test_stain_transfer_moves_mean_and_spread_by_one_fraction():
    rng = np.random.default_rng(0)
    crop = rng.integers(90, 200, (64, 64, 3)).astype(np.uint8)
    density = OD_TABLE[crop].reshape(-1, 3).astype(float)
    own = Stain(tuple(density.mean(0)), tuple(density.std(0)))
    other = Stain(tuple(density.mean(0) + 0.3), tuple(density.std(0) * 0.7))
    recipe = msgspec.structs.replace(NONE, stain_transfer=1.0)
    fractions = []
    for seed in range(10):
        out = augment_stain(crop, own, [other], None, recipe, np.random.default_rng(seed))
        moved = OD_TABLE[out].reshape(-1, 3).astype(float)
        by_mean = (moved.mean(0) - own.mean) / 0.3
        by_spread = (moved.std(0) / own.std - 1) / -0.3
        np.testing.assert_allclose(by_mean, by_spread, atol=0.05)
        fractions.append(by_mean.mean())
    assert 0.28 < min(fractions) < max(fractions) < 1.02
    assert max(fractions) - min(fractions) > 0.2


def test_black_padding_teaches_nothing(tmp_path):
    pixels = np.full((128, 128, 3), 190, np.uint8)
    pixels[:, :40] = 0
    Image.fromarray(pixels).save(tmp_path / "edge.png")
    source = TrainingImage("edge", "S", pixels, np.array([[90.0, 64.0]]), NOTHING, False)
    recipe = Recipe.from_dict(
        {
            "crop_px": 128,
            "labels": {"kind": "circle"},
            "augmentation": msgspec.to_builtins(NONE),
            "sampling": {
                "mitosis": 1.0,
                "centered": 0.0,
                "hard_negative": 0.0,
                "mined": 0.0,
                "background": 0.0,
                "shift_px": 0,
            },
        }
    )
    image, label = CropSampler([source], recipe, 4).sample(0, 0)
    black = (image == 0).all(axis=2)[2::4, 2::4]
    assert black.any() and (label[black] == 255).all()
    # Beside it is what is known to be background; reflections at the image's border are not.
    shown = (image == 190).all(axis=2)[2::4, 2::4]
    assert (label[shown] == 0).any()
