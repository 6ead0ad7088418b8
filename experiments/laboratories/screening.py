"""The screening network: a small verifier that also says what the networks of the map will find.

Most proposals that a verifier lets through are nuclei in which the networks of the map then find
nothing, at the price of a patch each. What they find round a proposal can be told from the features
that the verifier has made of it: a second output, linear in these features, learns it from the
networks themselves, without labels. A proposal passes where both outputs let it through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from torch import Tensor, nn

from experiments.laboratories.candidates import SCREENING_THRESHOLD, screened_cascade, start
from experiments.laboratories.data import BACKGROUND, FIELDS, TARGET, LabImage
from experiments.laboratories.pools import learns
from segmitos.detection.cascade import local_maxima
from segmitos.detection.model_file import ModelFile
from segmitos.detection.patches import OUTSIDE, cut_squares, patch_corners
from segmitos.detection.runtimes import Network
from segmitos.detection.stain import Stain
from segmitos.errors import DataError
from segmitos.io.geometry import pad_to_multiple, rescale
from segmitos.training.networks.verifier import PATCH_PX, VerifierNetwork

# Every so many-th image is learned from; all of what is not named.
_EVERY = {"mitos14": 3, "crops": 3}
# Gray round an image, so that the networks see proposals at its border as detection shows them.
_RIM_PX = 96
_TILE_PX, _CONTEXT_PX = 1024, 160
# What the networks find is the highest probability so near to a proposal.
_NEAR_PX = 16
# Of the proposals that the verifier lets through and in which the networks find more than `_FIND`,
# this fraction passes.
_FIND, _PASSING = 0.3, 0.98
_BATCH = 64


@dataclass(frozen=True)
class Proposals:
    """The proposals of one image.

    Attributes:
        xy: (n, 2) pixels of the image at 0.25 um/px.
        found: (n,) the highest probability of the networks' mean map near each.
    """

    xy: NDArray[np.float64]
    found: NDArray[np.float64]


class ScreeningNetwork(nn.Module):
    """Patches (N, 3, 80, 80) RGB on the 0..255 scale -> logits (N,): the lower of two.

    Args:
        verifier: gives the features and the first output.
        weight: (F,) of the second output.
        bias: of the second output.
    """

    def __init__(self, verifier: VerifierNetwork, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.verifier = verifier
        self.head = nn.Linear(len(weight), 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.stack([verifier.head.weight[0], weight]))
            self.head.bias.copy_(torch.tensor([verifier.head.bias.item(), bias]))

    def forward(self, patch_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.head(self.verifier.pooled(patch_BCHW))
        return logits.amin(1)


def find_proposals(
    images: Sequence[LabImage], networks: ModelFile, threads: int
) -> dict[int, Proposals]:
    """Return what is proposed in part of the images, by index, and what the networks find there.

    Args:
        images: of all laboratories.
        networks: model file of the networks of the map and their proposal network.
        threads: of a network.
    """
    assert networks.proposal is not None
    cascade = screened_cascade(networks)
    proposal = start(networks.proposal, 3, threads)
    members = [start(graph, 3, threads) for graph in networks.networks]
    seen: dict[str, int] = {}
    result = {}
    for index, image in enumerate(images):
        number = seen.get(image.laboratory, 0)
        seen[image.laboratory] = number + 1
        if image.test or number % _EVERY.get(image.laboratory, 1):
            continue
        pixels = image.matched(networks.spec.stain or TARGET)
        coarse = proposal(pad_to_multiple(pixels, 32)[None])[0]
        cells = local_maxima(coarse, cascade.proposal_threshold)
        xy = rescale(cells[:, ::-1].astype(np.float64), cascade.proposal_stride_px)
        map_ = _mean_map(pixels, members, networks.spec.stride)
        result[index] = Proposals(xy, _highest_near(map_, xy, networks.spec.stride))
    return result


def screening_network(
    verifier: VerifierNetwork,
    images: Sequence[LabImage],
    proposals: Mapping[int, Proposals],
    fold: int,
    stain: Stain,
) -> ScreeningNetwork:
    """Give a fold's small verifier its second output.

    It learns from the images that the fold learns from, each laboratory of equal weight; its bias
    lets the fraction `_PASSING` of the proposals pass in which the networks find something, in
    fields that the fold leaves out. `stain` is what the networks' images are matched to.
    """
    from sklearn.linear_model import LogisticRegression

    learned, weights = [], []
    for laboratory in sorted({images[index].laboratory for index in proposals}):
        own = [i for i in proposals if images[i].laboratory == laboratory]
        one = _features_and_found(
            verifier, images, proposals, [i for i in own if learns(images[i], fold)], stain
        )
        learned.append(one)
        weights.append(np.full(len(one[1]), 1 / max(1, len(one[1]))))
    features, found = (np.concatenate(part) for part in zip(*learned, strict=True))
    weight = np.concatenate(weights)
    weight /= weight.mean()
    # A probability to learn is both answers, each with its part of the weight.
    model = LogisticRegression(C=0.01, max_iter=300).fit(
        np.concatenate([features, features]),
        np.repeat([1, 0], len(found)),
        sample_weight=np.concatenate([weight * found, weight * (1 - found)]),
    )
    fields = (FIELDS[fold], *BACKGROUND)
    left_out = [i for i in proposals if images[i].fold == fold and images[i].laboratory in fields]
    features, found = _features_and_found(verifier, images, proposals, left_out, stain)
    lowest = np.log(SCREENING_THRESHOLD / (1 - SCREENING_THRESHOLD))
    own = features @ verifier.head.weight[0].detach().numpy() + verifier.head.bias.item()
    finds = (features @ model.coef_[0])[(found > _FIND) & (own > lowest)]
    if not len(finds):
        raise DataError(
            f"the networks find nothing above {_FIND} in the fields of {FIELDS[fold]} and of the "
            "background that are left out: how much the screen may drop cannot be told"
        )
    bias = float(lowest - np.quantile(finds, 1 - _PASSING))
    return ScreeningNetwork(verifier, torch.from_numpy(model.coef_[0]).float(), bias).eval()


def _features_and_found(
    verifier: VerifierNetwork,
    images: Sequence[LabImage],
    proposals: Mapping[int, Proposals],
    chosen: Sequence[int],
    stain: Stain,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return features (n, F) and what the networks find (n,) of the proposals of images."""
    features = [np.zeros((0, verifier.head.in_features))]
    for index in chosen:
        features.append(
            pooled_features(verifier, images[index].matched(stain), proposals[index].xy)
        )
    found = [np.zeros(0), *(proposals[index].found for index in chosen)]
    return np.concatenate(features), np.concatenate(found)


