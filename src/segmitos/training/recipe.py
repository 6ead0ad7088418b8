"""A training recipe: every choice of an experiment, in one frozen object or one TOML file."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from segmitos.detection.spec import Scale, Sigma
from segmitos.errors import DataError, UsageError
from segmitos.io.text import reason_of
from segmitos.training.augment import PUBLISHED, Augmentation
from segmitos.training.concentric import LabelRecipe

RECIPES = Path(str(resources.files("segmitos") / "recipes"))
"""Folder of the packaged recipes: `lite`, `proposal`, `paper/...`."""
DEFAULT = "lite"
# A recipe that extends a recipe that extends ...: more than this is a circle.
_MAX_DEPTH = 8

Weight = Annotated[float, Meta(ge=0, le=1e6)]
Probability = Annotated[float, Meta(ge=0, le=1)]


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fractions of the kinds of crop in a batch; they need not add up to 1.

    They are divided by their sum. A kind of which the data hold nothing is left out of it.

    Raises:
        UsageError: for fractions that are all 0, or background of external crops without mosaics.
    """

    mitosis: Weight = 0.26
    """Round mitoses of fields and slides."""
    centered: Weight = 0.24
    """External crops that were cut round a mitosis (`crops` data sets)."""
    hard_negative: Weight = 0.16
    """Round labeled look-alikes."""
    mined: Weight = 0.22
    """Round false positives of the network itself, found in the mining rounds."""
    background: Weight = 0.12
    """Anywhere in the tissue of fields and slides."""
    external_background: Weight = 0.0
    """Anywhere in external crops, as parts of mosaics: other laboratories' ordinary cells."""
    mosaic: Probability = 0.0
    """Chance that a sample is a mosaic of four smaller ones, each drawn by these fractions and of
    real pixels alone. Nothing then tells where an external crop had its center, or that it was
    one."""
    shift_px: Annotated[int, Meta(ge=0, le=4096)] = 36
    """How far from a crop's center its point may lie, in pixels of the recipe's scale."""

    def __post_init__(self) -> None:
        kinds = (self.mitosis, self.centered, self.hard_negative, self.mined, self.background)
        if min(*kinds, self.external_background) < 0 or sum(kinds) + self.external_background <= 0:
            raise UsageError(
                f"sampling fractions {(*kinds, self.external_background)} must be 0 or more, and "
                "not all 0"
            )
        if self.external_background and not self.mosaic:
            raise UsageError(
                f"sampling external_background = {self.external_background} needs mosaic above 0: "
                "shown whole, such a crop holds its mitosis"
            )


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every choice of one training. Sizes in pixels are at the recipe's own `mpp`.

    Raises:
        UsageError: for values that contradict each other. Ranges and kinds of single values are
            checked by `from_dict`, through which `load_recipe` and `train` go.
    """

    network: str = "lite"
    """`lite`, `lite-half` (made for 0.5 um/px), `proposal`, or the paper's `fcn32s`, `fcn16s` and
    `fcn8s`; `training.networks.NETWORKS` has all."""
    pretrained: bool = True
    """Whether the encoder starts from ImageNet weights, where the network has an encoder."""
    weights: str = ""
    """Where all weights start: `vgg16:FILE`, `fcn32s:FILE` or `run:FOLDER` (`training.weights`)."""
    mpp: Scale = 0.25
    """Micrometers per pixel at which images are read, trained on and later detected on."""
    crop_px: Annotated[int, Meta(ge=8, le=4096)] = 128
    """Width of a crop; a multiple of 32, but for the FCN, which pads by itself."""
    crop_height_px: Annotated[int, Meta(ge=0, le=4096)] = 0
    """Height of a crop (the paper's 385 x 344); 0: square."""
    batch: Annotated[int, Meta(ge=1, le=4096)] = 48
    """Crops in an optimizer step, over all devices together."""
    epochs: Annotated[int, Meta(ge=1, le=1_000_000)] = 12
    """Rounds of `steps_per_epoch` steps; a checkpoint follows each, and validation where it is due
    (`validate_every`)."""
    steps_per_epoch: Annotated[int, Meta(ge=1, le=1_000_000)] = 200
    """Optimizer steps in an epoch; crops are drawn at random, so an epoch is no pass over data."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """`sgd` with momentum is the paper's."""
    learning_rate: Annotated[float, Meta(gt=0, le=1e30)] = 1e-3
    """At its highest, after the warm-up."""
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    """Of `sgd`."""
    weight_decay: Annotated[float, Meta(ge=0, le=10)] = 0.01
    """Of weights; biases and normalizations do not decay."""
    bias_rate: Annotated[float, Meta(ge=0, le=100)] = 1.0
    """Learning rate of the biases as a multiple of that of the weights; 2 in Caffe's FCN."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: half a cosine down to a hundredth, or as it is."""
    warmup_steps: Annotated[int, Meta(ge=0, le=1_000_000)] = 100
    """Steps in which the learning rate rises from nothing."""
    reduction: Literal["mean", "sum"] = "mean"
    """Of the loss over the pixels that count; `sum` is the paper's."""
    focal: Annotated[float, Meta(ge=0, le=10)] = 0.0
    """Exponent of the focal weight in the loss; 0 is the paper's entropy."""
    gradient_clip: Annotated[float, Meta(ge=0, le=1e9)] = 5.0
    """Largest norm of the gradient; 0: any."""
    ema: Annotated[float, Meta(ge=0, lt=1)] = 0.995
    """Decay of the exponential moving average of the weights, which is what is validated and
    exported; 0: the weights themselves."""
    precision: Literal["auto", "bf16-mixed", "32-true", "16-mixed"] = "auto"
    """`auto`: bfloat16 where the machine multiplies it, else float32. A CPU that does not is many
    times slower at it."""
    mine_at: Annotated[tuple[Probability, ...], Meta(max_length=100)] = (0.25, 0.55)
    """Fractions of the training after which false positives are mined anew."""
    mine_above: Probability = 0.2
    """Probability above which a local maximum that is no mitosis is a false positive."""
    mine_crops: bool = True
    """Whether to mine in external crops too."""
    ignore_above: Probability = 1.0
    """False positives above this probability may be mitoses that nobody labeled: ignored, not
    mined."""
    smoothing_sigma_um: Sigma = 1.0
    """Standard deviation of the Gaussian that smooths the map, in validation and detection."""
    validate_every: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    """Epochs from one validation to the next; the last epoch is always validated."""
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    """Of everything random."""
    labels: LabelRecipe = LabelRecipe()
    """How a click becomes a label: the paper's concentric labels and their ablations."""
    augmentation: Augmentation = Augmentation()
    """What may happen to a crop. In a file also the name of a data set, for the paper's
    (`training.augment.PUBLISHED`)."""
    background_augmentation: Augmentation | None = None
    """Of crops that are not round a mitosis: a table with the keys of `[augmentation]`; null: the
    same."""
    sampling: Sampling = Sampling()
    """Which crops a batch holds."""

    def __post_init__(self) -> None:
        if not self.network.startswith("fcn"):
            for name in ("crop_px", "crop_height_px"):
                if getattr(self, name) % 32:
                    raise UsageError(f"{name} = {getattr(self, name)} must be a multiple of 32")

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
        result: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return result

    @classmethod
    def from_dict(cls, content: dict[str, Any], where: str = "recipe") -> Recipe:
        """Build a recipe; an unknown key, or a value of the wrong kind or range, is an error.

        Raises:
            DataError: naming `where`, the key, its value and what is expected.
        """
        try:
            return msgspec.convert(_with_published(content, where), cls)
        except msgspec.ValidationError as error:
            raise DataError(f"{where}: {_explain(str(error), content)}") from error
        except UsageError as error:
            raise DataError(f"{where}: {error}") from error


class AdaptRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """How strongly a model that is adapted is held where it is.

    Chosen on laboratories left out of training.
    """

    weight_penalty: float = 1000.0
    """Half of it times the squared change of the weights is added to the loss of all marks."""
    shift_penalty: float = 4.0
    """The same for the intercept."""
    cut: float = 0.36
    """Probability that is to lie at the model's threshold: F is highest at half the F reached."""

    def to_dict(self) -> dict[str, Any]:
        """Return it for a run's identity."""
        return {"recipe": "adapt", **msgspec.structs.asdict(self)}


def load_recipe(recipe: str | Path = DEFAULT, **changes: Any) -> Recipe:
    """Read a packaged recipe by name, or a TOML file by path.

    A file with `extends = "OTHER"` starts from another recipe, a packaged one or a file beside it;
    what it says itself counts, key by key, in tables too.

    Args:
        recipe: such as `lite` or `paper/mitos14-random`, or the path of a file.
        changes: values over those of the file; None leaves a value as it is.

    Raises:
        DataError: for a name that is not packaged, a file that is missing or not TOML, an unknown
            key or a bad value.
    """
    path = find_recipe(recipe)
    content = _read(path, 0)
    given = {key: value for key, value in changes.items() if value is not None}
    content.update(_with_published(given, f"recipe {recipe}"))
    return Recipe.from_dict(content, f"recipe {recipe}")


def recipe_names() -> list[str]:
    """Return the names of the packaged recipes."""
    files = RECIPES.rglob("*.toml")
    names = sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in files)
    return [name for name in names if not name.endswith("base")]


