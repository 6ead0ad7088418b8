"""One file of what verifiers learn from: mitoses, rejected cells and a share of the dark nuclei.

Images are stored whole at 0.25 um/px, but fields are gray beyond squares round the points that are
kept, which costs next to nothing. So positions, borders and sizes stay those of the images.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from scipy.ndimage import maximum_filter
from torch import Tensor

from experiments.laboratories.data import LabImage
from experiments.laboratories.pools import learns, make_pools
from segmitos.detection.patches import OUTSIDE, patch_corners
from segmitos.detection.runtimes import Network
from segmitos.detection.stain import Stain
from segmitos.errors import DataError, OutputError
from segmitos.io.files import write_bytes
from segmitos.io.geometry import image_to_map, pad_to_multiple
from segmitos.training.networks.lite import LiteNetwork
from segmitos.training.networks.registry import load_imagenet_lite0
from segmitos.training.networks.verifier import PATCH_PX
from segmitos.training.patches import read_side
from segmitos.training.sampling import TrainingImage
from segmitos.training.train_verifier import Pool

FORMAT = 1
_HEADER, _TENSORS, _IMAGE = "pack.json", "tensors.safetensors", "{:05d}.webp"
_STRIDE = 4
"""Of the network that ranks the nuclei."""
_NEAR_PX = 8
# Of the encoder, so that squares begin and end where its blocks do.
_BLOCK_PX = 16


class _ImageEntry(msgspec.Struct, frozen=True):
    laboratory: str
    name: str
    slide: str
    fold: int
    centered: bool
    stain: Stain | None


class _Header(msgspec.Struct, frozen=True):
    format: int
    sha256: str
    versions: dict[str, str]
    share: float
    quality: int
    images: list[_ImageEntry]
    shares: dict[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Pack:
    """What a file holds: images, the points of all of them, an encoder to begin with."""

    images: list[LabImage]
    pools: dict[str, Pool]
    encoder: dict[str, Tensor]
    sha256: str

    def pools_of(self, fold: int) -> dict[str, Pool]:
        """Return the points that a fold's networks learn from."""
        learned = np.array([learns(image, fold) for image in self.images])

        def of_fold(points: NDArray[np.float64]) -> NDArray[np.float64]:
            return points[learned[points[:, 0].astype(int)]]

        pools = {
            name: dataclasses.replace(
                pool, positives=of_fold(pool.positives), negatives=of_fold(pool.negatives)
            )
            for name, pool in self.pools.items()
        }
        return {name: p for name, p in pools.items() if len(p.positives) or len(p.negatives)}


def pack(
    images: Sequence[LabImage],
    path: Path,
    network: Network,
    share: float,
    quality: int,
    most_bytes: int,
) -> dict[str, tuple[int, int]]:
    """Write a file of what verifiers learn from; of crops everything, of fields a part.

    Args:
        images: of all laboratories; the test slide's are left out.
        path: of the file.
        network: a network of the map, which ranks the nuclei of fields.
        share: of the dark nuclei of fields: half of it those most like a mitosis by the network,
            half drawn evenly. Mitoses and rejected cells are all kept.
        quality: of WebP, 0 to 100.
        most_bytes: that the file may have.

    Returns:
        Mitoses and other cells by laboratory.

    Raises:
        OutputError: where the file would be too large, or cannot be written.
    """
    images = [image for image in images if not image.test]
    pools = make_pools(images)
    rng = np.random.default_rng(0)
    for name in sorted(pools):
        pool = pools[name]
        scores = _scores(images, pool.negatives, network)
        pools[name] = dataclasses.replace(pool, negatives=pool.negatives[_kept(scores, share, rng)])
    members = _members(images, pools, quality)
    header = _Header(
        format=FORMAT,
        sha256=_digest(members),
        versions={
            "segmitos": importlib.metadata.version("segmitos"),
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "torch": str(torch.__version__),
        },
        share=share,
        quality=quality,
        images=[
            _ImageEntry(
                image.laboratory, image.name, image.source.slide, image.fold,
                image.source.centered, image.source.stain,
            )
            for image in images
        ],
        shares={name: (pool.positive_share, pool.negative_share) for name, pool in pools.items()},
    )  # fmt: skip
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in {_HEADER: msgspec.json.encode(header), **members}.items():
            file.writestr(zipfile.ZipInfo(name), content)
    if buffer.tell() > most_bytes:
        raise OutputError(
            f"{path} would have {buffer.tell() / 1e6:.1f} MB, more than {most_bytes / 1e6:g}; "
            "give a smaller --share or --quality"
        )
    write_bytes(path, buffer.getvalue())
    return {name: (len(pool.positives), len(pool.negatives)) for name, pool in pools.items()}


