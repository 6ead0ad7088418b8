"""Fewer steps, validations and rounds of mining, so that a training takes the time it was given.

Before the first step all is estimated by the time of a step. At the end of the first epoch the
number of epochs is chosen again by what was measured, and at the end of the others it is cut where
the machine became slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

import msgspec

from segmitos.errors import UsageError
from segmitos.training.recipe import Recipe
from segmitos.training.sampling import TrainingImage

# Fractions of a time budget: what steps may take, all validations but the last, all mining.
_STEPS, _VALIDATIONS, _MINING = 0.8, 0.1, 1 / 3
# Steps take this fraction at least, however long the rest is.
_MIN_STEPS = 0.25
# A pixel that is only predicted costs this much of one that is learned from: on a CPU a third of
# the work, three times as fast (`predict`).
_LOOK = 1 / 9


@dataclass(frozen=True)
class Costs:
    """Seconds that a step, a validation and a round of mining take."""

    step_s: float = 0.0
    validation_s: float = 0.0
    mining_s: float = 0.0


class Pace:
    """How long a training has taken so far, and its parts of late.

    Args:
        spent_s: what it took before it was stopped and taken up again.
    """

    def __init__(self, spent_s: float = 0.0) -> None:
        self._began = monotonic() - spent_s
        # By name: seconds in all, and how many.
        self._taken: dict[str, tuple[float, int]] = {}

    @property
    def spent_s(self) -> float:
        """Seconds since the training began."""
        return monotonic() - self._began

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time one step, validation or round of mining."""
        began = monotonic()
        yield
        seconds, number = self._taken.get(name, (0.0, 0))
        self._taken[name] = seconds + monotonic() - began, number + 1

    def costs(self, known: Costs) -> Costs:
        """Return the mean costs since the last call; where there is none, the known one."""
        means = {name: seconds / number for name, (seconds, number) in self._taken.items()}
        self._taken = {}
        return Costs(
            means.get("step", known.step_s),
            means.get("validation", known.validation_s),
            means.get("mining", known.mining_s),
        )


def estimated_costs(
    recipe: Recipe,
    step_s: float,
    training: Sequence[TrainingImage],
    held_out: Sequence[TrainingImage],
) -> Costs:
    """Estimate what looking at images whole costs, by the time of a step."""
    width, height = recipe.crop_size_px
    pixel_s = _LOOK * step_s / (recipe.batch * width * height)

    def look_s(images: Sequence[TrainingImage]) -> float:
        return pixel_s * sum(math.prod(image.image.shape[:2]) for image in images)

    mined = [image for image in training if recipe.mine_crops or not image.centered]
    return Costs(step_s, look_s(held_out), look_s(mined))


def fit_to_budget(recipe: Recipe, budget_s: float, costs: Costs, spent_s: float = 0.0) -> Recipe:
    """Return a recipe of fewer steps where its own would take longer than a time budget.

    Early rounds of mining are left out where all of them would take more than a third of it, and
    validations but the last where they would take more than a tenth.

    Args:
        recipe: every choice of the training.
        budget_s: time for all of it.
        costs: as estimated.
        spent_s: time that loading took.

    Raises:
        UsageError: if not even one step fits.
    """
    mine_at = recipe.mine_at
    while len(mine_at) * costs.mining_s > _MINING * budget_s:
        mine_at = mine_at[1:]
    recipe = msgspec.structs.replace(recipe, mine_at=mine_at)
    recipe = _validated_less(recipe, budget_s, costs)
    beside_s = spent_s + len(mine_at) * costs.mining_s + _validations_s(recipe, costs)
    steps_s = max(_MIN_STEPS * budget_s, min(_STEPS * budget_s, budget_s - beside_s))
    steps = int(steps_s / max(costs.step_s, 1e-9))
    if steps < 1:
        raise UsageError(
            f"a step takes {costs.step_s:.1f} s here: a time budget of {budget_s:.0f} s holds "
            "none; give more"
        )
    if steps >= recipe.steps:
        return recipe
    epochs = min(recipe.epochs, steps)
    return msgspec.structs.replace(
        recipe,
        epochs=epochs,
        steps_per_epoch=steps // epochs,
        warmup_steps=min(recipe.warmup_steps, steps // 10),
        validate_every=min(recipe.validate_every, epochs),
    )


def fit_rest(
    recipe: Recipe, budget_s: float, spent_s: float, epochs: int, costs: Costs, max_steps: int
) -> Recipe:
    """Return a recipe of as many epochs as fit into the time; of more only after the first.

    Later the learning rate would rise again.

    Args:
        recipe: that of the training so far.
        budget_s: time for all of it.
        spent_s: time that it took so far.
        epochs: that were done; no fewer are returned.
        costs: as measured.
        max_steps: of the training where time is no matter.
    """
    most = max_steps // recipe.steps_per_epoch if epochs == 1 else recipe.epochs
    rounds = sum(fraction * recipe.epochs > epochs for fraction in recipe.mine_at)
    rest_s = budget_s - spent_s - 2 * costs.validation_s - rounds * costs.mining_s
    fit = epochs + max(0, int(rest_s / max(costs.step_s * recipe.steps_per_epoch, 1e-9)))
    fitted = msgspec.structs.replace(recipe, epochs=min(most, fit))
    return _validated_less(fitted, budget_s, costs)


def _validated_less(recipe: Recipe, budget_s: float, costs: Costs) -> Recipe:
    """Return a recipe that validates at its end alone where more would take too long."""
    before_last = (recipe.epochs - 1) // recipe.validate_every
    if before_last * costs.validation_s <= _VALIDATIONS * budget_s:
        return recipe
    return msgspec.structs.replace(recipe, validate_every=recipe.epochs)


def _validations_s(recipe: Recipe, costs: Costs) -> float:
    """Return the time of all validations; one more is that in which thresholds are tuned."""
    return (-(-recipe.epochs // recipe.validate_every) + 1) * costs.validation_s
