"""What makes two trainings the same run: recipe, data by content, split, and where it started.

A run is resumed, or called finished, only for the same identity. Otherwise a slide that was trained
on could become one of validation, or other clicks train nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from segmitos.errors import InputError, UsageError
from segmitos.io.datasets import Case
from segmitos.io.text import listed, reason_of
from segmitos.training.checkpoint import STATE, load_state
from segmitos.training.recipe import AdaptRecipe, Recipe

IDENTITY = "identity.json"
_REMEDY = "name another folder, or begin anew (train --restart; of a crossval, remove that folder)"
# Files larger than this are told by their size and by blocks spread evenly over them.
_WHOLE_BYTES = 64 << 20
_BLOCK_BYTES = 1 << 20
_MAX_NAMED = 3
_SEEN_PX = 1024


class RunIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Of a training run; two that are equal are the same run."""

    recipe: dict[str, Any]
    start_from: str
    """Digest of the tensors that it starts from; empty for those of the recipe."""
    time_budget_s: float | None
    """What the number of steps was chosen by."""
    training: dict[str, dict[str, str]]
    """Per case: digests of its image, of its labels, and of all else that is known of it."""
    validation: dict[str, dict[str, str]]

    @classmethod
    def of(
        cls,
        cases: Sequence[Case],
        validation_cases: Sequence[Case],
        recipe: Recipe | AdaptRecipe,
        start_from: Path | None = None,
        time_budget_s: float | None = None,
    ) -> RunIdentity:
        """Tell the identity of a training with these inputs.

        Raises:
            InputError: where an image or a mask cannot be read.
            UsageError: where an image is in both training and validation.
        """
        start = "" if start_from is None else _digest_file(_tensors_of(start_from))
        training = {case.name: _digest_case(case) for case in cases}
        validation = {case.name: _digest_case(case) for case in validation_cases}
        parts = {"training": training, "validation": validation}
        check_images(
            {
                part: {name: digests["image"] for name, digests in members.items()}
                for part, members in parts.items()
            },
            [*cases, *validation_cases],
        )
        return cls(
            recipe=recipe.to_dict(),
            start_from=start,
            time_budget_s=time_budget_s,
            **parts,
        )

    def to_json(self) -> bytes:
        """Return it as JSON, the same bytes for the same run."""
        content = msgspec.to_builtins(self)
        return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"

    @property
    def digest(self) -> str:
        """Of all of it."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def differences(self, saved: RunIdentity) -> list[str]:
        """Say in words what of this differs from a saved run; nothing where it is the same."""
        ours, theirs = _flat(self.recipe), _flat(saved.recipe)
        found = [
            f"recipe {key} is {json.dumps(ours.get(key))}, was {json.dumps(theirs.get(key))}"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]
        if self.start_from != saved.start_from:
            found.append("it starts from other weights (--start-from)")
        if self.time_budget_s != saved.time_budget_s:
            found.append("it has another time budget (--time-budget)")
        found += _case_differences(self, saved)
        return found


def check_split(
    cases: Sequence[Case], validation_cases: Sequence[Case], verb: str = "train on"
) -> None:
    """Refuse a training on nothing, or on slides that validate it. Raises UsageError."""
    if not cases:
        raise UsageError(f"no case to {verb}; check --validation, --cases and --exclude")
    shared = {case.slide for case in cases} & {case.slide for case in validation_cases}
    if shared:
        raise UsageError(
            f"slide {sorted(shared)[0]} is in both training and validation; split by slide "
            "(frames of one slide show the same tissue)"
        )


def check_images(parts: Mapping[str, Mapping[str, str]], cases: Sequence[Case]) -> None:
    """Refuse an image that is in two parts of the data, under whatever names.

    Args:
        parts: of each part, such as training and validation, a digest of the image of each case.
        cases: all of them. Images of one color, as tiles without tissue are, may be in both.

    Raises:
        InputError: where such an image cannot be read.
        UsageError: naming both cases of the first, and how many more there are.
    """
    seen: dict[str, tuple[str, str]] = {}
    shared: list[str] = []
    case_of = {case.name: case for case in cases}
    for part, images in parts.items():
        for name, digest in images.items():
            other, other_part = seen.setdefault(digest, (name, part))
            if other_part != part and not _is_blank(case_of[name]):
                shared.append(f"{name} of {part} and {other} of {other_part}")
    if shared:
        more = f", and {len(shared) - 1} more pairs like these" if shared[1:] else ""
        raise UsageError(
            f"{shared[0]} are the same image, file for file{more}; --exclude one of each"
        )


def check_unseen(start: Path, images: Mapping[str, str], cases: Sequence[Case]) -> None:
    """Refuse to score on images that the run whose weights are started from was trained on.

    Args:
        start: folder of that run; one that does not say what it was trained on is let pass.
        images: a digest of the image of each case that is scored on.
        cases: those; images of one color may have been trained on.

    Raises:
        InputError: where such an image cannot be read.
        UsageError: naming the first such case.
    """
    try:
        saved = msgspec.json.decode((start / IDENTITY).read_bytes(), type=RunIdentity)
    except (OSError, ValueError, RecursionError):
        return
    trained = {one["image"] for one in saved.training.values()}
    seen = [case.name for case in cases if images[case.name] in trained and not _is_blank(case)]
    if seen:
        raise UsageError(
            f"{_named(seen)} would be scored on, but the run whose weights this one starts from, "
            f"{start}, was trained there; choose slides that neither has seen"
        )


def _is_blank(case: Case) -> bool:
    """Tell whether an image has one color all over: then it shows no cell."""
    with case.open_image() as slide:
        pixels = slide.thumbnail(_SEEN_PX)
    return bool((pixels == pixels[0, 0]).all())


def images_of(cases: Iterable[Case]) -> dict[str, str]:
    """Return a digest of the image of each case. Raises InputError for one that is not there."""
    return {case.name: _digest_file(case.image) for case in cases}


def resume_recipe(folder: Path, identity: RunIdentity) -> Recipe | None:
    """Return the recipe to go on with in a folder, or None where no run is there.

    It is that of the run, which differs from the given one only in the number of steps that a time
    budget chose.

    Raises:
        UsageError: if another run is there, naming what differs.
        ModelError: if the run there is damaged.
    """
    if not (folder / STATE).exists():
        return None
    state = load_state(folder)
    try:
        saved = msgspec.json.decode((folder / IDENTITY).read_bytes(), type=RunIdentity)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{folder} holds a run that does not say what it was trained on ({error}); {_REMEDY}"
        ) from error
    if saved.digest != state.identity:
        raise UsageError(f"{folder}: {IDENTITY} and {STATE} are not of the same run; {_REMEDY}")
    differences = identity.differences(saved)
    if differences:
        raise UsageError(f"{folder} holds another run: {'; '.join(differences)}; {_REMEDY}")
    return Recipe.from_dict(state.recipe, str(folder))


def _case_differences(new: RunIdentity, old: RunIdentity) -> list[str]:
    found = []
    moved = sorted(
        (old.training.keys() & new.validation.keys())
        | (old.validation.keys() & new.training.keys())
    )
    if moved:
        found.append(f"{_named(moved)} changed between training and validation")
    for part in ("training", "validation"):
        ours, theirs = getattr(new, part), getattr(old, part)
        added = sorted(ours.keys() - theirs.keys() - set(moved))
        left = sorted(theirs.keys() - ours.keys() - set(moved))
        if added:
            found.append(f"{_named(added)} added to {part}")
        if left:
            found.append(f"{_named(left)} left out of {part}")
        for kind in ("image", "labels", "about"):
            changed = [
                name
                for name in sorted(ours.keys() & theirs.keys())
                if ours[name].get(kind) != theirs[name].get(kind)
            ]
            if changed:
                about = "another slide, patient, laboratory or scale"
                words = {"image": "another image", "labels": "other labels", "about": about}
                found.append(f"{_named(changed)} of {part} has {words[kind]}")
    return found


def _named(names: Sequence[str]) -> str:
    return f"case {listed(names, _MAX_NAMED)}"


def _flat(tables: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return the values of nested tables by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{key}.")
        else:
            found[before + key] = value
    return found


def _digest_case(case: Case) -> dict[str, str]:
    """Tell a case by its content; where it lies does not count."""
    labels, about = hashlib.sha256(), hashlib.sha256()
    for field in dataclasses.fields(case):
        value = getattr(case, field.name)
        if field.name in ("name", "image"):
            continue
        is_label = value is not None and not isinstance(value, str | float | bool)
        (labels if is_label else about).update(f"{field.name}:".encode() + _content(value))
    return {
        "image": _digest_file(case.image),
        "labels": labels.hexdigest()[:16],
        "about": about.hexdigest()[:16],
    }


def _content(value: Any) -> bytes:
    """Return bytes that are the same for the same value of a field, and no other."""
    if isinstance(value, np.ndarray):
        return repr(value.shape).encode() + np.ascontiguousarray(value, np.float64).tobytes()
    if isinstance(value, Path):
        return _digest_file(value).encode()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return b";".join(_content(getattr(value, f.name)) for f in dataclasses.fields(value))
    if isinstance(value, list | tuple):
        return b"[" + b",".join(_content(one) for one in value) + b"]"
    return repr(value).encode()


def _tensors_of(run: Path) -> Path:
    return run / load_state(run).tensors if run.is_dir() else run


def _digest_file(path: Path) -> str:
    """Digest a file; a folder by the names and sizes in it; a large file by blocks of it."""
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                size = file.stat().st_size if file.is_file() else 0
                digest.update(f"{file.relative_to(path)}:{size};".encode())
            return digest.hexdigest()[:16]
        size = path.stat().st_size
        with path.open("rb") as stream:
            if size <= _WHOLE_BYTES:
                digest.update(stream.read())
            else:
                digest.update(str(size).encode())
                blocks = _WHOLE_BYTES // _BLOCK_BYTES
                for block in range(blocks):
                    stream.seek((size - _BLOCK_BYTES) * block // (blocks - 1))
                    digest.update(stream.read(_BLOCK_BYTES))
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}") from error
    return digest.hexdigest()[:16]
