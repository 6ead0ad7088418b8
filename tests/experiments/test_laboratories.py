"""Laboratories left out: levels, the rule, the common threshold, and the file that is written."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.laboratories import __main__ as script
from experiments.laboratories import data as laboratory_data
from experiments.laboratories import folds, networks, unseen
from experiments.laboratories.candidates import (
    Scored,
    load_scored,
    read_networks,
    save_scored,
    screened_cascade,
)
from experiments.laboratories.data import (
    BACKGROUND,
    CROP_GROUPS,
    FIELDS,
    TARGET,
    LabImage,
    read_images,
)
from experiments.laboratories.file_check import verifiers_of
from experiments.laboratories.graphs import verifier_graph
from experiments.laboratories.pools import FOLDS, SIZES, learns, make_pools, verifier_file
from experiments.laboratories.protocol import (
    MAX_FALSE_PER_MM2,
    THRESHOLDS,
    Counts,
    Rule,
    background_levels,
    common_threshold,
    fit_rule,
)
from experiments.laboratories.screening import Proposals, screening_network
from segmitos.detection.model import DEFAULT_MODEL, Model
from segmitos.detection.model_file import read_model_file, write_model_file
from segmitos.detection.runtimes import open_onnxruntime
from segmitos.errors import DataError, ModelError, UsageError
from segmitos.io.datasets import Case
from segmitos.training.checkpoint import TrainingState, save_checkpoint
from segmitos.training.networks.lite import LiteNetwork
from segmitos.training.networks.verifier import VerifierNetwork, restore_verifier
from segmitos.training.recipe import Recipe
from segmitos.training.sampling import TrainingImage
from segmitos.training.train_verifier import VerifierRecipe, begin_encoder
from tests.factories.synthetic_fields import write_cases

RULE = Rule(1.0, 1.0, 0.0)
SIDE_PX = 4000


def image(laboratory: str, fold: int, mitoses=(), unsure=(), side_px: int = SIDE_PX) -> LabImage:
    points = [np.array(rows, float).reshape(-1, 2) for rows in (mitoses, unsure)]
    pixels = np.broadcast_to(np.uint8(200), (side_px, side_px, 3))
    slide = f"{laboratory}-slide"
    source = TrainingImage(slide, slide, pixels, points[0], np.zeros((0, 2)), False)
    return LabImage(laboratory, f"{laboratory}-{fold}", fold, False, source, points[1], 1.0)


def scored(places, map_logit, verifier_logits) -> Scored:
    return Scored(
        np.array(places, float).reshape(-1, 2),
        np.array(map_logit, float),
        np.array(verifier_logits, float),
    )


def test_the_level_is_of_sure_cells_of_the_background_alone():
    images = [image("mitos12", 1, [(50, 50)]), image("tnbc", 1, unsure=[(500, 500)])]
    images.append(image("tnbc", 2))
    places = [(10 * k + 1000, 40) for k in range(101)]
    logits = np.stack([np.linspace(0, 1, 101), np.linspace(-2, 0, 101)], axis=1)
    found = {
        0: scored([(50, 50)], [9.0], [[99.0, 99.0]]),
        1: scored([*places, (501, 500)], [0.0] * 102, [*logits, [50.0, 50.0]]),
        2: scored(places, [0.0] * 101, logits + 3),
    }
    levels = background_levels(images, found)
    np.testing.assert_allclose(levels[1], [0.85, -0.3])
    np.testing.assert_allclose(levels[2], [3.85, 2.7])
    np.testing.assert_allclose(found[1].lowered_by(levels[1]).verifier_logits[100], [0.15, 0.3])


def test_the_common_threshold_is_the_best_that_spares_the_background():
    images = [
        image("mitos12", 1, [(50, 50), (900, 900)]),
        image("midesec", 2, [(50, 50)]),
        image("tnbc", 1),
    ]
    # At 0.3 all three mitoses are found, but twice as much is marked on background as may be.
    few = int(2 * MAX_FALSE_PER_MM2 * images[2].area_mm2)
    assert few >= 2
    chance = np.log(np.array([0.9, 0.3, 0.8, 0.4]) / (1 - np.array([0.9, 0.3, 0.8, 0.4])))
    found = {
        0: scored([(50, 50), (900, 900)], chance[:2], [[0.0], [0.0]]),
        1: scored([(50, 50)], chance[2:3], [[0.0]]),
        2: scored([(9 * k, 9 * k) for k in range(few)], [chance[3]] * few, [[0.0]] * few),
    }
    run = Counts(images, found, RULE)
    assert run.of("mitos12", False)[0].tolist() == [2, 0, 0]
    at = common_threshold([run])
    assert 0.4 < THRESHOLDS[at] <= 0.8
    del found[2]
    assert THRESHOLDS[common_threshold([Counts(images, found, RULE)])] <= 0.3
    found[2] = scored([(9 * k, 9 * k) for k in range(few)], [9.0] * few, [[0.0]] * few)
    with pytest.raises(DataError, match="at any threshold"):
        common_threshold([Counts(images, found, RULE)])


def test_laboratories_weigh_alike_in_the_rule():
    rng = np.random.default_rng(0)
    images, found = [], {}
    for name, fold, count in (("mitos12", 1, 400), ("midesec", 2, 40)):
        places = [(40 * k % SIDE_PX, 80 * (40 * k // SIDE_PX)) for k in range(count)]
        is_one = rng.random(count) < 0.5
        images.append(image(name, fold, [p for p, one in zip(places, is_one, strict=True) if one]))
        logit = np.where(is_one, 1.0, -1.0) + rng.normal(0, 1, count)
        found[len(found)] = scored(places, logit, rng.normal(0, 1, (count, 2)))
    rule = fit_rule(images, [found])
    assert rule.map_weight > 5 * abs(rule.verifier_weight) and rule.map_weight > 1


def test_a_fold_learns_nothing_of_what_it_leaves_out(tmp_path):
    images = []
    for seed, name in enumerate((*FIELDS, BACKGROUND[0])):
        images += read_images(name, write_cases(tmp_path / name, slides=1, fields=1, seed=seed))
    images[0].test = True
    for fold in FOLDS:
        pools = make_pools(images, fold)
        used = {int(i) for pool in pools.values() for i in pool.negatives[:, 0]}
        assert used == {k for k, one in enumerate(images) if learns(one, fold)}
        assert FIELDS[fold] not in pools and FIELDS[0] not in pools
    assert {*make_pools(images)} == {"mitos12", "midesec", "background"}


def test_the_small_verifier_may_begin_with_the_encoder_of_a_run(tmp_path):
    weights = LiteNetwork().state_dict()
    save_checkpoint(tmp_path, {"ema": weights}, TrainingState(step=1, identity="x"))
    begin = folds.encoder_of(tmp_path)
    assert begin is not None and folds.encoder_of(None) is None
    verifier = VerifierNetwork()
    begin_encoder(verifier, begin)
    own = verifier.encoder.state_dict()
    assert torch.equal(own["_blocks.0._bn1.weight"], weights["_blocks.0._bn1.weight"])
    assert torch.equal(own["_conv_stem.weight"], weights["_conv_stem.weight"])


def test_candidates_are_taken_again_only_from_the_same_networks(tmp_path):
    images = [image("mitos12", 1, [(50, 50)])]
    networks = read_model_file(DEFAULT_MODEL)
    verifier = VerifierNetwork(64)
    before = folds._digest(images, networks, {1: [verifier]})
    found = {
        7: scored([(50, 50), (60, 70)], [1.0, 2.0], [[0.5, -1.0], [0.25, 3.0]]),
        2: scored([], [], np.zeros((0, 2))),
    }
    path = tmp_path / "candidates.safetensors"
    assert load_scored(path, before) is None
    save_scored(path, found, before)
    again = load_scored(path, before)
    assert again is not None and list(again) == [7, 2]
    for index, name in itertools.product(found, ("xy", "map_logit", "verifier_logits")):
        np.testing.assert_array_equal(getattr(again[index], name), getattr(found[index], name))
    verifier.head.bias.data += 0.1
    assert load_scored(path, folds._digest(images, networks, {1: [verifier]})) is None
    assert load_scored(path, folds._digest([], networks, {1: [VerifierNetwork(64)]})) is None


@pytest.mark.slow
def test_the_command_writes_a_model_that_screens_and_verifies(tmp_path, monkeypatch, capsys):
    images = []
    for seed, name in enumerate((*FIELDS, *BACKGROUND)):
        images += read_images(name, write_cases(tmp_path / name, slides=1, fields=1, seed=seed))
    crops = write_cases(tmp_path / "crops", slides=2, fields=1, seed=9)
    images += read_images("crops", [dataclasses.replace(c, centered_crop=True) for c in crops])
    for number, one in enumerate(images):
        if one.laboratory not in FIELDS:
            one.fold = number % 2 + 1
    monkeypatch.setattr(script, "load_laboratories", lambda data: images)
    torch.manual_seed(0)
    for fold in FOLDS:
        for side in SIZES:
            path = tmp_path / "out" / verifier_file(fold, side, 0)
            path.parent.mkdir(exist_ok=True)
            save_file(VerifierNetwork(side).state_dict(), str(path))
    # Drawn cells are no candidates of the real networks: these are in their place.
    rng = np.random.default_rng(0)
    candidates = {}
    for index, one in enumerate(images):
        if one.fold in FOLDS:
            mitoses = one.source.mitoses_xy
            xy = np.concatenate([mitoses, rng.uniform(0, 100, (2, 2))])
            logit = rng.normal(0, 1, (len(xy), 3))
            logit[: len(mitoses)] += 2
            if one.laboratory in BACKGROUND:
                logit[:, 0] -= 9
            candidates[index] = Scored(xy, logit[:, 0], logit[:, 1:])
    trained = {
        fold: [
            restore_verifier(load_file(str(tmp_path / "out" / verifier_file(fold, side, 0))))
            for side in SIZES
        ]
        for fold in FOLDS
    }
    made_of = folds._digest(images, read_model_file(DEFAULT_MODEL), trained)
    save_scored(tmp_path / "out" / "candidates-seed0.safetensors", candidates, made_of)
    proposals = {
        index: Proposals(rng.uniform(20, 100, (6, 2)), np.tile([0.9, 0.02], 3))
        for index, one in enumerate(images)
        if not one.test
    }
    monkeypatch.setattr(script, "find_proposals", lambda *given: proposals)
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path), str(tmp_path / "out"), "--seeds", "0"])
    script.main()
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert figures["left_out"][0]["as_published"].keys() >= {"mitos12", "midesec", "pooled"}
    file = read_model_file(tmp_path / "out" / "lite.segmitos")
    assert file.spec.cascade == screened_cascade(read_model_file(DEFAULT_MODEL))
    assert file.screening is not None and file.spec.context_px == 192
    assert file.spec.thresholds.min_score == figures["threshold"]
    model = Model.load(tmp_path / "out" / "lite.segmitos", "cpu", 1)
    assert model.predict(np.full((1, 256, 256, 3), 220, np.uint8)).shape == (1, 64, 64)
    assert (tmp_path / "out" / "reliability.png").exists()
    # What screens is not less by its level, the verifiers of the file are.
    patches = rng.integers(0, 256, (4, 80, 80, 3), dtype=np.uint8)
    pixels = torch.from_numpy(patches).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        logits = np.stack([network(pixels).numpy() for fold in FOLDS for network in trained[fold]])
        screens = screening_network(trained[FOLDS[0]][0], images, proposals, FOLDS[0], TARGET)(
            pixels
        )
    levels = background_levels(images, candidates)
    mean = (logits - np.concatenate([levels[fold] for fold in FOLDS])[:, None]).mean(axis=0)
    assert np.abs(levels[FOLDS[0]]).min() > 0.1
    assert file.verifier is not None
    for graph, logit in ((file.screening, screens.numpy()), (file.verifier, mean)):
        network, _ = open_onnxruntime(graph, "graph", "cpu", 1, 1)
        np.testing.assert_allclose(network(patches), 1 / (1 + np.exp(-logit)), atol=0.01)


def test_verifiers_of_one_graph_are_taken_apart():
    torch.manual_seed(0)
    networks = [VerifierNetwork(64).eval() for _ in range(3)]
    patches = np.random.default_rng(0).integers(0, 256, (2, 80, 80, 3), dtype=np.uint8)
    apart = verifiers_of(verifier_graph(networks))
    assert len(apart) == 3
    for graph, network in zip(apart, networks, strict=True):
        alone, _ = open_onnxruntime(graph, "graph", "cpu", 1, 1)
        with torch.inference_mode():
            logits = network(torch.from_numpy(patches).permute(0, 3, 1, 2).float())
        np.testing.assert_allclose(alone(patches), torch.sigmoid(logits).numpy(), atol=1e-5)


@pytest.mark.slow
def test_an_unseen_laboratory_is_scored_by_the_rule_of_a_model(tmp_path, monkeypatch, capsys):
    images = []
    for seed, name in enumerate((*FIELDS, *BACKGROUND)):
        images += read_images(name, write_cases(tmp_path / name, slides=1, fields=2, seed=seed))
    for one in images:
        if one.laboratory not in FIELDS:
            one.fold = 0
    images[1].test = True
    networks = read_model_file(DEFAULT_MODEL)
    spec = msgspec.structs.replace(networks.spec, datasets=("crops", "mitos12"))
    file = tmp_path / "own.segmitos"
    write_model_file(file, spec, networks.graphs)
    out = tmp_path / "out"
    out.mkdir()
    torch.manual_seed(0)
    for side in SIZES:
        path = out / verifier_file(0, side, 0)
        save_file(VerifierNetwork(side).state_dict(), str(path))
    trained = [restore_verifier(load_file(str(out / verifier_file(0, side, 0)))) for side in SIZES]
    found = {}
    for index, one in enumerate(images):
        if one.fold == 0:
            # Two mitoses are found in each field, and one other cell is marked.
            xy = np.concatenate([one.source.mitoses_xy[:2], [(1.0, 1.0)]])
            sure = [4.0] * 3 if one.laboratory in BACKGROUND else [9.0] * 3
            found[index] = Scored(xy, np.array(sure) - 5, np.zeros((3, 2)))
    made_of = folds._digest(images, read_networks(str(file)), {0: trained})
    save_scored(out / "candidates-unseen-seed0.safetensors", found, made_of)
    monkeypatch.setattr(unseen, "load_laboratories", lambda data: images)
    monkeypatch.setattr(unseen, "find_proposals", lambda *given: {})
    call = ["x", str(tmp_path), str(out), "--networks"]
    monkeypatch.setattr(sys, "argv", [*call, str(file)])
    unseen.main()
    figures = json.loads((out / "unseen.json").read_text())[0]
    own = figures["at_the_threshold_of_the_file"]
    assert own["threshold"] == networks.spec.thresholds.min_score
    # The marks on the background have 0.7 by the rule.
    few = figures["at_few_false_marks"]
    assert few["threshold"] > 0.65 and few["background"]["tnbc"]["false_marks"] == 0
    assert networks.spec.verifier is not None
    assert figures["rule"]["map_weight"] == networks.spec.verifier.map_weight
    missed = [len(one.source.mitoses_xy) - 2 for one in images[:2]]
    assert own["as_published"]["mitos14"]["counts"] == [2, 1, missed[0]]
    assert own["H03"]["as_published"]["counts"] == [2, 1, missed[1]]
    monkeypatch.setattr(sys, "argv", [*call, "lite"])
    with pytest.raises(UsageError, match="lite: its networks learned from mitos14"):
        unseen.main()


def cases_of(_, laboratory):
    """Cases of no images: two of each laboratory, and one crop of each group."""
    names = {
        "mitos14": ["H03", "H04"],
        "crops": ["MIDOG21/1", "MIDOG21/51", "MIDOG21/101", "MIDOG21/150", "TUPAC16/7"],
    }.get(laboratory, ["S1", "S2"])
    none = np.zeros((0, 2))
    return [Case(f"{slide}_1", Path(f"{slide}.png"), none, none, 0.25, slide) for slide in names]


def test_networks_learn_nothing_of_what_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "laboratory_cases", cases_of)
    (tmp_path / "table.csv").write_text(
        "dataset,image,x_px,y_px\nmitos12,S2_1,3,4\nmitos12,S2_1,5,6\nmidesec,S1.png,7,8\n"
    )
    monkeypatch.setattr(laboratory_data, "UNSURE_TABLES", [tmp_path / "table.csv"])
    cases = networks.cases_without(tmp_path, ["midesec", "MIDOG 2021, Aperio CS2"])
    slides = [case.slide for case in cases]
    assert slides == ["H04", "S1", "S2", "MIDOG21/1", "MIDOG21/51", "TUPAC16/7"]
    assert [len(case.unsure_xy) for case in cases] == [0, 0, 2, 0, 0, 0]
    assert cases[2].unsure_xy.tolist() == [[3, 4], [5, 6]]
    (first, *_) = networks.cases_without(tmp_path, ["mitos14", "mitos12", *CROP_GROUPS])
    assert first.unsure_xy.tolist() == [[7, 8]]
    with pytest.raises(UsageError, match="nothing is left"):
        networks.cases_without(tmp_path, [*FIELDS, *CROP_GROUPS])


@pytest.mark.slow
def test_networks_of_a_fold_are_one_file(tmp_path, monkeypatch, capsys):
    cases = write_cases(tmp_path / "data", slides=2, fields=1, size=288)
    recipes = {
        name: Recipe.from_dict(
            {"network": kind, "pretrained": False, "mpp": mpp, "crop_px": 64, "batch": 2,
             "epochs": 1, "steps_per_epoch": 2, "mine_at": []}
        )
        for name, kind, mpp in (("lite", "lite", 0.25), ("proposal", "proposal", 0.5))
    }  # fmt: skip
    monkeypatch.setattr(networks, "load_recipe", recipes.__getitem__)
    file = read_model_file(networks.make_networks(cases, tmp_path / "out", 0, 1))
    assert len(file.networks) == 1 and file.proposal is not None
    cascade = screened_cascade(file)
    assert cascade.grid_px == 16 and cascade.proposal_mpp == 0.5


@pytest.mark.parametrize("command", [script, unseen])
def test_networks_without_proposals_are_refused_at_once(command, tmp_path, monkeypatch):
    networks = read_model_file(DEFAULT_MODEL)
    spec = msgspec.structs.replace(
        networks.spec, name="alone", datasets=("crops",), cascade=None, verifier=None
    )
    graphs = {name: graph for name, graph in networks.graphs.items() if "network" in name}
    write_model_file(tmp_path / "alone.segmitos", spec, graphs)
    call = ["x", str(tmp_path / "nowhere"), str(tmp_path / "out"), "--networks"]
    monkeypatch.setattr(sys, "argv", [*call, str(tmp_path / "alone.segmitos")])
    with pytest.raises(ModelError, match="alone: the networks of the map need a proposal network"):
        command.main()


def test_weights_of_another_recipe_or_other_images_are_refused(tmp_path):
    path = tmp_path / "verifier.safetensors"
    images = [image("mitos12", 1), image("crops", 0), image("crops", 2)]
    made_by = {
        "recipe": str(VerifierRecipe(steps=7)),
        "images": folds._learned_from(images, 0),
    }
    for about in (None, made_by):
        save_file({"a": torch.zeros(1)}, str(path), about)
        folds._check_made_by(path, made_by)
    with pytest.raises(UsageError, match=r"steps=7.*not by.*steps=8"):
        folds._check_made_by(path, {**made_by, "recipe": str(VerifierRecipe(steps=8))})
    images[2].fold = 0
    with pytest.raises(UsageError, match=r"2 images.*not by 1 images.*scanners"):
        folds._check_made_by(path, {**made_by, "images": folds._learned_from(images, 0)})


def test_scanners_are_left_out_with_the_laboratory():
    images = [image("mitos12", 1), image("crops", 2), image("crops", 2)]
    images[1].source.slide, images[2].source.slide = "MIDOG21/101", "MIDOG21/51"
    unseen.leave_out(images, ["MIDOG 2021, Aperio CS2"])
    assert [one.fold for one in images] == [1, 0, 2]
