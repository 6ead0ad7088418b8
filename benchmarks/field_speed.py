"""What a field and a slide cost, beside other networks and the machine's own limits, in one run.

    python -m benchmarks.field_speed [--threads N] [--image FILE] [--slide FILE] [-o FILE.md]

Every row is a process of its own with the same threads. Machines are noisy, so trust ratios; the
first row is measured again at the end, and how far it moved is printed. The other networks are
float32 in torch with channels last and random weights, which do for timing:

- the paper's FCN-32s on VGG-16,
- a U-Net with an EfficientNet-B0 encoder, FlexibleUNet of MONAI,
- HoVer-Net of MONAI in its fast mode, on the windows of 256 px in and 164 px out that it was
  published with; a few windows are timed and scaled up to those that a field takes.

They need `pip install '.[bench]'`; without it their rows are left out.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import (
    Timing,
    machine_line,
    markdown,
    median,
    padded_field,
    run_isolated,
    time_blobs,
    time_command,
    time_decoding,
    time_image,
    time_network,
    time_slide,
    tissue_like,
    write_tissue,
)
from segmitos.console import run_program
from segmitos.detection.model import DEFAULT_MODEL, Model, available_threads

Rows = dict[str, Timing]
RUNTIMES = {"cpu": "ONNX Runtime", "openvino": "OpenVINO", "cuda": "CUDA"}
# Sides of a field in the side of the slide: enough tiles for reading and network to overlap.
_SLIDE_SIDES = 4
HOVER_IN_PX, HOVER_OUT_PX = 256, 164
HOVER_BATCH = 4
FIRST = f"network, {RUNTIMES['cpu']}"
# In float32, each runtime computes in what it chooses.
_FLOATS = {"cpu": "float32", "openvino": "bfloat16"}


def devices() -> list[str]:
    """The devices that there are here, the slowest to be expected first."""
    from segmitos.detection.runtimes import import_onnxruntime

    found = ["cpu"]
    if find_spec("openvino") is not None:
        found.append("openvino")
    if "CUDAExecutionProvider" in import_onnxruntime().get_available_providers():
        found.append("cuda")
    return found


def measure(
    model: Path | None,
    size: int,
    repeats: int,
    threads: int,
    on: Path | None = None,
    image: Path | None = None,
) -> tuple[Rows, Rows]:
    """Time the pieces of a field (`image`, or a drawn one) and of a slide (`on`, or made of it).

    The first row of each is what ratios refer to.
    """
    from PIL import Image

    path = None if model is None else str(model)
    shown = None if image is None else str(image)
    field: Rows = {}
    slide: Rows = {}
    with tempfile.TemporaryDirectory() as folder:
        picture, tiff = str(Path(folder) / "field.jpg"), on or Path(folder) / "slide.tif"
        Image.fromarray(tissue_like(size, shown)).save(picture, quality=80)
        if on is None:
            write_tissue(tiff, _SLIDE_SIDES * size, shown)
        for device in devices():
            name = f"network, {RUNTIMES[device]}"
            field[name] = run_isolated(time_network, path, device, threads, size, repeats, shown)
        field["smoothing, threshold, blobs"] = run_isolated(time_blobs, path, size, repeats, shown)
        field["detection from a JPEG file"] = run_isolated(
            time_image, path, picture, threads, size, repeats
        )
        field["the whole command, cold"] = time_command(path, picture, threads, size, repeats)
        for device in devices():
            name = f"detection, {RUNTIMES[device]}"
            slide[name] = run_isolated(time_slide, path, str(tiff), device, threads)
        slide["decoding alone"] = run_isolated(time_decoding, str(tiff), threads)
    return field, slide


def table(title: str, rows: Rows) -> str:
    """A Markdown table of timings, with the ratio of each row's time to the first's, per pixel."""
    first = next(iter(rows.values())).mpx_per_s
    return markdown(
        [title, "seconds", "Mpx/s", "time, first row = 1", "peak memory"],
        [
            [name, f"{one.seconds:.3f}", f"{rate:.1f}", f"{first / rate:.2f}", one.peak]
            for name, one in rows.items()
            for rate in [one.mpx_per_s]
        ],
    )


def _torch_network(name: str) -> Any:
    import torch

    network: Any

    if name == "hovernet":
        from monai.networks.nets.hovernet import HoVerNet

        network = HoVerNet(mode=HoVerNet.Mode.FAST)
    elif name == "unet":
        from monai.networks.nets.flexible_unet import FlexibleUNet

        network = FlexibleUNet(3, 1, "efficientnet-b0", pretrained=False)
    else:
        from segmitos.training.networks.registry import build_network

        network = build_network(name, False)
    return network.eval().to(memory_format=torch.channels_last)


def time_torch(name: str, threads: int, size: int, repeats: int) -> tuple[float, float]:
    """A network in torch on a field of `size` px."""
    import torch

    torch.set_num_threads(threads)
    network = _torch_network(name)
    windows = 1
    image = padded_field(size)
    if name == "hovernet":
        windows = math.ceil(size / HOVER_OUT_PX) ** 2
        image = np.repeat(padded_field(HOVER_IN_PX), min(HOVER_BATCH, windows), axis=0)

    @torch.inference_mode()
    def run() -> object:
        tensor = torch.from_numpy(image).permute(0, 3, 1, 2).float()
        return network(tensor.contiguous(memory_format=torch.channels_last))

    began = time.perf_counter()
    run()
    first = time.perf_counter() - began
    # What takes this long is steady enough at once.
    seconds = first if first > 15 else median(run, max(1, min(repeats, int(30 / first))))
    return seconds * windows / len(image), size * size / 1e6


def time_matmul(kind: str, threads: int) -> tuple[float, float]:
    """Best of a large matrix product: (seconds, GFLOP)."""
    import torch

    torch.set_num_threads(threads)
    side = 3072
    a, b = (100 * torch.rand(2, side, side)).to(getattr(torch, kind))
    product = torch._int_mm if kind == "int8" else torch.mm
    best = math.inf
    with torch.inference_mode():
        for _ in range(6):
            began = time.perf_counter()
            product(a, b)
            best = min(best, time.perf_counter() - began)
    return best, 2 * side**3 / 1e9


def gflop_per_field(name: str, size: int) -> float:
    """Arithmetic of a network's convolutions on a field, a multiplication and an addition each."""
    import torch
    from torch import nn

    network = _torch_network(name)
    side = HOVER_IN_PX
    flops = 0

    def count(module: Any, inputs: Any, output: Any) -> None:
        nonlocal flops
        taps = module.weight[0].numel()
        places = output.numel()
        if isinstance(module, nn.ConvTranspose2d):
            taps, places = module.weight[0].numel(), inputs[0].numel()
        flops += 2 * taps * places

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.zeros(1, 3, side, side))
    if name == "hovernet":
        return flops * math.ceil(size / HOVER_OUT_PX) ** 2 / 1e9
    return flops / side**2 * size**2 / 1e9


