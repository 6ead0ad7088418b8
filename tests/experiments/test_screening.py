"""The second output of the screening network of the built-in model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments.laboratories import screening
from experiments.laboratories.data import TARGET, LabImage
from experiments.laboratories.screening import Proposals, ScreeningNetwork, screening_network
from segmitos.detection.patches import cut_squares, patch_corners
from segmitos.errors import DataError
from segmitos.training.networks.verifier import PATCH_PX, VerifierNetwork
from segmitos.training.sampling import TrainingImage

SIDE_PX = 512


def image(laboratory: str, fold: int, seed: int) -> LabImage:
    """Noise with dark and with pale squares of 24 px on a grid of 64 px."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(150, 255, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    for y in range(32, SIDE_PX, 64):
        for x in range(32, SIDE_PX, 64):
            dark = rng.random() < 0.4
            pixels[y - 12 : y + 12, x - 12 : x + 12] = 20 if dark else 120
    none = np.zeros((0, 2))
    source = TrainingImage(str(seed), "slide", pixels, none, none, False)
    return LabImage(laboratory, str(seed), fold, False, source, none, 1.0)


def proposals_of(one: LabImage) -> Proposals:
    """Every square; the networks find something in the dark ones."""
    centers = np.arange(32, SIDE_PX, 64)
    xy = np.stack(np.meshgrid(centers, centers), -1).reshape(-1, 2)
    dark = one.source.image[xy[:, 1], xy[:, 0], 0] < 60
    return Proposals(xy - 0.5, np.where(dark, 0.9, 0.01))


@pytest.fixture(scope="module")
def verifier() -> VerifierNetwork:
    """Untrained, but with the batch statistics of such images."""
    torch.manual_seed(0)
    network = VerifierNetwork(64).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = 1.0
    one = image("mitos14", 0, 9)
    with torch.no_grad():
        network(pixels_of(one, proposals_of(one)))
    return network.eval()


def pixels_of(one: LabImage, proposals: Proposals) -> torch.Tensor:
    corners = patch_corners(proposals.xy, PATCH_PX)
    patches = cut_squares(corners, PATCH_PX, one.source.image)
    return torch.from_numpy(patches).permute(0, 3, 1, 2).float()


def test_what_the_networks_find_is_learned_and_the_verifier_is_kept(verifier):
    images = [image("mitos14", 0, 0), image("midesec", 2, 1), image("mitos12", 1, 2)]
    proposals = {index: proposals_of(one) for index, one in enumerate(images)}
    network = screening_network(verifier, images, proposals, 1, TARGET)
    pixels = pixels_of(images[2], proposals[2])
    with torch.inference_mode():
        both = network.head(verifier.pooled(pixels))
        torch.testing.assert_close(both[:, 0], verifier(pixels))
        torch.testing.assert_close(network(pixels), both.min(1).values)
    passes = torch.sigmoid(both[:, 1]).numpy() > 0.4
    is_find = proposals[2].found > 0.3
    assert 0 < is_find.sum() < len(is_find)
    # The fraction of finds that passes is met on the fields left out, here exactly these.
    assert passes[is_find].mean() >= 0.95
    assert passes[~is_find].mean() < 0.2


def test_fields_left_out_without_a_find_are_refused(verifier):
    images = [image("mitos14", 0, 0), image("mitos12", 1, 1)]
    proposals = {index: proposals_of(one) for index, one in enumerate(images)}
    empty = Proposals(proposals[1].xy, np.zeros(len(proposals[1].xy)))
    with pytest.raises(DataError, match=r"find nothing above 0\.3"):
        screening_network(verifier, images, {**proposals, 1: empty}, 1, TARGET)


def test_the_lower_output_decides():
    torch.manual_seed(0)
    verifier = VerifierNetwork(64).eval()
    patches = torch.rand(3, 3, 80, 80) * 255
    zero = torch.zeros(verifier.head.in_features)
    with torch.inference_mode():
        own = verifier(patches)
        torch.testing.assert_close(ScreeningNetwork(verifier, zero, 99.0)(patches), own)
        low = ScreeningNetwork(verifier, zero, -99.0)(patches)
    torch.testing.assert_close(low, torch.full((3,), -99.0))


def mean_of_cells(images: np.ndarray) -> np.ndarray:
    """A network with a stride of 4 px whose map is the darkness of each cell."""
    count, height, width, _ = images.shape
    cells = images.reshape(count, height // 4, 4, width // 4, 4, 3)
    return (1 - cells.mean(axis=(2, 4, 5)) / 255).astype(np.float32)


def test_maps_in_tiles_are_those_of_the_whole(monkeypatch):
    pixels = image("mitos12", 1, 0).source.image[:300, :470]
    whole = screening._mean_map(pixels, [mean_of_cells], 4)
    monkeypatch.setattr(screening, "_TILE_PX", 128)
    np.testing.assert_allclose(screening._mean_map(pixels, [mean_of_cells], 4), whole)
    assert whole.shape == ((300 + 192 + 20) // 4, (470 + 192 + 10) // 4)


def test_what_is_found_is_the_highest_so_near():
    map_ = np.zeros((64, 64))
    # At (40, 60) px of the image, behind a rim of 96 px.
    map_[(60 + 96) // 4, (40 + 96) // 4] = 0.8
    xy = np.array([[40.0, 60.0], [54.0, 60.0], [40.0, 48.0], [64.0, 60.0], [40.0, 36.0]])
    found = screening._highest_near(map_, xy, 4)
    np.testing.assert_array_equal(found, [0.8, 0.8, 0.8, 0.0, 0.0])
