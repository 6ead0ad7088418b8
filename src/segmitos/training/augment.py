"""Augmentation of an image and its points together; the label is drawn afterwards.

Because points move with the image and the label is drawn at the end, circles stay round whatever
the rotation or scale. Color moves in optical density, where stains add: towards the staining of
another slide of the training set, and by jitter of hematoxylin, eosin and residual (Tellez et al.
2018; RandStainNA, Shen et al. 2022). Then what scanners do: brightness, contrast, blur, JPEG.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from segmitos.detection.stain import OD_TABLE, Stain, stain_affine
from segmitos.errors import UsageError
from segmitos.io.files import jpeg_copy

# Ruifrok and Johnston 2001: rows are hematoxylin, eosin, residual in OD of red, green, blue.
HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
HED_INVERSE = np.linalg.inv(HED)

Probability = Annotated[float, Meta(ge=0, le=1)]


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may happen to a crop in training.

    In the place of the table, `augmentation = "NAME"` takes the paper's for a data set, and sets
    `background_augmentation` too: `mitos12`, `mitos14`, `amida13`, `tupac16`, `cbis-ddsm`, or
    `none`, which leaves crops as they are. A table in a recipe that extends such a one changes
    single keys of it.

    Raises:
        UsageError: for chances of blur and sharpening above 1 together.
    """

    rotations: Annotated[int, Meta(ge=0, le=360)] = 0
    """0: any angle; n: n equal steps of 360 / n degrees; 1: none."""
    mirror: bool = True
    """Whether half of the crops are mirrored."""
    scale: Annotated[float, Meta(ge=0, lt=1)] = 0.15
    """Zoom factor within 1 - scale .. 1 + scale."""
    stain_match: Probability = 0.0
    """Chance of moving the slide's staining onto the common one, as detection does."""
    stain_transfer: Probability = 0.6
    """Else, chance of moving it towards that of another slide, by a random fraction."""
    stain_jitter: Annotated[float, Meta(ge=0, le=1)] = 0.12
    """Spread of the gain of each stain; half of it for the offset in OD."""
    brightness: Annotated[float, Meta(ge=0, le=1)] = 0.12
    """Spread of brightness, contrast and gamma."""
    blur: Probability = 0.2
    """Chance of Gaussian blur of up to 1.2 px."""
    sharpen: Probability = 0.0
    """Chance of an unsharp mask instead of blur, as many scanners apply one."""
    jpeg: Probability = 0.2
    """Chance of JPEG compression at quality 40 to 90."""
    translations: Literal[0, 1, 9] = 0
    """0: anywhere within the sampling's `shift_px`; 9: the 3 x 3 grid of that step; 1: none."""

    def __post_init__(self) -> None:
        if self.blur + self.sharpen > 1:
            raise UsageError(
                f"augmentation blur = {self.blur} and sharpen = {self.sharpen} exclude each other: "
                "their sum may not be above 1"
            )

    @property
    def changes_stain(self) -> bool:
        """Whether the network learns that staining varies, so that slides may be matched."""
        return max(self.stain_match, self.stain_transfer, self.stain_jitter) > 0


