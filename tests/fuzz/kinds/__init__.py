"""Every kind of input, by name."""

from __future__ import annotations

from ..kind import Kind
from . import datasets, images, lists, models, points, regions, results, training

MODULES = (points, datasets, regions, lists, training, results, models, images)
KINDS: dict[str, Kind] = {kind.name: kind for module in MODULES for kind in module.KINDS}
