"""A training recipe: every choice of an experiment, in one frozen object or one TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segmitos.errors import DataError, UsageError
from segmitos.training.augment import PUBLISHED, Augmentation
from segmitos.training.concentric import LabelRecipe


@dataclass(frozen=True)
class Sampling:
    """Shares of the kinds of crop in a batch; a kind without members gives its share away."""

    mitosis: float = 0.26
    """Mitoses of fields and slides."""
    centered: float = 0.24
    """Crops that were cut round a mitosis (`crops` data sets)."""
    hard_negative: float = 0.16
    """Labelled look-alikes."""
    mined: float = 0.22
    """False positives of the network itself, found in the mining rounds."""
    background: float = 0.12
    """Anywhere in the tissue of fields and slides."""
    crop_background: float = 0.0
    """Anywhere in crops of `crops` data sets, as parts of mosaics: more of other laboratories'
    ordinary cells than the mined ones."""
    mosaic: float = 0.0
    """Chance that a sample is four smaller ones, each by these shares and of real pixels alone.
    Nothing then tells where a crop cut round a mitosis had its center, or that it was one."""
    shift_px: int = 36
    """How far from a crop's center its point may lie, in pixels of the model's scale."""

    def __post_init__(self) -> None:
        shares = (
            self.mitosis,
            self.centered,
            self.hard_negative,
            self.mined,
            self.background,
            self.crop_background,
        )
        if min(shares) < 0 or sum(shares) <= 0:
            raise UsageError(f"sampling shares {shares} must be 0 or more, and not all 0")
        if self.crop_background and not self.mosaic:
            raise UsageError(
                f"sampling crop_background = {self.crop_background} needs mosaic above 0: shown "
                "whole, such a crop holds its mitosis"
            )
        if not 0 <= self.mosaic <= 1:
            raise UsageError(f"sampling mosaic = {self.mosaic} is no probability")


@dataclass(frozen=True)
class Recipe:
    """One experiment. Sizes in pixels are at the recipe's own `mpp`."""

    network: str = "lite"
    pretrained: bool = True
    weights: str = ""
    """Where the weights begin: `vgg16:FILE`, `caffe:FILE` or `run:FOLDER` (`training.weights`)."""
    mpp: float = 0.25
    crop_px: int = 128
    crop_height_px: int = 0
    """0: crops are square; else `crop_px` is their width (the paper's 385 x 344)."""
    batch: int = 48
    epochs: int = 12
    steps_per_epoch: int = 200
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.01
    bias_rate: float = 1.0
    """Learning rate of the biases as a multiple of that of the weights; 2 in Caffe's FCN."""
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = 100
    reduction: Literal["mean", "sum"] = "mean"
    focal: float = 0.0
    """Exponent of the focal weight in the loss; 0 is the paper's entropy."""
    gradient_clip: float = 5.0
    ema: float = 0.995
    precision: Literal["auto", "bf16-mixed", "32-true", "16-mixed"] = "auto"
    """`auto`: bfloat16 where the machine multiplies it, else float32. A CPU that does not is many
    times slower at it."""
    mine_at: tuple[float, ...] = (0.25, 0.55)
    """Shares of the training after which false positives are mined anew."""
    mine_above: float = 0.2
    mine_crops: bool = True
    """Whether also in crops that were cut round a mitosis (`crops` data sets)."""
    doubt_above: float = 1.0
    """False positives surer than this may be mitoses that nobody labelled: ignored, not mined."""
    smoothing_sigma_um: float = 1.0
    validate_every: int = 1
    seed: int = 0
    labels: LabelRecipe = field(default_factory=LabelRecipe)
    augmentation: Augmentation = field(default_factory=Augmentation)
    """In a file also the name of a data set, for the paper's (`training.augment.PUBLISHED`)."""
    background_augmentation: Augmentation | None = None
    """Of crops that are not round a mitosis; none: the same."""
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        for name in ("mpp", "crop_px", "batch", "epochs", "steps_per_epoch", "learning_rate"):
            if getattr(self, name) <= 0:
                raise UsageError(f"recipe {name} = {getattr(self, name)} must be above 0")
        if not self.network.startswith("fcn"):
            # The FCN pads to multiples of 32 by itself.
            for name in ("crop_px", "crop_height_px"):
                if getattr(self, name) % 32:
                    raise UsageError(
                        f"recipe {name} = {getattr(self, name)} must be a multiple of 32"
                    )
        for name in ("crop_height_px", "bias_rate", "focal"):
            if getattr(self, name) < 0:
                raise UsageError(f"recipe {name} = {getattr(self, name)} may not be below 0")
        if self.schedule not in ("cosine", "constant"):
            raise UsageError(f"recipe schedule = {self.schedule!r} is not cosine or constant")
        if self.optimizer not in ("adamw", "sgd"):
            raise UsageError(f"recipe optimizer = {self.optimizer!r} is not adamw or sgd")
        if self.precision not in ("auto", "bf16-mixed", "32-true", "16-mixed"):
            raise UsageError(
                f"recipe precision = {self.precision!r} is not auto, bf16-mixed, 32-true or "
                "16-mixed"
            )
        if self.reduction not in ("mean", "sum"):
            raise UsageError(f"recipe reduction = {self.reduction!r} is not mean or sum")

    @property
    def crop_size_px(self) -> tuple[int, int]:
        """Width and height of a crop."""
        return self.crop_px, self.crop_height_px or self.crop_px

    @property
    def steps(self) -> int:
        """All optimizer steps of the training."""
        return self.epochs * self.steps_per_epoch

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict that `from_dict` takes back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any], where: str = "recipe") -> Recipe:
        """Build a recipe; an unknown key or a value of the wrong kind is an error.

        Raises:
            DataError: naming `where` and the key.
        """
        recipe: Recipe = _build(cls, _with_published(content, where), where)
        return recipe