# Leaves images as they are.
NONE = Augmentation(1, False, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def _discrete(rotations: int, mirror: bool, translations: int = 0) -> Augmentation:
    return msgspec.structs.replace(
        NONE, rotations=rotations, mirror=mirror, translations=translations
    )


# The paper's, by data set (sections 4.2 to 4.6): of crops round a mitosis or mass, and of the
# others. Variants are drawn at random, not listed one by one. How the 144 of 2014 divide is not
# printed; 8 rotations x 9 translations x mirror make 144, half of the 288 of 2012.
PUBLISHED: dict[str, tuple[Augmentation, Augmentation]] = {
    "none": (NONE, NONE),
    "mitos12": (_discrete(16, True, 9), _discrete(4, True)),
    "mitos14": (_discrete(8, True, 9), NONE),
    "amida13": (_discrete(8, True, 9), _discrete(4, False)),
    "tupac16": (_discrete(8, True, 9), _discrete(4, False)),
    "cbis-ddsm": (_discrete(4, True), _discrete(4, True)),
}


def draw_shift(
    recipe: Augmentation, shift_px: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Draw how far a crop's center lies from its point, (x, y) in pixels."""
    if recipe.translations == 9:
        steps = rng.integers(-1, 2, size=2)
        return float(steps[0] * shift_px), float(steps[1] * shift_px)
    if recipe.translations == 1:
        return 0.0, 0.0
    return float(rng.uniform(-shift_px, shift_px)), float(rng.uniform(-shift_px, shift_px))


def draw_transform(recipe: Augmentation, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the 2 x 2 matrix that takes an offset in the crop to an offset in the source image."""
    if recipe.rotations == 0:
        angle = rng.uniform(0, 2 * np.pi)
    else:
        angle = 2 * np.pi * rng.integers(recipe.rotations) / recipe.rotations
    zoom = 1 / rng.uniform(1 - recipe.scale, 1 + recipe.scale)
    cosine, sine = np.cos(angle) * zoom, np.sin(angle) * zoom
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    if recipe.mirror and rng.random() < 0.5:
        matrix[:, 0] *= -1
    return matrix


def warp(
    image: NDArray[np.uint8],
    points_xy: NDArray[np.float64],
    center_xy: tuple[float, float],
    matrix: NDArray[np.float64],
    size_px: int | tuple[int, int],
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.bool_]]:
    """Cut a rotated, scaled, mirrored crop, its points with it.

    Args:
        image: (h, w, 3) uint8.
        points_xy: (n, 2) positions in `image`, pixel centers at integers.
        center_xy: where in `image` the crop's center lies.
        matrix: 2 x 2, crop offset -> image offset.
        size_px: side of the crop, or its (width, height).

    Returns:
        The crop (height, width, 3), reflected where it reaches past the image; all points in the
        crop's frame, those outside it too; and a (height, width) map that is True where the crop
        shows the image itself, not its reflection.
    """
    size = np.array((size_px, size_px) if isinstance(size_px, int) else size_px)
    half = (size - 1) / 2
    reach = int(np.ceil(np.abs(matrix).sum(axis=1).max() * (half.max() + 1))) + 2
    left, top = int(np.floor(center_xy[0])) - reach, int(np.floor(center_xy[1])) - reach
    side = 2 * reach + 2
    height, width = image.shape[:2]
    rows = reflected(np.arange(top, top + side), height)
    columns = reflected(np.arange(left, left + side), width)
    if top >= 0 and left >= 0 and top + side <= height and left + side <= width:
        patch = image[top : top + side, left : left + side]
    else:
        patch = image[rows[:, None], columns[None, :]]
    # Pillow counts from pixel corners: source = matrix @ (out + 0.5 - size / 2) + center + 0.5.
    origin = np.array(center_xy) - (left, top) + 0.5 - matrix @ (size / 2)
    coefficients = (*matrix[0], origin[0], *matrix[1], origin[1])
    crop = Image.fromarray(np.ascontiguousarray(patch), "RGB").transform(
        (int(size[0]), int(size[1])),
        Image.Transform.AFFINE,
        coefficients,
        Image.Resampling.BICUBIC,
    )
    across = np.arange(size[0])[None, :] - half[0]
    down = np.arange(size[1])[:, None] - half[1]
    source_x = matrix[0, 0] * across + matrix[0, 1] * down + center_xy[0]
    source_y = matrix[1, 0] * across + matrix[1, 1] * down + center_xy[1]
    valid = (
        (source_x > -0.5) & (source_x < width - 0.5) & (source_y > -0.5) & (source_y < height - 0.5)
    )
    moved = (points_xy - np.array(center_xy)) @ np.linalg.inv(matrix).T + half
    return np.asarray(crop), moved, valid


def reflected(indices: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Fold indices into 0..length-1 by mirroring at both ends, however far they reach."""
    folded = np.mod(indices, 2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)


def augment_stain(
    crop: NDArray[np.uint8],
    stain: Stain | None,
    pool: Sequence[Stain],
    target: Stain | None,
    recipe: Augmentation,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Change the staining of a crop (h, w, 3) uint8.

    Args:
        crop: RGB.
        stain: statistics of the crop's slide; None leaves the transfer out.
        pool: stains of the training slides to move towards.
        target: the common stain that slides are matched to in detection.
        recipe: how much of what.
        rng: drawn from in a fixed order, so that a seed fixes the result.
    """
    matrix, offset = np.eye(3), np.zeros(3)
    matches = bool(recipe.stain_match) and rng.random() < recipe.stain_match
    if matches and stain is not None and target is not None:
        gain, offset = stain_affine(stain, target)
        matrix = np.diag(gain)
    elif stain is not None and pool and rng.random() < recipe.stain_transfer:
        gain, shift = stain_affine(stain, pool[int(rng.integers(len(pool)))])
        fraction = rng.uniform(0.3, 1.0)
        matrix = np.diag(1 + fraction * (gain - 1))
        offset = fraction * shift
    if recipe.stain_jitter:
        gains = 1 + rng.normal(0, recipe.stain_jitter, 3).clip(-0.4, 0.4)
        offsets = rng.normal(0, recipe.stain_jitter / 2, 3).clip(-0.15, 0.15)
        jitter = HED_INVERSE @ np.diag(gains) @ HED
        matrix = matrix @ jitter
        offset = offset @ jitter + offsets @ HED * 0.5
    result = crop
    if not (np.array_equal(matrix, np.eye(3)) and not offset.any()):
        density = OD_TABLE[crop] @ matrix.astype(np.float32) + offset.astype(np.float32)
        level = np.exp(-density.clip(0, None)) * 256 - 1
        result = np.clip(level, 0, 255).astype(np.uint8)
    return result


def augment_scanner(
    crop: NDArray[np.uint8], recipe: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Change what differs from scanner to scanner: brightness, contrast, gamma, focus, JPEG."""
    if recipe.brightness:
        contrast = 1 + rng.uniform(-recipe.brightness, recipe.brightness)
        shift = rng.uniform(-recipe.brightness, recipe.brightness) * 128
        gamma = np.exp(rng.uniform(-recipe.brightness, recipe.brightness) * 1.5)
        levels = np.arange(256) / 255.0
        table = (levels**gamma * 255 - 128) * contrast + 128 + shift
        crop = np.clip(np.rint(table), 0, 255).astype(np.uint8)[crop]
    focus = rng.random() if recipe.blur or recipe.sharpen else 1.0
    if focus < recipe.blur:
        blurred = Image.fromarray(crop, "RGB").filter(
            ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2))
        )
        crop = np.asarray(blurred)
    elif focus < recipe.blur + recipe.sharpen:
        mask = ImageFilter.UnsharpMask(
            radius=rng.uniform(0.6, 1.8), percent=int(rng.integers(30, 151)), threshold=0
        )
        crop = np.asarray(Image.fromarray(crop, "RGB").filter(mask))
    if recipe.jpeg and rng.random() < recipe.jpeg:
        crop = jpeg_copy(crop, int(rng.integers(40, 91)))
    return crop
