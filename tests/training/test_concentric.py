"""The label's geometry and the loss, against their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segmitos.errors import DataError, UsageError
from segmitos.training.concentric import IGNORED, LabelRecipe, concentric_label, concentric_loss
from segmitos.training.recipe import Recipe


def label_of(points, inner, outer, shape=(64, 64), stride=1):
    points = np.asarray(points, float).reshape(-1, 2)
    return concentric_label(
        points, np.full(len(points), inner), np.full(len(points), outer), shape, stride
    )


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("xy", [(32.0, 32.0), (20.3, 40.7), (0.0, 0.0), (63.0, 10.0)])
def test_disc_and_ring_are_exactly_the_cells_within_the_radii(stride, xy):
    shape = (64 // stride, 64 // stride)
    label = label_of([xy], 7.0, 12.0, shape, stride)
    rows, columns = np.mgrid[: shape[0], : shape[1]] * stride + (stride - 1) / 2
    distance = np.hypot(columns - xy[0], rows - xy[1])
    expected = np.where(distance <= 7, 1, np.where(distance <= 12, IGNORED, 0))
    np.testing.assert_array_equal(label, expected)


def test_a_ring_never_erases_the_disc_of_a_close_neighbor():
    both = label_of([(20, 32), (34, 32)], 8, 16)
    for x in (20, 34):
        alone = label_of([(x, 32)], 8, 8)
        assert (both[alone == 1] == 1).all()


def test_a_circle_has_no_ring():
    assert not (label_of([(30, 30)], 6, 6) == IGNORED).any()


def test_clipping_at_the_border_paints_nothing_elsewhere():
    label = label_of([(-5, 32)], 3, 4)
    assert not label.any()
    beyond = label_of([(-5, 32)], 8, 10)
    assert beyond[:, 8:].sum() == 0
    assert beyond[32, 0] == 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-20, 84), st.floats(-20, 84)), max_size=6),
    st.floats(1, 10),
    st.floats(1, 2.5),
)
def test_transposing_points_transposes_the_label(points, radius, factor):
    a = label_of(points, radius, radius * factor)
    b = label_of([(y, x) for x, y in points], radius, radius * factor)
    np.testing.assert_array_equal(a, b.T)


def test_random_radii_stay_in_the_papers_range_and_change():
    inner, outer = LabelRecipe("random").draw_radii(500, np.random.default_rng(0))
    assert inner.min() >= 2.5 and inner.max() <= 4.25
    assert (outer / inner).min() >= 1.5 and (outer / inner).max() <= 2.5
    assert len(np.unique(inner)) == 500


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "disc"},
        {"kind": "concentric", "radius_um": 5.0, "outer_um": 4.0},
        {"radius_um": 0.0},
        {"outer_factor_range": (0.5, 2.0)},
    ],
)
def test_impossible_labels_are_refused(wrong):
    with pytest.raises(DataError, match="labels"):
        Recipe.from_dict({"labels": wrong})


@pytest.mark.parametrize("channels", [1, 2])
def test_the_loss_is_the_papers_sum_over_discs_and_background(channels):
    torch.manual_seed(0)
    logits = torch.randn(2, channels, 8, 8, requires_grad=True)
    label = torch.from_numpy(
        np.random.default_rng(0).choice([0, 1, 255], (2, 8, 8)).astype(np.uint8)
    )
    two = logits if channels == 2 else torch.cat([torch.zeros_like(logits), logits], dim=1)
    log_p = torch.log_softmax(two, dim=1)
    expected = -(log_p[:, 1][label == 1].sum() + log_p[:, 0][label == 0].sum())
    total = concentric_loss(logits, label, "sum")
    torch.testing.assert_close(total, expected)
    mean = concentric_loss(logits, label, "mean")
    torch.testing.assert_close(mean, expected / (label != 255).sum())


def test_ignored_pixels_have_no_gradient_and_no_say_in_the_normalizer():
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    label = torch.full((1, 4, 4), IGNORED, dtype=torch.uint8)
    label[0, 0, 0], label[0, 0, 1] = 1, 0
    concentric_loss(logits, label).backward()
    gradient = logits.grad[0, 0]
    assert gradient[0, 0] == pytest.approx(-0.25)
    assert gradient[0, 1] == pytest.approx(0.25)
    assert gradient[1:].abs().sum() == 0


def test_all_ignored_gives_zero_not_nan():
    logits = torch.randn(1, 1, 4, 4, requires_grad=True)
    loss = concentric_loss(logits, torch.full((1, 4, 4), IGNORED, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().sum() == 0


def test_sizes_that_differ_are_refused():
    with pytest.raises(UsageError, match="differ in size"):
        concentric_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5, 4, dtype=torch.uint8))


def test_the_focal_weight_is_that_of_lin_et_al():
    logits = torch.tensor([[[[2.0, -1.0], [0.5, 3.0]]]])
    label = torch.tensor([[[1, 0], [0, 255]]])
    true_class = torch.tensor([torch.sigmoid(torch.tensor(z)) for z in (2.0, 1.0, -0.5)])
    expected = (-torch.log(true_class) * (1 - true_class) ** 2).mean()
    torch.testing.assert_close(concentric_loss(logits, label, focal=2.0), expected)
    assert concentric_loss(logits, label, focal=2.0) < concentric_loss(logits, label)


def test_a_summed_step_is_a_mean_step_at_the_rate_times_the_pixels_that_count():
    """docs/paper.md: rate(mean) = N x rate(sum), N the pixels outside rings; momentum included."""
    torch.manual_seed(0)
    images, labels = torch.randn(4, 3, 8, 8), torch.randint(0, 2, (1, 8, 8))
    labels[:, :3, :3] = 255
    counted = int((labels != 255).sum())
    ends = []
    reduction: Any
    for reduction, rate in (("sum", 1e-4), ("mean", 1e-4 * counted)):
        torch.manual_seed(1)
        layer = torch.nn.Conv2d(3, 2, 3, padding=1)
        optimizer = torch.optim.SGD(layer.parameters(), rate, momentum=0.99)
        for image in images:
            optimizer.zero_grad()
            concentric_loss(layer(image[None]), labels, reduction).backward()
            optimizer.step()
        ends.append(layer.weight.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-6)
