"""MkDocs lists the modules in the page `how-it-works`, each by the first line it has itself."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1] / "src" / "segmitos"
MARK = "<!-- modules -->"


def modules() -> str:
    """Return a table for each package: its modules, and what each is for."""
    lines = []
    for folder in sorted({path.parent for path in SOURCE.rglob("*.py")}):
        lines += ["", f"### `{folder.relative_to(SOURCE.parent).as_posix()}/`"]
        lines += ["", "| module | what it is for |", "|---|---|"]
        for path in sorted(folder.glob("*.py")):
            said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            if said and path.name != "__init__.py":
                first = " ".join(said.split("\n\n")[0].split()).replace("|", "\\|")
                lines.append(f"| `{path.name}` | {first} |")
    return "\n".join(lines)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs with the text of every page."""
    return markdown.replace(MARK, modules()) if MARK in markdown else markdown
