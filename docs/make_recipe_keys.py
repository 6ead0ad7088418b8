"""Writes docs/recipes.md, the keys of a recipe, from the docstrings under their fields.

python docs/make_recipe_keys.py            # write the page
python docs/make_recipe_keys.py --check    # exit 1 where the page is not current
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from pathlib import Path

import msgspec

from segmitos.training.augment import Augmentation
from segmitos.training.concentric import LabelRecipe
from segmitos.training.recipe import Recipe, Sampling, find_recipe, load_recipe, recipe_names

INTRODUCTION = """# Recipes

A recipe is a TOML file with every choice of a training. `segmitos train --recipe NAME` takes a
packaged one by its name, or the path of a file. A file of yours says what differs from another:

```toml
extends = "lite"
epochs = 4
learning_rate = 5e-4

[sampling]
hard_negative = 0.3
```

An unknown key, or a value of the wrong kind or out of range, is an error that names both. A key
that neither the file nor what it extends gives has the default below, which is not always that of
`lite`. `segmitos train` also takes `--recipe adapt`, which is no file: it fits the last layer of a
model to a reader's marks ([review](review.md#back-into-training)).
"""
TABLES = {"": Recipe, "labels": LabelRecipe, "augmentation": Augmentation, "sampling": Sampling}


def documented(kind: type) -> dict[str, str]:
    """Return what stands under each field of a class."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node, following in zip(body.body, [*body.body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                text = " ".join(str(following.value.value).split())
            found[node.target.id] = text
    return found


def about(kind: type) -> str:
    """Return what a class is: its docstring without what it raises."""
    return " ".join((inspect.getdoc(kind) or "").partition("Raises:")[0].split())


def page() -> str:
    lines = [INTRODUCTION, "## Packaged recipes", "", "| name | what it is |", "|---|---|"]
    for name in recipe_names():
        head = []
        for line in find_recipe(name).read_text(encoding="utf-8").splitlines():
            if not line.startswith("# "):
                break
            head.append(line[2:])
        lines.append(f"| `{name}` | {' '.join(head)} |")
    lite = load_recipe("lite").to_dict()
    for table, kind in TABLES.items():
        defaults = json.loads(msgspec.json.encode(kind()))
        own = lite[table] if table else lite
        title = f"## `[{table}]`" if table else "## Keys"
        lines += ["", title, "", about(kind), ""]
        lines += ["| key | default | in `lite` | meaning |", "|---|---|---|---|"]
        for name, text in documented(kind).items():
            if isinstance(defaults[name], dict):
                continue
            shown = json.dumps(own[name]) if own[name] != defaults[name] else ""
            lines.append(f"| `{name}` | {json.dumps(defaults[name])} | {shown} | {text} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    path = Path(__file__).with_name("recipes.md")
    if "--check" in sys.argv[1:]:
        sys.exit(0 if path.read_text(encoding="utf-8") == page() else f"{path} is not current")
    path.write_text(page(), encoding="utf-8")
