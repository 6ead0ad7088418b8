"""`segmitos.detect_many`: many images from Python, with result folders and tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from segmitos.cohort.job import Outcome
from segmitos.cohort.run import run
from segmitos.cohort.settings import JobSettings
from segmitos.io.arguments import path_of, paths_of

OnProgress = Callable[[int, int, Outcome], None]


def detect_many(
    paths: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    mpp: float | None = None,
    override_mpp: bool = False,
    page: int | None = None,
    model: Path | str | None = None,
    device: str = "auto",
    threads: int | None = None,
    roi: Path | str | None = None,
    tissue: bool = True,
    threshold: str | float | None = None,
    min_score: float | None = None,
    min_area_um2: float | None = None,
    hotspot_area_mm2: float = 2.0,
    hotspot_shape: str = "square",
    field_diameter_mm: float = 0.55,
    probability_map: bool = False,
    qupath: str = "annotation",
    workers: int = 1,
    cluster: str | None = None,
    shard: tuple[int, int] = (1, 1),
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> list[Outcome]:
    """Detect mitoses in many images; the same results and tables as `segmitos detect`.

    One input that fails ends no other: look at `status` and `message` of each outcome. What is
    finished in `out` is left as it is.

    Args:
        paths: files, folders, globs, lists (.txt) or tables (.csv with path, mpp, roi, name).
        out: folder of the results.
        mpp: um per pixel, where a file does not say it.
        override_mpp: use `mpp` whatever the files say.
        page: number of the image of TIFF files, from 1; None takes the largest.
        model: name of a built-in model, or path of a model file; None takes the default model.
        device: auto, cpu, cuda or openvino.
        threads: CPU threads; None takes all there are.
        roi: GeoJSON of regions; work is limited to them.
        tissue: read tissue only.
        threshold: `otsu` or a probability; None takes the model's.
        min_score: mean probability of a mitosis; None takes the model's.
        min_area_um2: area of a mitosis; None takes the model's.
        hotspot_area_mm2: area of the hotspot window.
        hotspot_shape: square, circle or box.
        field_diameter_mm: of the fields behind the Nottingham score.
        probability_map: also write the probability map.
        qupath: annotation or detection, what mitoses are in the GeoJSON.
        workers: inputs worked on at once, in processes of their own; a script that asks for more
            than one must start below `if __name__ == "__main__":`.
        cluster: address of a Dask scheduler to send the inputs to instead.
        shard: (i, n): only every n-th input, beginning with the i-th, counted from 1.
        overwrite: do finished inputs again.
        on_progress: told (inputs done, inputs in all, outcome) as each ends.

    Returns:
        What became of each input, in their order.

    Raises:
        SegMitosError: InputError where there is no input, OutputError where `out` cannot be
            written, UsageError or ModelError where nothing could work.
    """
    settings = JobSettings(
        mpp=mpp,
        override_mpp=override_mpp,
        page=page,
        threshold=threshold,
        min_score=min_score,
        min_area_um2=min_area_um2,
        tissue=tissue,
        roi=None if roi is None else path_of(roi, "roi"),
        model=model,
        device=device,
        threads=threads,
        hotspot_area_mm2=hotspot_area_mm2,
        hotspot_shape=hotspot_shape,
        field_diameter_mm=field_diameter_mm,
        probability_map=probability_map,
        qupath=qupath,
        overwrite=overwrite,
    )
    totals: list[int] = []
    numbers = count(1)

    def on_outcome(outcome: Outcome) -> None:
        if on_progress is not None:
            on_progress(next(numbers), totals[0], outcome)

    return run(
        paths_of(paths, "paths"),
        path_of(out, "out"),
        settings,
        workers,
        cluster,
        on_outcome=on_outcome,
        on_start=totals.append,
        shard=shard,
    )
