"""From slide to detections: numpy and an inference runtime, never torch.

The folder and the verb share a name, as in the flow, so the package is callable:
`segmitos.detect(image, mpp=0.25)` is `segmitos.detect.pipeline.detect(image, mpp=0.25)`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        from segmitos.detect.pipeline import detect

        return detect(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