def load_recipe(path: Path, **changes: Any) -> Recipe:
    """Read a recipe from a TOML file, with values of `changes` that are not None over it.

    Raises:
        DataError: for a file that is missing, not TOML, or has an unknown key or a bad value.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"recipe {path} is not TOML: {error}") from error
    content.update({key: value for key, value in changes.items() if value is not None})
    return Recipe.from_dict(content, str(path))


_NESTED = {
    "labels": LabelRecipe,
    "augmentation": Augmentation,
    "background_augmentation": Augmentation,
    "sampling": Sampling,
}


def _with_published(content: dict[str, Any], where: str) -> dict[str, Any]:
    """Put the paper's augmentation in the place of its name."""
    name = content.get("augmentation")
    if not isinstance(name, str):
        return content
    if name not in PUBLISHED:
        raise DataError(
            f"{where}: augmentation {name!r} is not one of {', '.join(sorted(PUBLISHED))}; "
            "or write a table of its settings"
        )
    positive, other = (dataclasses.asdict(kind) for kind in PUBLISHED[name])
    return {"background_augmentation": other, **content, "augmentation": positive}


def _build(kind: Any, content: dict[str, Any], where: str) -> Any:
    known = {entry.name: entry for entry in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            raise DataError(f"{where}: unknown key {key!r}; known: {', '.join(sorted(known))}")
        if kind is Recipe and key in _NESTED:
            if value is None and key == "background_augmentation":
                continue
            if not isinstance(value, dict):
                raise DataError(f"{where}: {key} must be a table, not {value!r}")
            values[key] = _build(_NESTED[key], value, f"{where}: {key}")
            continue
        values[key] = _checked(known[key].type, value, f"{where}: {key}")
    try:
        return kind(**values)
    except UsageError as error:
        raise DataError(f"{where}: {error}") from error


def _checked(annotation: Any, value: Any, where: str) -> Any:
    """Check a TOML or JSON value against a field's annotation (given as text)."""
    name = str(annotation)
    if name.startswith("tuple"):
        if not isinstance(value, list | tuple) or not all(_is_number(item) for item in value):
            raise DataError(f"{where} = {value!r} must be a list of numbers")
        wanted = name.count("float")
        if "..." not in name and len(value) != wanted:
            raise DataError(f"{where} = {value!r} must hold {wanted} numbers")
        return tuple(float(item) for item in value)
    if name == "float":
        if not _is_number(value):
            raise DataError(f"{where} = {value!r} must be a number")
        return float(value)
    if name == "int" and (not isinstance(value, int) or isinstance(value, bool)):
        raise DataError(f"{where} = {value!r} must be a whole number")
    if name == "bool" and not isinstance(value, bool):
        raise DataError(f"{where} = {value!r} must be true or false")
    if (name == "str" or name.startswith("Literal")) and not isinstance(value, str):
        raise DataError(f"{where} = {value!r} must be text")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
