"""Which cases are held out: by slide or by laboratory, by a stated rule, never by field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from segmitos.errors import DataError, UsageError
from segmitos.io.datasets import Case

By = Literal["slide", "laboratory"]

# Fraction of the mitoses to hold out for validation, and the largest that is accepted.
_HELD_OUT, _AT_MOST = 1 / 5, 1 / 3
# The largest that is accepted of two slides, since fewer give no held-out score.
_AT_MOST_FOR_TWO = 1 / 2


def assign_folds(cases: Sequence[Case], by: By, count: int | None = None) -> dict[str, list[Case]]:
    """Divide cases into folds, each to be tested by a network trained on the others.

    By slide: slides in the order of their mitoses, most first, each into the fold that has the
    fewest so far; slides of one patient stay together. By laboratory: each is a fold.

    Args:
        cases: all of them.
        by: `slide` or `laboratory`.
        count: of folds, by slide alone; None is 5, or as many as there are slides if fewer.

    Returns:
        The cases of each fold by its name, in the order given.

    Raises:
        UsageError: for fewer than two folds, or a number of folds by laboratory.
        DataError: where there are fewer slides than folds, fewer than two laboratories, or a case
            of unknown laboratory.
    """
    if by == "laboratory":
        if count is not None:
            raise UsageError("by laboratory, each one is a fold: leave the number of folds out")
        return _by_laboratory(cases)
    groups = _groups(cases)
    if count is None:
        count = min(5, len(groups))
    if count < 2:
        raise UsageError(f"{count} folds: cross-validation needs two or more, and as many slides")
    if len(groups) < count:
        raise DataError(
            f"{count} folds of {len(groups)} slides (those of one patient are one): give fewer"
        )
    number_of: dict[str, int] = {}
    for crops in (False, True):
        # Crops are many and each holds a mitosis: they are divided apart, not to outweigh fields.
        kind = {key: own for key, own in groups.items() if _all_crops(own) == crops}
        number_of |= _balanced(kind, count)
    folds: dict[str, list[Case]] = {f"fold-{index + 1}": [] for index in range(count)}
    for case in cases:
        folds[f"fold-{number_of[case.group] + 1}"].append(case)
    return folds


def _all_crops(cases: Sequence[Case]) -> bool:
    return all(case.centered_crop for case in cases)


def _balanced(groups: dict[str, list[Case]], count: int) -> dict[str, int]:
    """Give each group, largest first, to the fold with the fewest mitoses so far."""
    number_of: dict[str, int] = {}
    mitoses, sizes = [0] * count, [0] * count
    for key in _largest_first(groups):
        fold = min(range(count), key=lambda index: (mitoses[index], sizes[index], index))
        number_of[key] = fold
        mitoses[fold] += _mitoses(groups[key])
        sizes[fold] += len(groups[key])
    return number_of


def hold_out(cases: Sequence[Case]) -> list[Case]:
    """Choose cases for validation: about a fifth of the mitoses, on whole slides.

    Slides with mitoses (those of one patient together) in the order of their number, from the
    middle outwards, until a fifth of all mitoses is held out, on two slides or more where there are
    four. A slide that would bring it above a third is passed over, unless a second one of four can
    only be had so; then the limit is a half. Crops that were cut round a mitosis are chosen only
    where there is nothing else, since they say little of false positives; those of the patients
    chosen (`Case.group`) must not be trained on.

    Raises:
        DataError: if there are fewer than two slides with mitoses.
    """
    fields = [case for case in cases if not case.centered_crop] or list(cases)
    groups = {key: own for key, own in _groups(fields).items() if _mitoses(own)}
    if len(groups) < 2:
        raise DataError(
            f"{len(groups)} slide(s) with mitoses: automatic validation needs two or more, of "
            "different patients"
        )
    order = _largest_first(groups)
    number = {key: _mitoses(own) for key, own in groups.items()}
    total = sum(number.values())
    wanted = 2 if len(order) >= 4 else 1
    middle = len(order) // 2
    from_middle = sorted(range(len(order)), key=lambda index: (abs(index - middle), index))
    chosen: dict[str, int] = {}
    for most in (_AT_MOST, _AT_MOST_FOR_TWO):
        for key in (order[index] for index in from_middle):
            held = sum(chosen.values())
            if len(chosen) >= wanted and (held >= _HELD_OUT * total or most > _AT_MOST):
                break
            if key not in chosen and not (chosen and held + number[key] > most * total):
                chosen[key] = number[key]
    return [case for case in fields if case.group in chosen]


def _by_laboratory(cases: Sequence[Case]) -> dict[str, list[Case]]:
    folds: dict[str, list[Case]] = {}
    for case in cases:
        if not case.laboratory:
            raise DataError(f"case {case.name}: its laboratory is not known; leave it out")
        folds.setdefault(case.laboratory, []).append(case)
    if len(folds) < 2:
        raise DataError(f"only the laboratory {next(iter(folds))!r}: two or more are needed")
    return dict(sorted(folds.items()))


def _groups(cases: Sequence[Case]) -> dict[str, list[Case]]:
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    return groups


def _mitoses(cases: Sequence[Case]) -> int:
    return sum(len(case.mitoses_xy) for case in cases)


def _largest_first(groups: dict[str, list[Case]]) -> list[str]:
    return sorted(groups, key=lambda key: (-_mitoses(groups[key]), key))
