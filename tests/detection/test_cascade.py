"""The cascade: which patches are seen, what is written, and that tiles add up to the whole."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from segmitos.detection.cascade import CascadeMap, local_maxima
from segmitos.detection.spec import CascadeSettings, cascade_context

CELL = 16


def settings(**changes):
    given = {
        "proposal_network": "darkness",
        "proposal_mpp": 0.5,
        "proposal_stride_px": CELL,
        "proposal_threshold": 0.2,
        "ensemble_threshold": 0.0,
        "block_px": 32,
        "patch_px": 96,
        "margin_px": 16,
    }
    return CascadeSettings(**{**given, **changes})


class Network:
    """Darkness of blocks of `stride` px, and the patches that were looked at."""

    def __init__(self, stride: int, sharpness: float) -> None:
        self.stride, self.sharpness = stride, sharpness
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.shapes.append(images.shape)
        n, h, w, _ = images.shape
        s = self.stride
        means = images.reshape(n, h // s, s, w // s, s, 3).mean(axis=(2, 4, 5))
        return (1 / (1 + np.exp(-self.sharpness * (130 - means)))).astype(np.float32)

    @property
    def seen(self) -> int:
        return sum(shape[0] for shape in self.shapes)


PROPOSAL = Network(CELL, 0.05)


def networks(others: int = 1) -> list[Network]:
    return [Network(4, 0.05), *(Network(4, 0.1 + 0.05 * k) for k in range(others))]


def field(seed: int, height: int, width: int) -> np.ndarray:
    """Pale noise with dark discs, some at the borders."""
    rng = np.random.default_rng(seed)
    image = rng.integers(200, 240, (height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for _ in range(12):
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(5, 14)
        image[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = rng.integers(20, 110)
    return image


def run_cascade(image, proposal, members, chosen, stride, box=None, **more) -> np.ndarray:
    cascade = CascadeMap(image, proposal, members, chosen, stride, **more)
    return cascade.fill(None if box is None else np.array([box]))


def by_hand(image, chosen, members):
    """Each patch on its own: cut from a gray frame, all networks, the middle by maximum."""
    coarse = PROPOSAL(image[None])[0]
    peaks = (coarse >= ndimage.maximum_filter(coarse, 3, mode="nearest")) & (
        coarse > chosen.proposal_threshold
    )
    height, width = image.shape[:2]
    rim = (chosen.patch_px - chosen.block_px) // 2
    framed = np.pad(image, ((96, 96), (96, 96), (0, 0)), constant_values=127)
    whole = np.zeros((height // 4 + 48, width // 4 + 48), np.float32)
    blocks = {
        (r * CELL // chosen.block_px, c * CELL // chosen.block_px) for r, c in np.argwhere(peaks)
    }
    for row, column in blocks:
        y, x = row * chosen.block_px - rim + 96, column * chosen.block_px - rim + 96
        patch = framed[None, y : y + chosen.patch_px, x : x + chosen.patch_px]
        edge = chosen.margin_px // 4
        maps = [one(patch)[0, edge:-edge, edge:-edge] for one in members]
        if chosen.ensemble_threshold and maps[0].max() <= chosen.ensemble_threshold:
            continue
        top, left = (y + chosen.margin_px) // 4 - 24 + 24, (x + chosen.margin_px) // 4 - 24 + 24
        part = whole[top : top + len(maps[0]), left : left + len(maps[0])]
        np.maximum(part, np.mean(maps, axis=0), out=part)
    return whole[24:-24, 24:-24]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 64), (320, 448)])
@pytest.mark.parametrize(
    "changes", [{}, {"block_px": 64, "patch_px": 128}, {"ensemble_threshold": 0.97}]
)
@pytest.mark.parametrize("others", [0, 1, 2])
def test_the_map_is_that_of_each_patch_by_hand(height, width, changes, others):
    chosen = settings(**changes)
    if not others:
        chosen = settings(**{**changes, "ensemble_threshold": 0.0})
    for seed in range(3):
        image = field(seed, height, width)
        found = run_cascade(image, PROPOSAL, networks(others), chosen, 4)
        expected = by_hand(image, chosen, networks(others))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert found.max() > 0.9 and ((found == 0).any() or height < 200)


def test_the_other_networks_see_only_where_the_first_found_something():
    image = field(0, 320, 448)
    every, some = networks(), networks()
    run_cascade(image, PROPOSAL, every, settings(), 4)
    run_cascade(image, PROPOSAL, some, settings(ensemble_threshold=0.97), 4)
    assert some[0].seen == every[0].seen == every[1].seen
    assert 0 < some[1].seen < every[1].seen


def test_proposals_of_one_block_share_a_patch():
    image = np.full((320, 320, 3), 230, np.uint8)
    for y, x in ((64, 64), (64, 112), (112, 64), (112, 112)):
        image[y : y + 16, x : x + 16] = 20
    apart, together = networks(), networks()
    run_cascade(image, PROPOSAL, apart, settings(), 4)
    run_cascade(image, PROPOSAL, together, settings(block_px=64, patch_px=128), 4)
    assert (apart[0].seen, together[0].seen) == (4, 1)


class Screening:
    """Darkness of the middle of patches, and where each came from."""

    def __init__(self) -> None:
        self.patches: list[np.ndarray] = []

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        self.patches.extend(patches)
        middle = patches[:, 8:24, 8:24].mean(axis=(1, 2, 3))
        return (1 / (1 + np.exp(-0.1 * (130 - middle)))).astype(np.float32)


def every_pixel_counts(patches: np.ndarray) -> np.ndarray:
    total = patches.reshape(len(patches), -1).sum(axis=1, dtype=np.int64) % 7
    return np.asarray(total / 7).astype(np.float32)


SCREENED = {"screening_patch_px": 32, "screening_threshold": 0.5}


def test_the_screening_network_sees_each_proposal_and_drops_some():
    image = np.full((320, 320, 3), 230, np.uint8)
    image[64:80, 64:80] = 20
    image[160:176, 240:256] = 150  # proposed, but for the screening network not dark enough
    screening, members = Screening(), networks()
    chosen = settings(**SCREENED)
    found = run_cascade(image, PROPOSAL, members, chosen, 4, screening=screening)
    assert len(screening.patches) == 2 and members[0].seen == 1
    np.testing.assert_array_equal(screening.patches[0], image[56:88, 56:88])
    np.testing.assert_array_equal(screening.patches[1], image[152:184, 232:264])
    assert found[16:20, 16:20].min() > 0.9 and not found[:, 40:].any()
    unscreened = run_cascade(image, PROPOSAL, networks(), settings(), 4)
    np.testing.assert_array_equal(found[:, :40], unscreened[:, :40])
    assert unscreened[:, 40:].any()


def test_proposals_that_write_nothing_asked_for_are_not_screened():
    image = np.full((320, 320, 3), 230, np.uint8)
    image[64:80, 64:80] = image[256:272, 256:272] = 20
    screening = Screening()
    box = (0, 0, 128, 128)
    run_cascade(image, PROPOSAL, networks(), settings(**SCREENED), 4, box, screening=screening)
    assert len(screening.patches) == 1


def test_where_everything_is_screened_out_the_map_is_zero():
    image = field(3, 96, 96)
    members = networks()
    chosen = settings(screening_patch_px=32, screening_threshold=0.999)

    def none(patches: np.ndarray) -> np.ndarray:
        return np.zeros(len(patches), np.float32)

    found = run_cascade(image, PROPOSAL, members, chosen, 4, screening=none)
    assert not found.any() and members[0].seen == 0


def test_patches_are_cut_and_shown_in_chunks(monkeypatch):
    monkeypatch.setattr("segmitos.detection.cascade.CHUNK_SIZE", 8)
    members = networks()
    run_cascade(field(1, 640, 640), PROPOSAL, members, settings(proposal_threshold=0.02), 4)
    sizes = [shape[0] for shape in members[0].shapes]
    assert sizes[:-1] == [8] * (len(sizes) - 1) and len(sizes) > 1
    assert {shape[1:] for shape in members[0].shapes} == {(96, 96, 3)}


def test_where_nothing_is_proposed_the_map_is_zero():
    members = networks()
    found = run_cascade(np.full((64, 96, 3), 240, np.uint8), PROPOSAL, members, settings(), 4)
    assert found.shape == (16, 24) and not found.any() and members[0].seen == 0


def test_patches_that_write_nothing_asked_for_are_left_out():
    image = field(11, 320, 448)
    whole = run_cascade(image, PROPOSAL, networks(), settings(), 4)
    for top, left, bottom, right in ((96, 128, 224, 320), (0, 4, 60, 100), (300, 400, 320, 448)):
        members = networks()
        found = run_cascade(image, PROPOSAL, members, settings(), 4, (top, left, bottom, right))
        inside = np.s_[top // 4 : bottom // 4, left // 4 : right // 4]
        np.testing.assert_array_equal(found[inside], whole[inside])
        # A patch writes 64 px, so that one which touches the box ends within 60 px of it.
        far = np.ones_like(whole, bool)
        far[max(0, top - 64) // 4 : bottom // 4 + 16, max(0, left - 64) // 4 : right // 4 + 16] = 0
        assert not found[far].any() and whole[far].any()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"block_px": 64, "patch_px": 128, "margin_px": 8},
        {"block_px": 96, "patch_px": 160},
        {"patch_px": 64, "margin_px": 8, "grid_px": 16},
        SCREENED,
        {"screening_patch_px": 160, "screening_threshold": 0.4},
    ],
)
def test_the_whole_equals_its_parts_to_the_bit(changes):
    chosen = settings(**changes)
    image = field(7, 640, 640)
    screening = every_pixel_counts if chosen.screening_patch_px else None
    whole = run_cascade(image, PROPOSAL, networks(), chosen, 4, screening=screening)
    margin = -(-cascade_context(chosen, 0) // 32) * 32
    assert (whole[margin // 4 : -margin // 4] > 0.5).any()
    for left in (0, 96, 224):
        part = run_cascade(
            np.ascontiguousarray(image[:, left:]),
            PROPOSAL,
            networks(),
            chosen,
            4,
            origin=(left, 0),
            screening=screening,
        )
        first = margin if left else 0
        np.testing.assert_array_equal(part[:, first // 4 :], whole[:, (left + first) // 4 :])


def test_what_was_run_is_not_run_again():
    image = field(11, 320, 448)
    members, screening = networks(), Screening()
    cascade = CascadeMap(image, PROPOSAL, members, settings(**SCREENED), 4, screening=screening)
    assert cascade.fill(np.array([[0, 0, 160, 200]])).any()
    seen, screened = members[0].seen, len(screening.patches)
    cascade.fill(np.array([[0, 0, 160, 200], [10, 10, 90, 90]]))
    cascade.fill(np.zeros((0, 4), np.int64))
    assert (members[0].seen, len(screening.patches)) == (seen, screened)
    again = networks()
    whole = run_cascade(image, PROPOSAL, again, settings(**SCREENED), 4, screening=screening)
    np.testing.assert_array_equal(cascade.fill(), whole)
    assert members[0].seen > seen and members[0].seen <= again[0].seen + seen


def test_a_plateau_and_a_border_are_local_maxima_and_the_threshold_is_exceeded():
    map_ = np.zeros((4, 5), np.float32)
    map_[0, 0], map_[2, 2], map_[2, 3] = 0.4, 0.7, 0.7
    assert local_maxima(map_, 0.3).tolist() == [[0, 0], [2, 2], [2, 3]]
    assert local_maxima(map_, 0.4).tolist() == [[2, 2], [2, 3]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"patch_px": 100},
        {"patch_px": 0},
        {"patch_px": 128},
        {"block_px": 48},
        {"margin_px": 0},
        {"margin_px": 40},
        {"patch_px": 64, "margin_px": 8},
        {"screening_patch_px": 8},
        {"screening_patch_px": 600},
        {"screening_threshold": 0.5},
    ],
)
def test_settings_that_do_not_fit_together_are_refused(wrong):
    with pytest.raises(ValueError, match="_px"):
        settings(**wrong)
