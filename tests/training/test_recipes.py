"""Every recipe loads, says what it is, and is what the paper's table says it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from segmitos.training.networks.registry import NETWORKS
from segmitos.training.recipe import load_recipe

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(FOLDER.glob("*.toml"))
PAPERS = [path for path in RECIPES if path.stem.startswith(("mitos", "amida", "tupac", "cbis"))]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_begins_by_saying_what_it_is(path):
    assert load_recipe(path).network in NETWORKS
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert f"`{path.stem}`" in (FOLDER.parent / "docs" / "paper.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_the_papers_recipes_have_its_optimizer(path):
    recipe = load_recipe(path)
    assert recipe.network.startswith("fcn")
    rate = {"fcn32s": 1e-10, "fcn16s": 1e-13, "fcn8s": 1e-14}[recipe.network]
    assert (recipe.optimizer, recipe.momentum, recipe.reduction) == ("sgd", 0.99, "sum")
    assert (recipe.learning_rate, recipe.weight_decay, recipe.batch) == (rate, 5e-4, 1)
    assert recipe.schedule == "constant" and recipe.ema == 0 and not recipe.mine_at


def test_the_labels_of_table_4_are_its_pixels():
    mpp = 0.2455
    radii = {}
    for name in ("r12", "r15", "r12R24", "r15R30"):
        labels = load_recipe(FOLDER / f"mitos14-{name}.toml").labels
        outer = labels.outer_um if labels.kind == "concentric" else 0.0
        radii[name] = (round(labels.radius_um / mpp), round(outer / mpp))
    assert radii == {"r12": (12, 0), "r15": (15, 0), "r12R24": (12, 24), "r15R30": (15, 30)}
    random = load_recipe(FOLDER / "mitos14-random.toml").labels
    assert [round(um / mpp) for um in random.radius_range_um] == [10, 17]
    assert random.outer_factor_range == (1.5, 2.5)
    assert load_recipe(FOLDER / "mitos14-r12.toml").crop_size_px == (385, 344)


def test_the_stages_start_from_each_other():
    weights = {
        name: load_recipe(FOLDER / f"mitos12-{name}.toml").weights
        for name in ("fcn32s", "fcn16s", "fcn8s")
    }
    assert weights["fcn32s"].startswith("caffe:")
    assert weights["fcn16s"] == "run:runs/mitos12-fcn32s"
    assert weights["fcn8s"] == "run:runs/mitos12-fcn16s"
