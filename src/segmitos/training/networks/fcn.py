"""The paper's networks: VGG-16 made fully convolutional, with strides 32, 16 and 8 (section 3.1).

After Long, Shelhamer and Darrell 2015: fc6 and fc7 are convolutions with dropout, a 1 x 1
convolution predicts two channels (background, mitosis), and the prediction is upsampled to the
input; `fcn16s` adds a prediction from pool4, `fcn8s` also one from pool3.

Two things differ from the published Caffe nets, both for exactness:

- *Padding.* The reference pads the input by 100 px so that the unpadded 7 x 7 fc6 has something to
  stand on, and crops the output by offsets that leave it about half a pixel off. Here every
  convolution keeps its size and the sides are padded to multiples of 32, so that coarse pixel
  i covers pixels 32 i to 32 i + 31 and the bilinear upsampling, which has the same centers, is
  aligned to the pixel. It also spares the 100 px of nothing round every patch.
- *Fusion.* The reference upsamples by 2, adds the skip, upsamples by the rest. Here each
  prediction is upsampled to the input and the results are added. Upsampling is linear, so that is
  the same sum but for the kernel of the coarsest term (one triangle instead of two convolved); and
  with skips that start at zero a stage begins with exactly the output of the one before.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segmitos.errors import UsageError

# Channels of the convolutions of VGG-16 (configuration D) between its five poolings.
_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# Means and deviations on 0..255 that torchvision's VGG-16 was trained with.
IMAGE_MEAN = (123.675, 116.28, 103.53)
IMAGE_STD = (58.395, 57.12, 57.375)
_SIDE_MULTIPLE = 32


def bilinear_kernel(stride: int) -> Tensor:
    """Return the (2 s, 2 s) kernel with which a transposed convolution upsamples bilinearly."""
    offsets = (torch.arange(2 * stride, dtype=torch.float64) + 0.5) / stride - 1
    row = 1 - offsets.abs()
    return torch.outer(row, row).float()


class BilinearUpsampling(nn.Module):
    """Transposed convolution by `stride`, one bilinear kernel a channel, borders continued.

    The kernel is a parameter but takes no gradient, as in the reference (`lr_mult: 0`).
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        # One more map pixel a side, cut off again: a constant stays constant up to the border.
        self.up = nn.ConvTranspose2d(
            channels,
            channels,
            2 * stride,
            stride,
            padding=stride + stride // 2,
            groups=channels,
            bias=False,
        )
        with torch.no_grad():
            self.up.weight.copy_(bilinear_kernel(stride).expand_as(self.up.weight))
        self.up.weight.requires_grad_(False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        result: Tensor = self.up(F.pad(x_BCHW, (1, 1, 1, 1), mode="replicate"))
        return result


class FCN(nn.Module):
    """VGG-16 as a fully convolutional network.

    Takes (N, 3, H, W) RGB on the 0..255 scale, any H and W, and returns logits (N, 2, H, W) of
    background and mitosis.

    Args:
        output_stride: 32, 16 or 8, that of the finest prediction.
        width: multiplies all channel counts; 1 is VGG-16, less serves tests.

    Raises:
        UsageError: for another stride.
    """

    # The output has the input's size.
    stride = 1
    # fc6 sees 404 px, and an output pixel mixes map pixels up to 32 px away: 202 + 32, rounded up
    # to a multiple of 32.
    context_px = 256
    mean: Tensor
    std: Tensor

    def __init__(self, output_stride: int = 32, width: float = 1.0) -> None:
        super().__init__()
        if output_stride not in (32, 16, 8):
            raise UsageError(f"output stride {output_stride} is not one of 32, 16, 8")

        def scaled(channels: int) -> int:
            return max(2, round(channels * width))

        layers: list[nn.Module] = []
        self._pools: list[int] = []
        inputs = 3
        for stage in _VGG16:
            for channels in stage:
                layers += [nn.Conv2d(inputs, scaled(channels), 3, padding=1), nn.ReLU(inplace=True)]
                inputs = scaled(channels)
            layers.append(nn.MaxPool2d(2, 2))
            self._pools.append(len(layers) - 1)
        # Numbered as in torchvision, so that its names fit.
        self.features = nn.Sequential(*layers)
        self.fc6 = nn.Conv2d(inputs, scaled(4096), 7, padding=3)
        self.fc7 = nn.Conv2d(scaled(4096), scaled(4096), 1)
        self.dropout = nn.Dropout(0.5)
        self.score_fr = nn.Conv2d(scaled(4096), 2, 1)
        self.upscore32 = BilinearUpsampling(2, 32)
        predictions = [self.score_fr]
        self.score_pool4: nn.Conv2d | None = None
        self.score_pool3: nn.Conv2d | None = None
        if output_stride <= 16:
            self.score_pool4 = nn.Conv2d(scaled(512), 2, 1)
            self.upscore16 = BilinearUpsampling(2, 16)
            predictions.append(self.score_pool4)
        if output_stride == 8:
            self.score_pool3 = nn.Conv2d(scaled(256), 2, 1)
            self.upscore8 = BilinearUpsampling(2, 8)
            predictions.append(self.score_pool3)
        self._initialize(predictions)
        # Buffers, since converted weights bring the mean and deviation they were trained with.
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGE_STD).view(1, 3, 1, 1))

    def _initialize(self, predictions: list[nn.Conv2d]) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        for prediction in predictions:
            nn.init.zeros_(prediction.weight)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def maps(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps after pool3, pool4 and pool5, at strides 8, 16 and 32."""
        found = []
        x = x_BCHW
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self._pools[2:]:
                found.append(x)
        return found[0], found[1], found[2]

    def forward(self, image_BCHW: Tensor) -> Tensor:
        height, width = image_BCHW.shape[2], image_BCHW.shape[3]
        x = (image_BCHW - self.mean) / self.std
        below, right = -height % _SIDE_MULTIPLE, -width % _SIDE_MULTIPLE
        if below or right:
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        pool3, pool4, pool5 = self.maps(x)
        x = self.dropout(F.relu(self.fc6(pool5)))
        x = self.dropout(F.relu(self.fc7(x)))
        logits: Tensor = self.upscore32(self.score_fr(x))
        if self.score_pool4 is not None:
            logits = logits + self.upscore16(self.score_pool4(pool4))
        if self.score_pool3 is not None:
            logits = logits + self.upscore8(self.score_pool3(pool3))
        if below or right:
            logits = logits[:, :, :height, :width]
        return logits
