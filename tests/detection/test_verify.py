"""The verifier's word replaces the map inside of candidates, and nothing else."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from segmitos.detection.cascade import CascadeMap
from segmitos.detection.patches import cut_patches
from segmitos.detection.spec import CascadeSettings, VerifierSettings
from segmitos.detection.verify import join_scores, map_of_candidates, verify_map

SETTINGS = VerifierSettings(
    patch_px=16,
    smoothing_sigma_um=0.0,
    candidate_threshold=0.2,
    map_weight=1.0,
    verifier_weight=1.0,
    intercept=0.0,
)


def _image_and_map():
    """Two candidates of 2 x 2 map pixels, one on dark, one on pale tissue."""
    image = np.full((128, 160, 3), 220, np.uint8)
    image[24:40, 40:56] = 30
    map_ = np.full((16, 20), 0.1, np.float32)
    map_[3:5, 5:7] = 0.5
    map_[10:12, 14:16] = 0.5
    return image, map_


def _dark(patches):
    return np.where(patches[:, 8, 8, 0] < 100, 0.9, 0.1).astype(np.float32)


def test_candidates_take_the_joined_score_and_the_rest_is_zero():
    image, map_ = _image_and_map()
    verified = verify_map(image, map_, _dark, SETTINGS, 8, 2.0)
    assert verified[3:5, 5:7] == pytest.approx(0.9)
    assert verified[10:12, 14:16] == pytest.approx(0.1)
    verified[3:5, 5:7] = verified[10:12, 14:16] = 0
    assert not verified.any()


def test_the_patch_is_cut_round_the_middle_of_the_candidate():
    image, map_ = _image_and_map()
    seen = []

    def remember(patches):
        seen.append(patches)
        return np.full(len(patches), 0.5, np.float32)

    verify_map(image, map_, remember, SETTINGS, 8, 2.0)
    # The dark square is 16 px wide, as the patch, and its middle is the candidate's.
    assert (seen[0][0] == 30).all() and (seen[0][1] == 220).all()


def test_a_map_without_candidates_never_calls_the_verifier():
    def fails(patches):
        raise AssertionError("no candidate, no patch")

    image, map_ = _image_and_map()
    assert not verify_map(image, map_ * 0, fails, SETTINGS, 8, 2.0).any()


def test_candidates_outside_of_the_output_box_are_left_out():
    image, map_ = _image_and_map()
    verified = verify_map(image, map_, _dark, SETTINGS, 8, 2.0, (0, 0, 64, 160))
    assert verified[3:5, 5:7].all() and not verified[8:].any()


class DarkPixels:
    """A network of the map: 1 where pixels are dark; counts the patches that it sees."""

    def __init__(self, stride: int) -> None:
        self.stride, self.seen = stride, 0

    def __call__(self, images):
        self.seen += len(images)
        dark = images[:, :: self.stride, :: self.stride, 0] < 100
        return dark.astype(np.float32)


def _cascade(image):
    chosen = CascadeSettings(
        proposal_network="dark",
        proposal_mpp=0.5,
        proposal_stride_px=16,
        proposal_threshold=0.2,
        block_px=32,
        patch_px=96,
        margin_px=16,
    )
    network = DarkPixels(4)
    return CascadeMap(image, DarkPixels(16), [network], chosen, 4), network


@pytest.mark.parametrize("sigma_um", [0.0, 2.0])
@pytest.mark.parametrize(
    ("top", "left", "height", "width"),
    [(250, 300, 12, 90), (150, 252, 90, 8), (244, 244, 70, 70), (257, 300, 8, 8), (96, 96, 9, 9)],
)
def test_a_candidate_that_crosses_the_box_is_mapped_whole(top, left, height, width, sigma_um):
    image = np.full((512, 512, 3), 230, np.uint8)
    image[top : top + height, left : left + width] = 30
    settings = msgspec.structs.replace(SETTINGS, smoothing_sigma_um=sigma_um)
    box = (0, 0, 256, 512)
    found = map_of_candidates(_cascade(image)[0], settings, 4, 1.0, box)
    whole = _cascade(image)[0].fill()
    verified, expected = (
        verify_map(image, map_, _dark, settings, 4, 1.0, box)[:64] for map_ in (found, whole)
    )
    np.testing.assert_array_equal(verified, expected)
    assert expected.any() or top >= 256


def test_what_lies_beyond_the_box_and_crosses_nothing_is_not_looked_at():
    image = np.full((512, 512, 3), 230, np.uint8)
    image[96:106, 96:106] = image[304:314, 96:106] = image[250:260, 400:410] = 30
    cascade, network = _cascade(image)
    map_of_candidates(cascade, SETTINGS, 4, 1.0, (0, 0, 256, 512))
    crossing = network.seen
    image[250:260, 400:410] = 230
    cascade, network = _cascade(image)
    map_ = map_of_candidates(cascade, SETTINGS, 4, 1.0, (0, 0, 256, 512))
    assert network.seen < crossing
    assert map_[25, 25] and not map_[77, 25]


def test_patches_are_gray_beyond_the_image():
    image = np.zeros((32, 32, 3), np.uint8)

    def read(x, y, width, height):
        return image[y : y + height, x : x + width]

    patches = cut_patches(np.array([[0.0, 0.0], [31.0, 31.0]]), 16, 32, 32, read)
    assert (patches[0][:7] == 127).all() and (patches[0][8:, 8:] == 0).all()
    assert (patches[1][9:] == 127).all() and (patches[1][:8, :8] == 0).all()


def test_the_rule_adds_log_odds():
    settings = VerifierSettings(
        patch_px=16,
        smoothing_sigma_um=0.0,
        candidate_threshold=0.2,
        map_weight=2.0,
        verifier_weight=0.5,
        intercept=-1.0,
    )
    map_score, probability = np.array([0.5, 0.8]), np.array([0.5, 0.9], np.float32)
    odds = np.exp(-1 + 2 * np.log([1, 4]) + 0.5 * np.log([1, 9]))
    assert join_scores(map_score, probability, settings) == pytest.approx(odds / (1 + odds))
