"""What a model file says beside its graphs (`model.json`), as checked objects."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from segmitos.detection.domain import DomainReference
from segmitos.detection.postprocess import Thresholds
from segmitos.detection.stain import Stain
from segmitos.errors import ModelError, UsageError

FORMAT_VERSION = 2

_Text = Annotated[str, msgspec.Meta(max_length=10_000)]
Scale = Annotated[float, msgspec.Meta(ge=0.01, le=2000)]
"""Um per pixel that a model may read at: of slides, and of mammograms in a recipe of masses."""
Sigma = Annotated[float, msgspec.Meta(ge=0, le=10_000)]
"""Of a Gaussian, um."""
_Probability = Annotated[float, msgspec.Meta(ge=0, lt=1)]
_Pixels = Annotated[int, msgspec.Meta(ge=0, le=4096)]


class CascadeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the proposal network chooses what the other networks see (`detection.cascade`)."""

    proposal_network: _Text
    """Name of the proposal network."""
    proposal_mpp: Scale
    """Scale that the proposal network works at, um per pixel (it averages pixels itself)."""
    proposal_stride_px: _Pixels
    """Pixels of the model's scale per pixel of the proposal network's map."""
    proposal_threshold: _Probability
    """Probability above which a local maximum of the proposal map is a proposal."""
    ensemble_threshold: _Probability = 0.0
    """Networks after the first see patches in which the first found more; 0: every patch."""
    screening_patch_px: _Pixels = 0
    """Side of the patch round each proposal that a screening network judges; 0: there is none."""
    screening_threshold: _Probability = 0.0
    """Proposals that the screening network gives no more than this are dropped."""
    block_px: _Pixels
    """The image is divided in blocks of this side; one with a proposal gets a patch."""
    patch_px: _Pixels
    """Side of a patch, centered on its block."""
    margin_px: _Pixels
    """What lies nearer to the border of a patch is not used: the padding reaches it."""
    grid_px: Literal[16, 32] = 32
    """Coarsest stride of the networks: patches and image must lie alike on their grid."""

    def __post_init__(self) -> None:
        block, step = self.block_px, self.proposal_stride_px
        if self.grid_px not in (16, 32):
            raise ValueError(f"grid_px {self.grid_px} is neither 16 nor 32")
        if self.patch_px % 32 or not 32 <= self.patch_px <= 1024:
            raise ValueError(f"patch_px {self.patch_px} must be a multiple of 32, up to 1024")
        if not step or not block or block % step:
            raise ValueError(f"block_px {block} is not a multiple of proposal_stride_px {step}")
        around, grid = self.patch_px - block, self.grid_px
        if block % 32 or around < 0 or around % (2 * grid):
            raise ValueError(
                f"patch_px {self.patch_px} must be block_px {block}, a multiple of 32, and a "
                f"multiple of {2 * grid}: patches lie on the networks' grid of {grid} px, as the "
                "image does"
            )
        side = self.screening_patch_px
        if side and not 16 <= side <= 512:
            raise ValueError(f"screening_patch_px {side} is neither 0 nor from 16 to 512")
        if self.screening_threshold and not side:
            raise ValueError("screening_threshold needs screening_patch_px")
        if not 0 < self.margin_px <= (self.patch_px - block) // 2:
            raise ValueError(
                f"margin_px {self.margin_px} must leave the block of {block} px in the middle of a "
                f"patch of {self.patch_px} px"
            )


class VerifierSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a verifying network changes the score of a candidate (`detection.verify`).

    The graph takes patches (n, patch_px, patch_px, 3) uint8 centered on candidates and gives
    probabilities (n,). The new score is sigmoid(intercept + map_weight * logit(map score) +
    verifier_weight * logit(probability)).
    """

    patch_px: Annotated[int, msgspec.Meta(ge=16, le=512)]
    smoothing_sigma_um: Sigma
    """Of the map, before candidates are sought."""
    candidate_threshold: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    """Regions of the smoothed map above it are candidates; their mean is the map score."""
    map_weight: float
    verifier_weight: float
    intercept: float


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model file says of itself beside its graphs."""

    name: _Text
    mpp: Scale
    """Scale that images are read at, um per pixel."""
    stride: int
    """Image pixels per map pixel: 1, 2, 4, 8, 16 or 32."""
    context_px: _Pixels
    """Context in pixels: input further away than this does not affect a map pixel."""
    smoothing_sigma_um: Sigma
    thresholds: Thresholds
    stain: Stain | None
    """Staining that every slide is matched to; None leaves colors as they are."""
    labels: dict[str, Any] = {}
    """Label recipe: kind and radii of the concentric label."""
    datasets: tuple[str, ...] = ()
    laboratories: tuple[str, ...] = ()
    """Where the training images come from."""
    training_commit: _Text = ""
    license: _Text = ""
    intended_use: _Text = ""
    description: _Text = ""
    validation: dict[str, Any] = {}
    """Precision, recall, F-score and on what they were measured; counts by laboratory."""
    cascade: CascadeSettings | None = None
    """None where the networks see all of an image."""
    verifier: VerifierSettings | None = None
    domain: DomainReference | None = None
    """What the training laboratories look like; an input unlike them is warned of."""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.stride not in (1, 2, 4, 8, 16, 32):
            raise ValueError(f"stride {self.stride} is not 1, 2, 4, 8, 16 or 32")
        stain = self.stain
        if stain is not None and not (min(stain.std) > 0 and min(stain.mean) >= 0):
            raise ValueError(f"stain {stain} is not three means and three positive deviations")
        threshold = self.thresholds.threshold
        if self.verifier is not None and (
            isinstance(threshold, str) or self.smoothing_sigma_um > 0
        ):
            # The map holds the joined scores of candidates: regions of one value, and 0.
            raise ValueError("with a verifier, threshold must be a number and smoothing_sigma_um 0")
        cascade = self.cascade
        if cascade is not None and (cascade.margin_px % self.stride):
            raise ValueError(f"margin_px {cascade.margin_px} is not a multiple of the stride")

    @property
    def map_mpp(self) -> float:
        """Um per pixel of the map."""
        return self.mpp * self.stride


def spec_from_dict(content: Any, where: str) -> ModelSpec:
    """Return a specification from decoded JSON.

    Args:
        content: of the JSON object.
        where: what to call it in an error.

    Raises:
        ModelError: naming the key that is missing, unknown or wrong.
    """
    version = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(content, dict) and version != FORMAT_VERSION:
        raise ModelError(
            f"{where}: model file format {version!r}; this version of SegMitos reads "
            f"{FORMAT_VERSION}: install the SegMitos that wrote it, or export it again"
        )
    try:
        return msgspec.convert(content, ModelSpec)
    except (msgspec.ValidationError, UsageError) as error:
        raise ModelError(f"{where}: {error}") from error


def cascade_context(settings: CascadeSettings, proposal_context_px: int) -> int:
    """Return the context of a cascade's map in pixels.

    A map pixel depends on the patches whose written middle holds it: on their pixels, and on what
    made the proposals in their blocks, the proposal network's view of a local maximum and of its
    neighbors, and what the screening network sees round it.

    Args:
        settings: of the cascade.
        proposal_context_px: context of the proposal network in pixels of its own scale times its
            downsampling, that is in pixels of the model's scale.
    """
    half = settings.patch_px // 2
    seen_px = max(proposal_context_px, -(-settings.screening_patch_px // 2))
    view = settings.block_px // 2 + settings.proposal_stride_px + seen_px
    return half - settings.margin_px + max(half, view)