def _members(
    images: Sequence[LabImage], pools: Mapping[str, Pool], quality: int
) -> dict[str, bytes]:
    """Return the files of a pack by name, but its header: the tensors, and the images."""
    encoder = LiteNetwork()
    load_imagenet_lite0(encoder)
    tensors = {f"encoder/{key}": value for key, value in encoder.state_dict().items()}
    for name, pool in pools.items():
        tensors[f"positives/{name}"] = torch.from_numpy(pool.positives)
        tensors[f"negatives/{name}"] = torch.from_numpy(pool.negatives)
    points = np.concatenate(
        [p for pool in pools.values() for p in (pool.positives, pool.negatives)]
    )
    members = {_TENSORS: save(tensors)}
    for index, image in enumerate(images):
        pixels = image.source.image
        if not image.source.centered:
            pixels = _grayed(pixels, points[points[:, 0] == index, 1:])
        members[_IMAGE.format(index)] = _encoded(pixels, quality)
    return members


def read_pack(path: Path) -> Pack:
    """Read a file written by `pack`.

    Raises:
        DataError: where it is none, is damaged, or another version wrote it.
    """
    try:
        with zipfile.ZipFile(path) as file:
            header = msgspec.json.decode(file.read(_HEADER), type=_Header)
            if header.format != FORMAT:
                raise DataError(f"{path} has format {header.format}; this version reads {FORMAT}")
            names = [_TENSORS, *(_IMAGE.format(index) for index in range(len(header.images)))]
            members = {name: file.read(name) for name in names}
        if _digest(members) != header.sha256:
            raise DataError(f"{path} is damaged: its contents are not those of its SHA-256")
        tensors = load(members[_TENSORS])
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, KeyError, msgspec.DecodeError, SafetensorError) as error:
        raise DataError(f"{path} is not a pack of experiments.gpu: {error}") from error
    images = [
        _image_of(entry, members[_IMAGE.format(index)]) for index, entry in enumerate(header.images)
    ]
    pools = {
        name: Pool(tensors[f"positives/{name}"].numpy(), tensors[f"negatives/{name}"].numpy(), *of)
        for name, of in header.shares.items()
    }
    encoder = {
        key.removeprefix("encoder/"): value
        for key, value in tensors.items()
        if key.startswith("encoder/")
    }
    return Pack(images, pools, encoder, header.sha256)


def _image_of(entry: _ImageEntry, content: bytes) -> LabImage:
    """Return an image of a pack, whose points are in the pools."""
    none = np.zeros((0, 2))
    source = TrainingImage(
        name=entry.name,
        slide=entry.slide,
        image=np.asarray(Image.open(io.BytesIO(content)).convert("RGB")),
        mitoses_xy=none,
        hard_negatives_xy=none,
        centered=entry.centered,
        stain=entry.stain,
    )
    return LabImage(
        laboratory=entry.laboratory,
        name=entry.name,
        fold=entry.fold,
        test=False,
        source=source,
        unsure_xy=none,
        ratio=1.0,
    )


def _scores(
    images: Sequence[LabImage], points: NDArray[np.float64], network: Network
) -> NDArray[np.float64]:
    """Return the highest probability near each point; infinite for what is kept anyway."""
    result = np.full(len(points), np.inf)
    for index in np.unique(points[:, 0]).astype(int):
        image = images[index]
        if image.source.centered:
            continue
        rows = np.flatnonzero(points[:, 0] == index)
        map_ = network(pad_to_multiple(image.matched(), 32)[None])[0]
        highest = maximum_filter(map_, 2 * _NEAR_PX // _STRIDE + 1)
        column, row = np.rint(image_to_map(points[rows, 1:], _STRIDE)).astype(int).T
        column, row = column.clip(0, map_.shape[1] - 1), row.clip(0, map_.shape[0] - 1)
        rejected = (points[rows, None, 1:] == image.source.hard_negatives_xy[None]).all(-1).any(-1)
        result[rows] = np.where(rejected, np.inf, highest[row, column])
    return result


def _kept(scores: NDArray[np.float64], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mark what is infinite, and a share of the rest: half of it the highest, half drawn evenly."""
    kept = np.isinf(scores)
    half = round(share * int((~kept).sum()) / 2)
    kept[np.argsort(-scores, kind="stable")[: int(kept.sum()) + half]] = True
    rest = np.flatnonzero(~kept)
    kept[rng.choice(rest, min(half, len(rest)), replace=False)] = True
    return kept


def _grayed(pixels: NDArray[np.uint8], points_xy: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Make gray what lies beyond the square that a patch of each point is read from."""
    side = read_side(PATCH_PX)
    result = np.full_like(pixels, OUTSIDE)
    for left, top in patch_corners(points_xy, side):
        begin_y, begin_x = (max(0, place // _BLOCK_PX * _BLOCK_PX) for place in (top, left))
        end_y, end_x = (-(-(place + side) // _BLOCK_PX) * _BLOCK_PX for place in (top, left))
        part = np.s_[begin_y:end_y, begin_x:end_x]
        result[part] = pixels[part]
    return result


def _encoded(pixels: NDArray[np.uint8], quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()


def _digest(members: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in members.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
