"""The packages that training needs, which detection does without."""

from __future__ import annotations

from importlib.util import find_spec

from segmitos.errors import UsageError

_NEEDED = {
    "torch": "torch",
    "lightning_fabric": "lightning-fabric",
    "safetensors": "safetensors",
    "onnx": "onnx",
}


def require_training() -> None:
    """Refuse where packages that training needs are missing. Raises UsageError."""
    missing = [name for module, name in _NEEDED.items() if find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UsageError(
            f"training needs {', '.join(missing)}, which {verb} not installed: "
            "in the source folder, pip install '.[train]'"
        )
