"""What a field costs, against the paper's network and the machine's own limits, in one run.

    python benchmarks/speed.py [--model FILE] [--size 2084] [--repeats 5] [--slow]

Prints a Markdown table: seconds, Mpx/s, and the ratio to the shipped model on ONNX Runtime. All
timings are medians in one process, with the same threads. Machines are noisy: compare the ratios.
`--slow` adds the paper's FCN-32s (a VGG-16 of 134 M weights, random ones do for timing).
"""

from __future__ import annotations

import argparse
import io
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from segmitos.commands.bench import tissue_like
from segmitos.detect.mitoses import MapAccumulator, smooth
from segmitos.detect.model import DEFAULT_MODEL, Model, available_threads
from segmitos.detect.pipeline import DetectOptions, detect_slide
from segmitos.errors import ModelError
from segmitos.io.slide import Slide


def median(work: Callable[[], object], repeats: int) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def vgg_fcn32s() -> Callable[[np.ndarray], object]:
    """The paper's network at random weights, in torch, float32, channels last."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    layers: list[nn.Module] = []
    channels = 3
    for count, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
    layers += [nn.Conv2d(512, 4096, 7, padding=3), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(4096, 4096, 1), nn.ReLU(inplace=True), nn.Conv2d(4096, 2, 1)]
    network = nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(image: np.ndarray) -> object:
        tensor = torch.from_numpy(image)[None].permute(0, 3, 1, 2).float()
        logits = network(tensor.contiguous(memory_format=torch.channels_last))
        return F.interpolate(logits, scale_factor=32.0, mode="bilinear").softmax(dim=1)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--size", type=int, default=2084)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slow", action="store_true")
    options = parser.parse_args()
    size, repeats = options.size, options.repeats
    field = tissue_like(size)
    side = -(-size // 32) * 32
    padded = np.full((1, side, side, 3), 255, np.uint8)
    padded[0, :size, :size] = field
    rows: list[tuple[str, float]] = []
    model = Model.load(options.model, "cpu")
    spec = model.spec
    rows.append(("network, ONNX Runtime float32", median(lambda: model.predict(padded), repeats)))
    try:
        other = Model.load(options.model, "openvino")
        rows.append(("network, OpenVINO", median(lambda: other.predict(padded), repeats)))
    except ModelError:
        pass
    probability = model.predict(padded)[0]
    map_mpp = spec.mpp * spec.stride

    def post() -> None:
        accumulator = MapAccumulator(map_mpp, spec.stride, guard=False)
        accumulator.add(smooth(probability, spec.smoothing_sigma_um, map_mpp), 0, 0)
        accumulator.blobs(spec.thresholds.binarisation)

    rows.append(("smooth, binarise, blobs", median(post, repeats)))
    slide = Slide.from_array(field, spec.mpp)
    whole = median(lambda: detect_slide(slide, model, DetectOptions()), repeats)
    rows.append(("detect, image in memory", whole))
    buffer = io.BytesIO()
    Image.fromarray(field).save(buffer, "JPEG", quality=80)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "field.jpg"
        path.write_bytes(buffer.getvalue())

        def from_file() -> None:
            with Slide.open(path, mpp=spec.mpp) as opened:
                detect_slide(opened, model, DetectOptions())

        rows.append(("detect, JPEG file", median(from_file, repeats)))
        decode = median(lambda: np.asarray(Image.open(path).convert("RGB")), repeats)
        rows.append(("decoding the JPEG alone", decode))
    if options.slow:
        import torch

        torch.set_num_threads(available_threads())
        fcn = vgg_fcn32s()
        rows.append(("the paper's FCN-32s, torch float32", median(lambda: fcn(padded[0]), 1)))
    first = rows[0][1]
    print(
        f"{spec.name}, {size} x {size} px, {available_threads()} threads, {platform.machine()}, "
        f"median of {repeats}\n"
    )
    print("| what | seconds | Mpx/s | time against the first row |")
    print("|---|---|---|---|")
    for name, seconds in rows:
        rate = size * size / 1e6 / seconds
        print(f"| {name} | {seconds:.3f} | {rate:.1f} | {seconds / first:.2f} |")


if __name__ == "__main__":
    main()
