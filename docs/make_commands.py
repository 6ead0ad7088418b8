"""Writes docs/commands.md from the command line's own help.

python docs/make_commands.py            # write the page
python docs/make_commands.py --check    # exit 1 where the page is not current
"""

from __future__ import annotations

import sys
from pathlib import Path

from segmitos.cli import app


def section(path: str, command: object) -> list[str]:
    """Return the lines that describe one verb."""
    help_text = (getattr(command, "help", "") or "").split("\n\n")
    lines = [f"## segmitos {path}", "", help_text[0].replace("\n", " ").strip(), ""]
    for paragraph in help_text[1:]:
        if paragraph.strip().startswith("Example:"):
            lines += ["```text", paragraph.strip().removeprefix("Example:").strip(), "```", ""]
    rows = []
    for parameter in getattr(command, "params", []):
        text = (getattr(parameter, "help", None) or "").replace("|", "\\|").replace("\n", " ")
        names = [*parameter.opts, *parameter.secondary_opts]
        if parameter.param_type_name == "argument":
            shown = f"`{parameter.name.upper()}`"
        else:
            shown = ", ".join(f"`{name}`" for name in names)
        choices = getattr(parameter.type, "choices", None)
        if choices:
            text += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
        default = parameter.default
        plain = isinstance(default, str | int | float | Path) and not isinstance(default, bool)
        note = f" Default: {default}." if plain and default != "" else ""
        if shown != "`--help`":
            rows.append(f"| {shown} | {text}{note} |")
    if rows:
        lines += ["| option | meaning |", "|---|---|", *rows, ""]
    return lines


def page() -> str:
    """Return the text of the page."""
    lines = [
        "# Commands",
        "",
        "Every verb takes `--help`. An error is one line that says what is wrong, where, with",
        "which value, and what to do. A fault of SegMitos itself goes with its traceback into",
        "`errors.log` in the folder of results (or where you are), and the line says where.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        "| 0 | all went well; there may be warnings, which every output names |",
        "| 1 | something failed: an input, a file, the output |",
        "| 2 | the command itself makes no sense |",
        "| 3 | `detect`: nothing failed, but an input has no tissue to count on |",
        "| 130, 143 | stopped by Ctrl-C, by a termination; the same command goes on from there |",
        "",
        "This page is made from the program's own help by `python docs/make_commands.py`.",
        "",
    ]
    for name, command in app.commands.items():  # type: ignore[attr-defined]
        for sub, subcommand in getattr(command, "commands", {}).items():
            lines += section(f"{name} {sub}", subcommand)
        if not getattr(command, "commands", None):
            lines += section(name, command)
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Write the page, or compare it."""
    path = Path(__file__).with_name("commands.md")
    if "--check" in sys.argv[1:]:
        if path.read_text(encoding="utf-8") == page():
            return 0
        print("docs/commands.md is not current: run python docs/make_commands.py")
        return 1
    path.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