def find_recipe(recipe: str | Path, beside: Path | None = None) -> Path:
    """Return the file of a recipe: a packaged name, or a path, relative to `beside` if given.

    Raises:
        DataError: if there is none, naming those that there are.
    """
    packaged = RECIPES / f"{recipe}.toml"
    if re.fullmatch(r"[\w/-]+", str(recipe)) and packaged.is_file():
        return packaged
    path = Path(recipe) if beside is None else beside / recipe
    if path.is_file():
        return path
    raise DataError(
        f"recipe {recipe} is neither a file nor one of the packaged ones: "
        f"{', '.join(recipe_names())}; segmitos train also takes adapt"
    )


def _read(path: Path, depth: int) -> dict[str, Any]:
    """Read a TOML file over the one that it extends."""
    if depth > _MAX_DEPTH:
        raise DataError(f"recipe {path} extends recipes in a circle")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"cannot read recipe {path}: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"recipe {path} is not TOML: {error}") from error
    base = content.pop("extends", None)
    # Before the files are merged, so that a table changes the keys of what another one names.
    content = _with_published(content, f"recipe {path}")
    if base is None:
        return content
    if not isinstance(base, str):
        raise DataError(f"recipe {path}: extends = {base!r} must be the name of a recipe")
    return _merge(_read(find_recipe(base, beside=path.parent), depth + 1), content)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` with the values of `above` over it, tables key by key."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = {**old, **value}
        result[key] = value
    return result


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
    positive, other = (msgspec.to_builtins(kind) for kind in PUBLISHED[name])
    return _merge({"background_augmentation": other}, {**content, "augmentation": positive})


def _explain(message: str, content: dict[str, Any]) -> str:
    """Turn msgspec's message and path into `key = value: what is expected`."""
    reason, _, path = message.partition(" - at `$.")
    unknown = re.search(r"unknown field `(.*?)`", reason)
    keys = re.findall(r"[^.\[\]`]+", path)
    if unknown:
        kinds = {"labels": LabelRecipe, "sampling": Sampling}
        kind = Recipe if not keys else kinds.get(keys[0], Augmentation)
        table = f" in [{'.'.join(keys)}]" if keys else ""
        known = ", ".join(sorted(kind.__struct_fields__))
        return f"unknown key {unknown[1]!r}{table}; known: {known}"
    value: Any = content
    for key in keys:
        value = value[int(key) if key.isdigit() else key]
    words = {"`array`": "a list", "`object`": "a table", "`int`": "a whole number"}
    words |= {"`float`": "a number", "`bool`": "true or false", "`str`": "text"}
    for old, new in words.items():
        reason = reason.replace(old, new)
    return f"{path.rstrip('`')} = {value!r}: {reason[0].lower()}{reason[1:]}"
