"""Finished results: counted again, or their reports made again, without the networks.

They are looked at before they are believed: what was changed since it was written is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from segmitos.cohort.atomic_folder import OutputFolder, open_results
from segmitos.cohort.identity import RESULT_FORMAT, Identity, is_still_there
from segmitos.cohort.names import COHORT
from segmitos.cohort.tables import write_tables
from segmitos.errors import InputError, OutputError, SegMitosError
from segmitos.io.outputs import COHORT_REPORT, REPORT, RUN


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
    _check_unchanged(folder)
    image = Path(record.input.path) if is_still_there(record.input) else None
    files = recounted_files(folder.path, changes, image)
    kept = {name: (folder.path / name).read_bytes() for name in record.files if name not in files}
    settings = {**record.identity.settings, **changes}
    identity = msgspec.structs.replace(record.identity, settings=settings)
    folder.commit({**kept, **files}, identity, record.input, record.run)
    return files


def rebuild_reports(folder: Path) -> tuple[list[Path], list[str]]:
    """Make the reports of one result, or of all results in a folder and their tables, again.

    Args:
        folder: of one result, or of a whole run of detect.

    Returns:
        The files written, and one line for each result of which no report could be made.

    Raises:
        InputError: for a folder that holds no result.
    """
    from segmitos.report.result_files import render_saved_report

    results = open_results(folder)
    written, problems = [], []
    for result in results:
        try:
            _check_unchanged(result)
            result.update({REPORT: render_saved_report(result.path).encode("utf-8")})
            written.append(result.path / REPORT)
        except SegMitosError as error:
            problems.append(str(error))
    if results[0].path != folder:
        try:
            write_tables(folder)
        except OutputError as error:
            problems.append(str(error))
        else:
            tables = (folder / name for name in (COHORT, COHORT_REPORT))
            written += [table for table in tables if table.exists()]
    return written, problems


def _check_unchanged(folder: OutputFolder) -> None:
    """Refuse a result of another version, or whose files are not as written, but for the report."""
    record = folder.record()
    if record is not None and record.identity.format != RESULT_FORMAT:
        raise InputError(f"{folder.path} is of another version of segmitos; run detect again")
    changed = [name for name in folder.changed_files() if name != REPORT]
    if changed:
        raise InputError(f"{folder.path / changed[0]} is damaged or was changed; run detect again")