def rivals() -> dict[str, str]:
    """Networks to compare with, by the names in the table."""
    found: dict[str, str] = {}
    if find_spec("torch") is None:
        print("torch is not installed: other networks are left out; pip install '.[bench]'\n")
        return found
    found["the paper's FCN-32s, torch float32"] = "fcn32s"
    if find_spec("monai") is None:
        print("MONAI is not installed: its networks are left out; pip install '.[bench]'\n")
        return found
    found["U-Net, EfficientNet-B0 encoder, torch float32"] = "unet"
    found["HoVer-Net, torch float32"] = "hovernet"
    return found


def limits_table(field: Rows, slide: Rows, threads: int, size: int, integers: bool) -> str:
    """How near each comes to what the machine can do at best."""
    kinds = dict.fromkeys(_FLOATS, "int8") if integers else _FLOATS
    columns = ["limit", "rate", "of it reached"]
    lines = []
    decoding = slide["decoding alone"].mpx_per_s
    for device in devices():
        runtime = RUNTIMES[device]
        rate, network = slide[f"detection, {runtime}"], field[f"network, {runtime}"]
        slower = min(decoding, network.mpx_per_s)
        limit = f"slower of decoding and network alone, {runtime}"
        lines.append([limit, f"{slower:.1f} Mpx/s", f"{rate.mpx_per_s / slower:.0%}"])
    if find_spec("torch") is None:
        return markdown(columns, lines)
    arithmetic = gflop_per_field("lite", size)
    for runtime, kind in kinds.items():
        name = f"network, {RUNTIMES[runtime]}"
        if name not in field:
            continue
        peak = run_isolated(time_matmul, kind, threads).mpx_per_s
        limit = f"{kind} matrix product x {arithmetic:.0f} GOP a field, {RUNTIMES[runtime]}"
        best = arithmetic / peak
        rates = f"{peak:.0f} GOP/s, {best:.3f} s a field"
        lines.append([limit, rates, f"{best / field[name].seconds:.0%}"])
    return markdown(columns, lines)


def networks_table(rows: dict[str, tuple[Timing, float]]) -> str:
    first = next(iter(rows.values()))[0].seconds
    return markdown(
        ["network on a field", "seconds", "time, first row = 1", "GFLOP", "peak memory"],
        [
            [name, f"{one.seconds:.2f}", f"{one.seconds / first:.2f}", f"{gflop:.0f}", one.peak]
            for name, (one, gflop) in rows.items()
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--size", type=int, default=2084, help="side of the field, px")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--image", type=Path, help="a field of tissue; default: a drawn one")
    parser.add_argument("--slide", type=Path, help="a slide; default: one made of the field")
    parser.add_argument("-o", "--out", type=Path, help="file for the tables")
    options = parser.parse_args()
    image = None if options.image is None else str(options.image)
    size, repeats, threads = options.size, options.repeats, options.threads
    written: list[str] = []

    def show(text: str) -> None:
        print(text + "\n", flush=True)
        written.append(text + "\n")

    model = Model.load(options.model)
    name = model.spec.name
    integers = "int8" in model.spec.description
    show(f"{name}; {machine_line(threads)}; median of {repeats}")
    field, slide = measure(options.model, size, repeats, threads, options.slide, options.image)
    show(table(f"{size} x {size} px field", field))
    show(table("slide, Mpx of tissue", slide))
    show(limits_table(field, slide, threads, size, integers))
    others = rivals()
    if others:
        arithmetic = gflop_per_field("lite", size)
        rows = {name: (field[name], arithmetic) for name in field if name.startswith("network")}
        for name, network in others.items():
            timing = run_isolated(time_torch, network, threads, size, repeats)
            rows[name] = (timing, gflop_per_field(network, size))
        show(networks_table(rows))
    again = run_isolated(time_network, str(options.model), "cpu", threads, size, repeats, image)
    show(f"The first row again, at the end: {again.seconds / field[FIRST].seconds:.2f} of before.")
    if options.out:
        options.out.write_text("\n".join(written))


if __name__ == "__main__":
    run_program(main, "benchmarks.field_speed")
