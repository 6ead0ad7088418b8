"""What a network says in the written middle of a patch is what it says of the whole image.

Where a patch ends, the networks see padding; nearer to it than `margin_px` they invent mitoses.
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from segmitos.detection.cascade import block_patch_corners, local_maxima
from segmitos.detection.model import DEFAULT_MODEL
from segmitos.detection.model_file import read_model_file
from segmitos.detection.runtimes import open_onnxruntime
from segmitos.detection.stain import apply_lookup, od_statistics, stain_lookup

SIDE = 960
# Largest and mean difference of probability that a patch may make in int8.
LARGEST, MEAN = 0.25, 0.006
FIELDS = {
    "hospital A, Hamamatsu": "mitos-atypia-14/H12/frames/x40/*.jpg",
    "hospital A, Aperio": "mitos12/A01_v2/*.*",
    "MiDeSeC": "midesec/M*.jpg",
    "UCSB": "background/ucsb-breast/*.jpg",
    "TCGA": "background/monuseg/*.jpg",
    "TNBC": "background/tnbc/*.jpg",
}


@pytest.mark.parametrize("laboratory", list(FIELDS))
def test_a_patch_says_what_the_whole_image_says(data_dir, laboratory):
    paths = sorted(data_dir.glob(FIELDS[laboratory]))
    images = [path for path in paths if path.suffix in (".jpg", ".png", ".bmp", ".tif")]
    assert images
    file = read_model_file(DEFAULT_MODEL)
    cascade, spec = file.spec.cascade, file.spec
    network, proposal = (
        open_onnxruntime(graph, "lite", "cpu", 1)[0] for graph in (file.networks[0], file.proposal)
    )
    differences, patches = [], 0
    for path in (images[0], images[len(images) // 2]):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        height, width = (min(SIDE, side // 32 * 32) for side in pixels.shape[:2])
        stain = od_statistics(pixels[::4, ::4])
        if stain is not None:
            pixels = apply_lookup(np.ascontiguousarray(pixels), stain_lookup(stain, spec.stain))
        pixels = np.ascontiguousarray(pixels[:height, :width])
        whole = network(pixels[None])[0]
        proposals = local_maxima(proposal(pixels[None])[0], cascade.proposal_threshold)
        side, margin = cascade.patch_px, cascade.margin_px
        for y, x in block_patch_corners(proposals, cascade, (0, 0)):
            if y < 0 or x < 0 or y + side > height or x + side > width or patches > 12:
                continue
            patches += 1
            inside = slice(margin // 4, (side - margin) // 4)
            middle = network(pixels[None, y : y + side, x : x + side])[0][inside, inside]
            at = np.s_[
                (y + margin) // 4 : (y + side - margin) // 4,
                (x + margin) // 4 : (x + side - margin) // 4,
            ]
            differences.append(np.abs(middle - whole[at]))
    if not patches:
        pytest.skip("nothing is proposed far enough from the border of these fields")
    assert np.max(differences) <= LARGEST
    assert np.mean(differences) <= MEAN


def test_the_written_middle_holds_a_mitosis_at_the_border_of_its_block():
    """A mitosis is up to 12 um across; its proposal may lie at the border of the block."""
    cascade = read_model_file(DEFAULT_MODEL).spec.cascade
    written = cascade.patch_px - 2 * cascade.margin_px
    cell = cascade.proposal_stride_px
    assert (written - cascade.block_px) / 2 + cell / 2 >= 24
