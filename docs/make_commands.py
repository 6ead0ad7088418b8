"""Writes docs/commands.md from the command line's own help: python docs/make_commands.py."""

from __future__ import annotations

from pathlib import Path

from segmitos.cli import app


def section(path: str, command: object) -> list[str]:
    """Return the lines that describe one verb."""
    help_text = (getattr(command, "help", "") or "").split("\n\n")
    lines = [f"## segmitos {path}", "", help_text[0].replace("\n", " ").strip(), ""]
    for paragraph in help_text[1:]:
        if paragraph.strip().startswith("Example:"):
            lines += ["```", paragraph.strip().removeprefix("Example:").strip(), "```", ""]
    rows = []
    for parameter in getattr(command, "params", []):
        text = (getattr(parameter, "help", None) or "").replace("|", "\\|").replace("\n", " ")
        names = [*parameter.opts, *parameter.secondary_opts]
        if parameter.param_type_name == "argument":
            shown = f"`{parameter.name.upper()}`"
        else:
            shown = ", ".join(f"`{name}`" for name in names)
        default = parameter.default
        plain = isinstance(default, str | int | float | Path) and not isinstance(default, bool)
        note = f" Default: {default}." if plain and default != "" else ""
        if shown != "`--help`":
            rows.append(f"| {shown} | {text}{note} |")
    if rows:
        lines += ["| option | meaning |", "|---|---|", *rows, ""]
    return lines


def main() -> None:
    """Write the file."""
    root = app
    lines = [
        "# Commands",
        "",
        "Every verb takes `--help`. Exit codes: 0 where every input succeeded, 1 where something",
        "failed, 2 where the command itself makes no sense. An error is one line that says what is",
        "wrong, where, with which value, and what to do.",
        "",
        "This page is made from the program's own help by `python docs/make_commands.py`.",
        "",
    ]
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        if inner:
            for sub, subcommand in inner.items():
                lines += section(f"{name} {sub}", subcommand)
        else:
            lines += section(name, command)
    path = Path(__file__).with_name("commands.md")
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
