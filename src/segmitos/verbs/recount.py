"""The verb that counts a saved result again."""

from __future__ import annotations

from typing import Any

import click

from segmitos.options import FilePath, json_option


@click.command()
@click.argument("folder", type=FilePath)
@click.option(
    "--with",
    "corrected",
    type=FilePath,
    help="GeoJSON of marks as a reader left them, say from QuPath; of several results, a folder "
    "of NAME.geojson.",
)
@click.option("--reader", default="", help="Name of the reader, for the report.")
@click.option("--note", default="", help="Free text of the reader, for the report.")
@click.option(
    "--hotspot",
    type=click.Choice(["follow", "fixed"]),
    default="follow",
    show_default=True,
    help="Search the hotspot again among the corrected marks, or count in the model's.",
)
@click.option(
    "--screened", is_flag=True, help="The reader looked at all of the windows, not at marks alone."
)
@click.option("--tubules", type=click.IntRange(1, 3), help="Score of tubules, for a grade.")
@click.option("--nuclei", type=click.IntRange(1, 3), help="Score of nuclei, for a grade.")
@click.option("--min-score", type=click.FloatRange(0, 1), help="Mean probability of a mitosis.")
@click.option("--min-area-um2", type=click.FloatRange(0), help="Area of a mitosis in um2.")
@click.option(
    "--hotspot-area", type=click.FloatRange(0.01, 1000), help="Area of the hotspot window, mm2."
)
@click.option(
    "--hotspot-shape",
    type=click.Choice(["square", "circle", "box"]),
    help="Shape of the hotspot window; a box is 4:3.",
)
@click.option(
    "--field-diameter",
    type=click.FloatRange(0.4, 0.69),
    help="Field diameter in mm, for the Nottingham score.",
)
@click.option(
    "-o", "--out", type=FilePath, help="Folder for the files of a review; default: the result's."
)
@click.option("--overwrite", is_flag=True, help="Replace the review of another reader.")
@json_option
def recount(**given: Any) -> int:
    """Count a result of detect again, without the networks.

    With --with, as a reader corrected it: the files reviewed.geojson, .csv, .json and .html are
    written, and the result stays as it is. Without, the result itself is counted with other
    settings. What is not given stays as it was. FOLDER is that of one result or of a whole run.

    Example: segmitos recount results/slide --with corrected.geojson --reader Anna
    """
    from segmitos.commands.recount import run_recount

    return run_recount(**given)
