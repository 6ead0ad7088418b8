"""The paper: concentric labels drawn from points, and the loss that skips the ring (section 3.2).

A label map holds 1 inside the inner disc of a mitosis, 255 (`IGNORED`) in the ring around it and
wherever else nothing is known, 0 elsewhere. All rings are drawn before all discs, so that no ring
erases the disc of a close neighbor, and both are clipped at the border of the map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from segmitos.errors import UsageError
from segmitos.io.geometry import image_to_map, map_to_image

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = 255
LabelKind = Literal["mask", "circle", "concentric", "random"]
Radius = Annotated[float, Meta(gt=0, le=1e6)]
Factor = Annotated[float, Meta(ge=1, le=100)]


class LabelRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a point becomes a label. Radii in um; the paper's 12 px at 0.25 um/px are 3 um.

    Raises:
        UsageError: for radii that contradict each other.
    """

    kind: LabelKind = "random"
    """`mask`: pixel masks as they are, which every case with mitoses must have. `circle`: disc of
    `radius_um`, no ring. `concentric`: disc of `radius_um`, ring to `outer_um`. `random`: disc
    r ~ U(`radius_range_um`), ring to R = r * U(`outer_factor_range`), drawn anew at every use."""
    radius_um: Radius = 3.0
    """Of the disc, of kinds `circle` and `concentric`."""
    outer_um: Radius = 6.0
    """Outer radius of the ring, of kind `concentric`."""
    radius_range_um: tuple[Radius, Radius] = (2.5, 4.25)
    """Lowest and highest radius of the disc, of kind `random`; the paper's 10..17 px."""
    outer_factor_range: tuple[Factor, Factor] = (1.5, 2.5)
    """Lowest and highest outer radius of the ring as a multiple of the disc's, of kind `random`."""
    inner_fraction: Annotated[float, Meta(ge=0, le=10)] = 0.0
    """Above 0: the disc is this fraction of each point's own radius (masses, section 4.6)."""
    outer_fraction: Annotated[float, Meta(ge=0, le=10)] = 0.0
    """The ring's outer radius as a fraction of each point's own."""

    def __post_init__(self) -> None:
        if self.kind == "concentric" and self.outer_um < self.radius_um:
            raise UsageError(
                f"labels outer_um = {self.outer_um} is inside the disc of radius_um = "
                f"{self.radius_um}"
            )
        if self.inner_fraction > 0 and self.outer_fraction < self.inner_fraction:
            raise UsageError(
                f"labels inner_fraction = {self.inner_fraction} is above outer_fraction = "
                f"{self.outer_fraction}"
            )
        if self.outer_fraction > 0 and not self.inner_fraction:
            raise UsageError(
                f"labels outer_fraction = {self.outer_fraction} means nothing without "
                "inner_fraction: give both"
            )
        for name in ("radius_range_um", "outer_factor_range"):
            low, high = getattr(self, name)
            if high < low:
                raise UsageError(f"labels {name} = {[low, high]}: write the lower one first")

    def draw_radii(
        self,
        count: int,
        rng: np.random.Generator,
        own_um: NDArray[np.float64] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return inner and outer radii in um for `count` points, each of shape (count,).

        `own_um`, (count,), are the radii of the things themselves: of the circle round a mass, or
        half of the longer side of its box. They count where `inner_fraction` is above 0.
        """
        if self.inner_fraction > 0 and own_um is not None:
            return own_um * self.inner_fraction, own_um * self.outer_fraction
        if self.kind == "random":
            inner = rng.uniform(*self.radius_range_um, size=count)
            return inner, inner * rng.uniform(*self.outer_factor_range, size=count)
        outer = self.radius_um if self.kind == "circle" else self.outer_um
        return np.full(count, self.radius_um), np.full(count, outer)


def concentric_label(
    points_xy: NDArray[np.float64],
    inner_px: NDArray[np.float64],
    outer_px: NDArray[np.float64],
    shape: tuple[int, int],
    stride: int = 1,
) -> NDArray[np.uint8]:
    """Draw discs and rings round points (paper section 3.2, Fig. 4b).

    Args:
        points_xy: (n, 2) positions in pixels, pixel centers at integers; may lie outside.
        inner_px: (n,) disc radii in pixels. A map pixel is in the disc
            when its center is within it.
        outer_px: (n,) ring radii in pixels, at least the inner ones; equal means no ring.
        shape: (height, width) of the label map, in map pixels of `stride` px.
        stride: image pixels per map pixel; their centers lie as `io.geometry.map_to_image` says.

    Returns:
        uint8 map of `shape`: 1 in discs, 255 in rings, 0 elsewhere.
    """
    label = np.zeros(shape, np.uint8)
    for value, radii in ((IGNORED, outer_px), (1, inner_px)):
        for (x, y), radius in zip(points_xy, radii, strict=True):
            _paint_disc(label, x, y, float(radius), stride, value)
    return label


def _paint_disc(
    label: NDArray[np.uint8], x: float, y: float, radius: float, stride: int, value: int
) -> None:
    height, width = label.shape
    left = max(0, int(np.ceil(image_to_map(x - radius, stride))))
    right = min(width - 1, int(np.floor(image_to_map(x + radius, stride))))
    top = max(0, int(np.ceil(image_to_map(y - radius, stride))))
    bottom = min(height - 1, int(np.floor(image_to_map(y + radius, stride))))
    if left > right or top > bottom:
        return
    columns = map_to_image(np.arange(left, right + 1), stride) - x
    rows = map_to_image(np.arange(top, bottom + 1), stride) - y
    inside = rows[:, None] ** 2 + columns[None, :] ** 2 <= radius**2
    label[top : bottom + 1, left : right + 1][inside] = value


def concentric_loss(
    logits: Tensor,
    label: Tensor,
    reduction: Literal["mean", "sum"] = "mean",
    focal: float = 0.0,
) -> Tensor:
    """Cross-entropy over discs and background; ignored pixels count neither above nor below.

    With one channel the logit is that of a mitosis and the entropy is binary; with two channels it
    is the paper's softmax over (background, mitosis), equation 1 without its weight norm, which
    the optimizer's weight decay supplies. Both are the same function of the logit difference.

    The sum is the paper's form. The mean divides it by the number N of pixels that count, so that
    a learning rate for the sum equals N times smaller than one for the mean.

    Args:
        logits: (B, 1, H, W) or (B, 2, H, W).
        label: (B, H, W) of 0, 1 and 255.
        reduction: `mean` over the pixels that count, or `sum`.
        focal: exponent of the focal weight (1 - p of the true class)^focal (Lin et al. 2017);
            0 is the paper's plain entropy.

    Returns:
        A scalar; zero, with zero gradient, where every pixel is ignored.
    """
    if logits.shape[1] not in (1, 2):
        raise UsageError(f"logits have {logits.shape[1]} channels; the loss takes 1 or 2")
    # Labels and recipes can be made where torch is not installed.
    import torch
    from torch.nn import functional as F

    from segmitos.training.networks.registry import mitosis_logit

    if logits.shape[0] != label.shape[0] or logits.shape[2:] != label.shape[1:]:
        raise UsageError(
            f"logits {tuple(logits.shape)} and label {tuple(label.shape)} differ in size"
        )
    logit = mitosis_logit(logits.float())
    counts = label != IGNORED
    target = (label == 1).to(logit.dtype)
    losses = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    if focal > 0:
        losses = losses * (1 - torch.exp(-losses)) ** focal
    total = torch.where(counts, losses, torch.zeros_like(losses)).sum()
    if reduction == "sum":
        return total
    return total / counts.sum().clamp(min=1)
