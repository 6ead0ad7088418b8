"""A finished result counted with other settings, in its place, without the networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from segmitos.cohort.folder import REPORT, RUN, OutputFolder
from segmitos.cohort.identity import Identity
from segmitos.errors import InputError


def count_changes(folder: OutputFolder, identity: Identity) -> dict[str, Any] | None:
    """Return the settings to count a finished result with to make it one of this identity.

    None where it is not whole, or differs in more than settings of `COUNT_SETTINGS`.
    """
    from segmitos.counting.saved import COUNT_SETTINGS

    record = folder.record()
    if record is None:
        return None
    earlier, wanted = record.identity.settings, identity.settings
    keys = {*earlier, *wanted}
    changes = {key: wanted.get(key) for key in keys if earlier.get(key) != wanted.get(key)}
    same = msgspec.structs.replace(record.identity, settings=wanted) == identity
    if not same or not changes or not set(changes) <= set(COUNT_SETTINGS):
        return None
    return None if folder.changed_files() else changes


def recount_result(folder: OutputFolder, changes: dict[str, Any]) -> dict[str, bytes]:
    """Count a result again; it is replaced in one step, with what a user added kept.

    Args:
        folder: of the result.
        changes: values of `COUNT_SETTINGS`.

    Returns:
        The files that were made again.

    Raises:
        InputError: for a folder that holds no result, or one that was changed.
        OutputError: where it cannot be written; the earlier result stays then.
    """
    from segmitos.report.result_files import recounted_files

    record = folder.record()
    if record is None:
        raise InputError(f"{folder.path} holds no result of detect (no {RUN})")
    changed = [name for name in folder.changed_files() if name != REPORT]
    if changed:
        raise InputError(f"{folder.path / changed[0]} is damaged or was changed; run detect again")
    files = recounted_files(folder.path, changes, Path(record.input.path))
    kept = {name: (folder.path / name).read_bytes() for name in record.files if name not in files}
    settings = {**record.identity.settings, **changes}
    identity = msgspec.structs.replace(record.identity, settings=settings)
    folder.commit({**kept, **files}, identity, record.input, record.run)
    return files
