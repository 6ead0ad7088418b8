"""Reports made again from saved results, which are looked at before they are believed."""

from __future__ import annotations

from pathlib import Path

from segmitos.cohort.folder import REPORT, RUN, OutputFolder, repair_results, results_in
from segmitos.cohort.tables import write_tables
from segmitos.errors import InputError, SegMitosError
from segmitos.io.files import no_result, remove_stale_partials


def rebuild_reports(folder: Path) -> tuple[list[Path], list[str]]:
    """Make the reports of one result, or of all results in a folder and their tables, again.

    Args:
        folder: of one result, or of a whole run of detect.

    Returns:
        The files written, and one line for each result of which no report could be made.

    Raises:
        InputError: for a folder that holds no result.
    """
    from segmitos.report.result_files import rebuild

    if (folder / RUN).is_file():
        single = OutputFolder(folder.parent, folder.name)
        single.repair()
        results = [single]
    elif folder.is_dir():
        remove_stale_partials(folder)
        repair_results(folder)
        results = results_in(folder)
    else:
        results = []
    if not results:
        raise InputError(no_result(folder, f"no {RUN}"))
    written, problems = [], []
    for result in results:
        changed = [name for name in result.changed_files() if name != REPORT]
        if changed:
            problems.append(
                f"{result.path / changed[0]} is damaged or was changed; run detect again"
            )
            continue
        try:
            (report,) = rebuild(result.path)
            result.update({REPORT: report.read_bytes()})
            written.append(report)
        except SegMitosError as error:
            problems.append(str(error))
    if results != [OutputFolder(folder.parent, folder.name)]:
        write_tables(folder)
        written += [
            path for path in (folder / "cohort.csv", folder / "cohort.html") if path.exists()
        ]
    return written, problems
