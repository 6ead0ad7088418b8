"""Every recipe loads, says what it is, and is what the paper's table says it is."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import msgspec
import pytest

from segmitos.errors import DataError
from segmitos.training.augment import PUBLISHED
from segmitos.training.networks.registry import NETWORKS
from segmitos.training.recipe import Recipe, find_recipe, load_recipe, recipe_names

ROOT = Path(__file__).parents[2]
EXPERIMENTS = [str(path) for path in sorted((ROOT / "experiments/recipes").glob("*.toml"))]
RECIPES = [*recipe_names(), *EXPERIMENTS]
PAPERS = [n for n in RECIPES if n.startswith("paper/") or "cbis" in n]


@pytest.mark.parametrize("name", RECIPES, ids=lambda name: Path(name).stem)
def test_every_recipe_loads_and_begins_by_saying_what_it_is(name):
    assert load_recipe(name).network in NETWORKS
    path = find_recipe(name)
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert f"`{path.stem}`" in (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")


def test_a_recipe_starts_from_the_one_it_extends_key_by_key(tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "lite"\nepochs = 3\n[sampling]\nmined = 0.5\n')
    (tmp_path / "short.toml").write_text('extends = "mine.toml"\nbatch = 2\n')
    lite, short = load_recipe("lite"), load_recipe(tmp_path / "short.toml", seed=7)
    content = lite.to_dict() | {"epochs": 3, "batch": 2, "seed": 7}
    content["sampling"] = content["sampling"] | {"mined": 0.5}
    assert short == Recipe.from_dict(content)


def test_a_table_changes_single_keys_of_an_augmentation_that_is_named(tmp_path):
    """In the file below or in the same one; a name sets both kinds of crop."""
    path = tmp_path / "mine.toml"
    positive, other = PUBLISHED["mitos12"]
    for text, wanted in (
        ('extends = "paper/mitos12-random"\n[augmentation]\nblur = 0.3\n', ({"blur": 0.3}, {})),
        (
            'augmentation = "mitos12"\n[background_augmentation]\nrotations = 8\n',
            ({}, {"rotations": 8}),
        ),
    ):
        path.write_text(text)
        recipe = load_recipe(path)
        assert recipe.augmentation == msgspec.structs.replace(positive, **wanted[0])
        assert recipe.background_augmentation == msgspec.structs.replace(other, **wanted[1])
    path.write_text('extends = "paper/mitos12-random"\naugmentation = "amida13"\n')
    recipes = load_recipe(path), load_recipe("paper/mitos12-random", augmentation="amida13")
    for recipe in recipes:
        assert (recipe.augmentation, recipe.background_augmentation) == PUBLISHED["amida13"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('extends = "round.toml"', "in a circle"),
        ('extends = "absent"', "absent is neither a file nor one of the packaged ones: lite, "),
        ("extends = 3", "extends = 3 must be the name"),
        ('extends = "../../etc/passwd"', "neither a file"),
    ],
)
def test_a_recipe_that_extends_nothing_is_refused(tmp_path, text, message):
    (tmp_path / "round.toml").write_text(text)
    with pytest.raises(DataError, match=message):
        load_recipe(tmp_path / "round.toml")


def test_a_recipe_is_told_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe() == load_recipe("lite") == load_recipe(find_recipe("lite"))


@pytest.mark.parametrize("name", PAPERS, ids=lambda name: Path(name).stem)
def test_the_papers_recipes_have_its_optimizer(name):
    recipe = load_recipe(name)
    assert recipe.network.startswith("fcn")
    rate = {"fcn32s": 1e-10, "fcn16s": 1e-13, "fcn8s": 1e-14}[recipe.network]
    assert (recipe.optimizer, recipe.momentum, recipe.reduction) == ("sgd", 0.99, "sum")
    assert (recipe.learning_rate, recipe.weight_decay, recipe.batch) == (rate, 5e-4, 1)
    assert recipe.schedule == "constant" and recipe.ema == 0 and not recipe.mine_at


def test_the_labels_of_table_4_are_its_pixels():
    mpp = 0.2455
    radii = {}
    for name in ("r12", "r15", "r12R24", "r15R30"):
        labels = load_recipe(f"paper/mitos14-{name}").labels
        outer = labels.outer_um if labels.kind == "concentric" else 0.0
        radii[name] = (round(labels.radius_um / mpp), round(outer / mpp))
    assert radii == {"r12": (12, 0), "r15": (15, 0), "r12R24": (12, 24), "r15R30": (15, 30)}
    random = load_recipe("paper/mitos14-random").labels
    assert [round(um / mpp) for um in random.radius_range_um] == [10, 17]
    assert random.outer_factor_range == (1.5, 2.5)
    assert load_recipe("paper/mitos14-r12").crop_size_px == (385, 344)


def test_the_stages_start_from_each_other():
    weights = {
        name: load_recipe(f"paper/mitos12-{name}").weights for name in ("fcn32s", "fcn16s", "fcn8s")
    }
    assert weights["fcn32s"].startswith("fcn32s:")
    assert weights["fcn16s"] == "run:runs/mitos12-fcn32s"
    assert weights["fcn8s"] == "run:runs/mitos12-fcn16s"


def test_the_steps_that_the_paper_prints_are_taken():
    assert load_recipe(ROOT / "experiments/recipes/cbis-ddsm-masks.toml").steps == 250_000


def test_the_names_of_augmentations_are_documented():
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert [name for name in PUBLISHED if f"`{name}`" not in page] == []


def test_every_key_of_a_recipe_is_documented_and_the_page_is_current():
    spec = importlib.util.spec_from_file_location("keys", ROOT / "docs" / "make_recipe_keys.py")
    keys = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(keys)
    for kind in keys.TABLES.values():
        documented = keys.documented(kind)
        assert list(documented) == list(kind.__struct_fields__)
        assert all(documented.values()), [name for name, text in documented.items() if not text]
    written = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert written == keys.page(), "run docs/make_recipe_keys.py"
