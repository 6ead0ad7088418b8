"""Where the reviews of a result are, and which of them stands for it."""

from __future__ import annotations

from pathlib import Path

REVIEWED_JSON, REVIEWED_HTML = "reviewed.json", "reviewed.html"
CONSENSUS = "consensus"
"""The reader whose decisions an adjudicator makes."""
SIGNED, DECISIONS = "reviews", "reviews.sqlite"
"""Folder of a run that holds the signed reviews, NAME/READER, and the file of all that readers do.
"""


def signed_reviews(run: Path, name: str) -> dict[str, Path]:
    """Return the folders of the signed reviews of a result, by reader in order."""
    found = (run / SIGNED / name).glob(f"*/{REVIEWED_JSON}")
    return {path.parent.name: path.parent for path in sorted(found)}


def shown_review(run: Path, name: str) -> tuple[Path | None, str]:
    """Return the folder of the review that stands for a result, and what to know of it.

    The signed one: the consensus where several signed, none without it. Else the one in the
    result's own folder.
    """
    signed, own = signed_reviews(run, name), run / name
    has_own = (own / REVIEWED_JSON).exists()
    if not signed:
        return (own if has_own else None), ""
    who = CONSENSUS if CONSENSUS in signed else next(iter(signed))
    if len(signed) > 1 and who != CONSENSUS:
        return None, f"signed by {', '.join(signed)}, without a consensus"
    return signed[who], "a review by recount --with is there besides the signed one" * has_own