def pooled_features(
    verifier: VerifierNetwork, pixels: NDArray[np.uint8], xy: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what a verifier's head joins (n, F), of points (n, 2) of an image at 0.25 um/px."""
    features = [np.zeros((0, verifier.head.in_features))]
    corners = patch_corners(xy, PATCH_PX)
    for begin in range(0, len(corners), _BATCH):
        patches = cut_squares(corners[begin : begin + _BATCH], PATCH_PX, pixels)
        with torch.inference_mode():
            tensor = torch.from_numpy(patches).permute(0, 3, 1, 2).float()
            features.append(verifier.pooled(tensor).numpy().astype(np.float64))
    return np.concatenate(features)


def _mean_map(
    pixels: NDArray[np.uint8], networks: Sequence[Network], stride: int
) -> NDArray[np.float64]:
    """Return the mean map of all of an image, with a rim of `_RIM_PX`."""
    rims = [(_RIM_PX, _RIM_PX + (-side) % 32) for side in pixels.shape[:2]]
    padded = np.pad(pixels, (*rims, (0, 0)), constant_values=OUTSIDE)
    height, width = padded.shape[:2]
    result = np.zeros((height // stride, width // stride))
    for top in range(0, height, _TILE_PX):
        for left in range(0, width, _TILE_PX):
            y, x = max(0, top - _CONTEXT_PX), max(0, left - _CONTEXT_PX)
            bottom, right = min(height, top + _TILE_PX), min(width, left + _TILE_PX)
            tile = np.ascontiguousarray(
                padded[None, y : bottom + _CONTEXT_PX, x : right + _CONTEXT_PX]
            )
            mean = np.mean([network(tile)[0] for network in networks], axis=0)
            result[top // stride : bottom // stride, left // stride : right // stride] = mean[
                (top - y) // stride : (bottom - y) // stride,
                (left - x) // stride : (right - x) // stride,
            ]
    return result


def _highest_near(
    map_: NDArray[np.float64], xy: NDArray[np.float64], stride: int
) -> NDArray[np.float64]:
    """Return the highest value (n,) of such a map within `_NEAR_PX` of points (n, 2)."""
    reach = _NEAR_PX // stride
    highest = maximum_filter(map_, 2 * reach + 1)
    columns, rows = (np.floor(xy + 0.5).astype(np.int64).T + _RIM_PX) // stride
    result: NDArray[np.float64] = highest[rows, columns]
    return result
