"""Training end to end on a synthetic set: it learns, resumes exactly, exports what it learned."""

from __future__ import annotations

import dataclasses
import json

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from segmitos.detection.model import Model
from segmitos.detection.model_file import read_model_file
from segmitos.errors import DataError, ModelError, OutputError, TrainingError, UsageError
from segmitos.training.augment import NONE
from segmitos.training.budget import Costs, fit_rest, fit_to_budget
from segmitos.training.checkpoint import load_checkpoint, load_state, save_checkpoint
from segmitos.training.concentric import concentric_loss
from segmitos.training.export import export_run, network_to_onnx
from segmitos.training.finish import finish
from segmitos.training.history import write_history
from segmitos.training.mining import mine
from segmitos.training.networks.registry import build_network
from segmitos.training.optimizer import learning_rate
from segmitos.training.recipe import Recipe, load_recipe
from segmitos.training.run import make_fabric
from segmitos.training.sampling import CropSampler, TrainingImage, load_training_images
from segmitos.training.train import train
from tests.factories.results import detections_at, draw_slide, make_files, save_result, tissue_of
from tests.factories.synthetic_fields import write_cases

TINY = Recipe.from_dict(
    {
        "pretrained": False,
        "crop_px": 64,
        "batch": 4,
        "epochs": 2,
        "steps_per_epoch": 3,
        "warmup_steps": 2,
        "mine_at": [0.5],
        "mine_above": 0.01,
        "precision": "32-true",
        "sampling": {"shift_px": 10},
    }
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return write_cases(tmp_path_factory.mktemp("fields"))


class KilledError(Exception):
    """Stands for a kill in the middle of a run."""


@pytest.mark.slow
def test_a_killed_and_resumed_run_ends_with_the_same_weights(cases, tmp_path):
    train(cases[:4], tmp_path / "whole", TINY, cases[4:], accelerator="cpu")

    def kill(event, content):
        if event == "step" and content["step"] == 5:
            raise KilledError

    with pytest.raises(KilledError):
        train(cases[:4], tmp_path / "broken", TINY, cases[4:], on_event=kill, accelerator="cpu")
    train(cases[:4], tmp_path / "broken", TINY, cases[4:], accelerator="cpu")
    whole, state = load_checkpoint(tmp_path / "whole")
    resumed, state_resumed = load_checkpoint(tmp_path / "broken")
    assert state.step == state_resumed.step == 6
    for group in ("network", "ema", "optimizer"):
        for name, value in whole[group].items():
            assert torch.equal(value, resumed[group][name]), f"{group} {name}"
    assert state.history == state_resumed.history
    assert state.mined and state.mined == state_resumed.mined


@pytest.mark.slow
def test_provenance_names_data_and_split(cases, tmp_path):
    recipe = Recipe.from_dict({**TINY.to_dict(), "epochs": 1, "steps_per_epoch": 1, "mine_at": []})
    train(cases[:4], tmp_path, recipe, cases[4:], accelerator="cpu")
    content = json.loads((tmp_path / "provenance.json").read_text())
    assert content["training"]["slides"] == ["S0", "S1"]
    assert content["validation"]["slides"] == ["S2"]
    assert content["training"]["mitoses"] == 12


def test_a_slide_in_both_halves_is_refused(cases, tmp_path):
    with pytest.raises(UsageError, match="S0 is in both"):
        train(cases[:3], tmp_path, TINY, cases[:1], accelerator="cpu")


def test_another_recipe_does_not_resume(cases, tmp_path):
    recipe = Recipe.from_dict({**TINY.to_dict(), "epochs": 1, "steps_per_epoch": 1, "mine_at": []})
    train(cases[:2], tmp_path, recipe, accelerator="cpu")
    with pytest.raises(UsageError, match="another run: recipe epochs is 2, was 1; "):
        train(cases[:2], tmp_path, TINY, accelerator="cpu")


def test_no_mitosis_is_refused(cases):

    empty = [dataclasses.replace(case, mitoses_xy=np.zeros((0, 2))) for case in cases[:1]]
    with pytest.raises(DataError, match="no mitosis"):
        CropSampler(load_training_images(empty, 0.25), TINY, 4)


def test_samples_depend_on_seed_step_and_index_alone(cases):
    sampler = CropSampler(load_training_images(cases[:2], 0.25), TINY, 4)
    first = [sampler.sample(3, index) for index in range(4)]
    again = [sampler.sample(3, index) for index in reversed(range(4))][::-1]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    assert [part.shape for part in first[0]] == [(64, 64, 3), (16, 16)]


def test_labels_sit_on_the_mitoses(cases):
    """Under every positive cell the synthetic field is as dark as its mitoses."""
    recipe = Recipe.from_dict(
        {
            **TINY.to_dict(),
            "labels": {"kind": "circle", "radius_um": 2.0},
            "sampling": {"mitosis": 1.0, "hard_negative": 0.0, "background": 0.0, "shift_px": 20},
            "augmentation": {
                "stain_transfer": 0.0,
                "stain_jitter": 0.0,
                "brightness": 0.0,
                "blur": 0.0,
                "jpeg": 0.0,
            },
        }
    )
    sampler = CropSampler(load_training_images(cases[:4], 0.25), recipe, 4)
    positives = 0
    for index in range(40):
        image, label = sampler.sample(0, index)
        cells = image.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3, 4))
        positives += (label == 1).sum()
        assert (cells[label == 1] < 100).all()
    assert positives > 400


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["none", {}])
def test_a_model_matches_stains_as_its_validation_did(cases, tmp_path, monkeypatch, augmentation):
    """Of one run there is one model, whoever exports it; the paper's networks see plain colors."""
    targets = []
    monkeypatch.setattr(
        "segmitos.training.loop.validate",
        lambda network, images, recipe, target, check: (targets.append(target) or {}, ()),
    )
    content = {**TINY.to_dict(), "epochs": 1, "mine_at": [], "augmentation": augmentation}
    run = tmp_path / "run"
    train(cases[:2], run, Recipe.from_dict(content), cases[2:4], accelerator="cpu")
    export_run(run, tmp_path / "model.segmitos")
    own = read_model_file(finish(run, ()).model).spec
    exported = read_model_file(tmp_path / "model.segmitos").spec
    assert [exported.stain] == [own.stain] == targets
    assert (own.stain is None) == (augmentation == "none")


@pytest.mark.slow
def test_the_exported_file_is_the_network(cases, tmp_path):
    recipe = Recipe.from_dict({**TINY.to_dict(), "epochs": 1, "mine_at": []})
    train(cases[:4], tmp_path / "run", recipe, accelerator="cpu")
    difference = export_run(tmp_path / "run", tmp_path / "model.segmitos", name="tiny")
    assert difference < 2e-3
    model = Model.load(tmp_path / "model.segmitos", device="cpu", threads=1)
    assert model.spec.name == "tiny" and model.spec.stride == 4
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 64, 3), dtype=np.uint8)
    probability = model.predict(images)
    assert probability.shape == (2, 24, 16)
    network = build_network("lite", pretrained=False)
    network.load_state_dict(load_checkpoint(tmp_path / "run")[0]["ema"])
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(images).permute(0, 3, 1, 2).float())
    np.testing.assert_allclose(probability, torch.sigmoid(logits[:, 0]).numpy(), atol=2e-3)


def test_the_exported_graph_holds_no_normalization_and_gives_the_same():
    torch.manual_seed(0)
    network = build_network("lite", pretrained=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    torch.nn.init.normal_(network.head.weight)
    network.eval()
    content = network_to_onnx(network)
    kinds = {node.op_type for node in onnx.load_from_string(content).graph.node}
    assert "Conv" in kinds and "BatchNormalization" not in kinds
    pixels = np.random.default_rng(0).integers(0, 256, (1, 96, 64, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = torch.sigmoid(network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()))
    got = session.run(None, {"image": pixels})[0]
    np.testing.assert_allclose(got, expected[:, 0].numpy(), atol=1e-3)


def test_the_receptive_field_is_what_the_context_was_measured_for():
    """Its rim is outside of the context; what it weighs is tested on the default model."""
    torch.manual_seed(0)
    network = build_network("lite", pretrained=False).eval()
    image = torch.rand(1, 3, 32, 1024) * 255
    image.requires_grad_()
    network(image)[0, 0, 4, 128].backward()
    reached = image.grad.abs().sum(dim=(0, 1, 2)).nonzero().squeeze(1)
    half = max(514 - int(reached.min()), int(reached.max()) - 513)
    assert int(network.context_px) < half <= 197


def test_a_damaged_checkpoint_is_named(tmp_path):
    with pytest.raises(ModelError, match="no checkpoint"):
        load_checkpoint(tmp_path)
    (tmp_path / "checkpoint.json").write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        load_checkpoint(tmp_path)


def test_the_schedule_warms_up_and_falls():
    recipe = Recipe(epochs=10, steps_per_epoch=100, warmup_steps=50)
    rates = [learning_rate(recipe, step) for step in range(1000)]
    assert rates[0] < rates[49] and max(rates) <= recipe.learning_rate
    assert rates[-1] < 0.02 * recipe.learning_rate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown key 'epoch'"),
        ("epochs = 'three'", "epochs = 'three': expected a whole number, got text"),
        ("[labels]\nkind = 'disc'", r"labels\.kind = 'disc'"),
        ("[labels]\nradius = 3", r"unknown key 'radius' in \[labels\]"),
        ("crop_px = 100", "multiple of 32"),
        ("mine_at = 0.5", "mine_at = 0.5: expected a list, got a number"),
        ("mine_at = [0.5, 2.0]", r"mine_at\[1\] = 2\.0: expected a number <= 1\.0"),
        ("learning_rate = nan", "learning_rate = nan: expected a number > 0.0"),
        ("augmentation = 'mine'", "'mine' is not one of"),
        ("sampling = 3", "sampling = 3: expected a table"),
        ("epochs = = 3", "is not TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_by_key(tmp_path, text, message):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_recipe(path)


def test_a_recipe_survives_json():
    assert Recipe.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY


@pytest.mark.parametrize("rows", [32, 64, 96, 160, 224])
def test_the_exported_halves_give_the_map_of_the_whole(rows):
    torch.manual_seed(0)
    network = build_network("lite", pretrained=False).eval()
    torch.nn.init.normal_(network.head.weight)
    image = torch.rand(2, 3, rows, 64) * 255
    with torch.inference_mode():
        whole = network(image)
        setattr(network, "halves", True)  # noqa: B010 (a module types its attributes as tensors)
        torch.testing.assert_close(network(image), whole, rtol=1e-4, atol=1e-4)


def test_the_exported_graph_normalizes_the_bytes_in_one_pass():
    content = network_to_onnx(build_network("lite", pretrained=False))
    nodes = onnx.load_from_string(content).graph.node
    from_bytes = [node for node in nodes if "image" in node.input]
    assert [node.op_type for node in from_bytes] == ["Transpose"]
    after = [node.op_type for node in nodes if from_bytes[0].output[0] in node.input]
    assert sorted(set(after) - {"Shape"}) == ["DequantizeLinear"]


class Blobs(torch.nn.Module):
    """Certain where the image is dark, and less so where it is gray."""

    stride = 4

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image_BCHW):
        light = torch.nn.functional.avg_pool2d(image_BCHW.mean(1, keepdim=True), 4)
        return (128 - light) / 20


def test_mining_takes_false_peaks_and_leaves_out_those_too_sure_to_be_false():
    image = np.full((96, 400, 3), 250, np.uint8)
    spots = {"mitosis": (40, 0), "sure": (140, 0), "unsure": (240, 110), "look-alike": (340, 0)}
    for x, level in spots.values():
        image[48:52, x : x + 4] = level

    def source():
        return TrainingImage(
            name="field",
            slide="S",
            image=image,
            mitoses_xy=np.array([[44.0, 48.0]]),
            hard_negatives_xy=np.array([[344.0, 48.0]]),
            centered=False,
        )

    def found(points):
        return sorted(round(x / 100) for x in points[:, 0])

    recipe = Recipe.from_dict({**TINY.to_dict(), "mine_above": 0.5})
    plain, doubting, crop = source(), source(), source()
    crop.centered = True
    fields_alone = Recipe.from_dict({**recipe.to_dict(), "mine_crops": False})
    assert mine(Blobs(), [crop], fields_alone, 4) == 0
    assert mine(Blobs(), [plain], recipe, 4) == 3
    assert found(plain.mined_xy) == [1, 2, 3] and not len(plain.ignored_xy)
    recipe = Recipe.from_dict({**recipe.to_dict(), "ignore_above": 0.9})
    assert mine(Blobs(), [doubting], recipe, 4) == 2
    assert found(doubting.mined_xy) == [2, 3] and found(doubting.ignored_xy) == [1]
    assert mine(Blobs(), [doubting], recipe, 4) == 2, "a second round finds nothing new"


def test_a_ignored_place_is_neither_mitosis_nor_background():
    place = TrainingImage(
        name="field",
        slide="S",
        image=np.full((128, 128, 3), 180, np.uint8),
        mitoses_xy=np.array([[64.0, 64.0]]),
        hard_negatives_xy=np.zeros((0, 2)),
        centered=False,
    )
    kinds = {"mitosis": 1.0, "centered": 0.0, "hard_negative": 0.0, "mined": 0.0, "background": 0.0}
    recipe = Recipe.from_dict(
        {
            **TINY.to_dict(),
            "labels": {"kind": "circle", "radius_um": 2.0},
            "sampling": {**kinds, "shift_px": 0},
            "augmentation": msgspec.to_builtins(NONE),
        }
    )
    before = CropSampler([place], recipe, 4).sample(0, 0)[1]
    place.ignored_xy = np.array([[88.0, 64.0]])
    after = CropSampler([place], recipe, 4).sample(0, 0)[1]
    rows, columns = np.mgrid[:16, :16]
    distance = np.hypot(columns * 4 + 1.5 + 32 - 88, rows * 4 + 1.5 + 32 - 64) * 0.25
    plain = before == 0
    assert (after[plain & (distance < 5.5)] == 255).all()
    assert (after[plain & (distance > 6.5)] == 0).all()
    np.testing.assert_array_equal(after == 1, before == 1)


@pytest.mark.slow
def test_a_run_that_is_there_is_refused_restarted_or_finished_as_asked(cases, tmp_path):
    recipe = Recipe.from_dict({**TINY.to_dict(), "epochs": 1, "steps_per_epoch": 2, "mine_at": []})
    steps = []

    def note(event, content):
        if event == "step":
            steps.append(content["step"])

    def run(existing):
        steps.clear()
        train(cases[:2], tmp_path, recipe, existing=existing, on_event=note, accelerator="cpu")
        return list(steps)

    assert run("refuse") == [1, 2]
    assert run("resume") == [], "it is finished"
    assert run("restart") == [1, 2]
    with pytest.raises(UsageError, match="holds a run already"):
        run("refuse")
    changed = [dataclasses.replace(cases[0], mitoses_xy=cases[0].mitoses_xy + 1), cases[1]]
    with pytest.raises(UsageError, match="case S0_0 of training has other labels"):
        train(changed, tmp_path, recipe, accelerator="cpu")


def test_a_training_that_is_refused_early_leaves_no_folder(cases, tmp_path):
    without = [dataclasses.replace(case, mitoses_xy=np.zeros((0, 2))) for case in cases]
    for folder in (tmp_path / "run", tmp_path / "new" / "run"):
        with pytest.raises(DataError):
            train(without, folder, TINY, accelerator="cpu")
    assert not list(tmp_path.iterdir())
    own = tmp_path / "own"
    own.mkdir()
    with pytest.raises(DataError):
        train(without, own, TINY, accelerator="cpu")
    assert own.is_dir()


def test_the_folder_of_a_result_is_no_place_for_a_training(cases, tmp_path):
    slide = draw_slide()
    found = detections_at(np.array([[100.0, 100.0]]), slide.require_mpp())
    files = make_files(tmp_path, slide, found, tissue_of(slide))
    folder = save_result(tmp_path / "made", files)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(OutputError, match="holds a result of detect"):
        train(cases, folder, TINY, accelerator="cpu")
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_folder_that_cannot_be_is_refused_before_the_work(cases, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is a file; name a folder"):
        train(cases[:2], tmp_path / "file", TINY, accelerator="cpu")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_too_little_memory_says_what_to_lower_and_keeps_the_checkpoint(
    cases, tmp_path, monkeypatch
):
    steps = []

    def loss(*args):
        steps.append(1)
        if len(steps) == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return concentric_loss(*args)

    monkeypatch.setattr("segmitos.training.loop.concentric_loss", loss)
    with pytest.raises(TrainingError, match="out of memory after step 4; lower batch = 4 or crop"):
        train(cases[:4], tmp_path, TINY, accelerator="cpu")
    assert load_state(tmp_path).step == 3


@pytest.mark.slow
def test_the_course_of_a_training_is_written_at_each_epoch(cases, tmp_path):
    pages = []

    def note(event, content):
        if event in ("started", "epoch"):
            pages.append((tmp_path / "training.html").read_text())

    train(cases[:4], tmp_path, TINY, cases[4:], on_event=note, accelerator="cpu")
    rows = (tmp_path / "history.csv").read_text().splitlines()
    assert rows[0].startswith("epoch,step,loss,learning_rate,f_fixed,") and len(rows) == 3
    assert [row.split(",")[:2] for row in rows[1:]] == [["1", "3"], ["2", "6"]]
    assert len(pages) == 3 and 'http-equiv="refresh"' in pages[1]
    assert "F on validation" in pages[2] and "Missed" in pages[2]
    assert "Finished: 6 steps" in pages[2] and "refresh" not in pages[2]
    assert "http://" not in pages[2] and "https://" not in pages[2]


@pytest.mark.parametrize(
    ("f_best", "said"), [({"f_best": 0.0}, "no score threshold finds"), ({}, "F 0.000 at a score")]
)
def test_the_page_of_a_training_says_plainly_that_nothing_is_found(tmp_path, f_best, said):
    last = {"step": 3, "loss": 0.5, "learning_rate": 0.1, "f_fixed": 0.0, "best_score": 0.5}
    write_history(
        tmp_path, [last | f_best], title="t", steps=3, examples=(), running=False, validated=True
    )
    page = (tmp_path / "training.html").read_text()
    assert said in page and "too high" not in page


@pytest.mark.slow
def test_a_time_budget_takes_as_many_steps_as_fit(cases, tmp_path):
    recipe = Recipe(pretrained=False, epochs=10, steps_per_epoch=100, warmup_steps=100)
    assert fit_to_budget(recipe, 3600.0, Costs(0.1)) == recipe
    fitted = fit_to_budget(recipe, 100.0, Costs(1.0))
    assert fitted.steps == 80 and fitted.epochs == 10 and fitted.warmup_steps == 8
    with pytest.raises(UsageError, match="holds none"):
        fit_to_budget(recipe, 1.0, Costs(5.0))
    tiny = Recipe.from_dict({**TINY.to_dict(), "epochs": 100, "steps_per_epoch": 100})
    train(cases[:2], tmp_path, tiny, time_budget_s=4.0, accelerator="cpu")
    state = load_state(tmp_path)
    assert 0 < state.step < 10_000
    train(cases[:2], tmp_path, tiny, time_budget_s=4.0, accelerator="cpu")
    assert load_state(tmp_path).step == state.step, "the same command finds it finished"


def test_mining_and_validation_that_a_time_budget_does_not_hold_are_left_out():
    recipe = Recipe(epochs=10, steps_per_epoch=100, mine_at=(0.25, 0.55))
    # 2 x 10 s of mining, 10 validations and the tuning: 9 x 1 s are under a tenth.
    fitted = fit_to_budget(recipe, 100.0, Costs(1.0, validation_s=1.0, mining_s=10.0), spent_s=9.0)
    assert fitted.mine_at == (0.25, 0.55) and fitted.validate_every == 1
    assert fitted.steps == 60  # 100 - 9 - 20 - 11
    slow = fit_to_budget(recipe, 100.0, Costs(1.0, validation_s=10.0, mining_s=20.0))
    assert slow.mine_at == (0.55,) and slow.validate_every == slow.epochs == 10
    assert slow.steps == 60  # 100 - 20 - 20
    none = fit_to_budget(recipe, 100.0, Costs(1.0, validation_s=60.0, mining_s=60.0))
    assert none.mine_at == () and none.steps == 20, "a quarter of the time is for steps, in epochs"


def test_epochs_that_do_not_fit_any_more_are_left_out():
    recipe = Recipe(epochs=10, steps_per_epoch=10, mine_at=(0.1, 0.5))

    def epochs(spent_s, done, costs, max_steps=100):
        return fit_rest(recipe, 100.0, spent_s, done, costs, max_steps).epochs

    assert epochs(10.0, 1, Costs(1.0)) == 10
    assert epochs(40.0, 1, Costs(4.0)) == 2, "60 s hold one of 40 s"
    assert epochs(40.0, 1, Costs(4.0, validation_s=11.0)) == 1
    assert epochs(40.0, 1, Costs(4.0, mining_s=21.0)) == 1
    assert epochs(170.0, 4, Costs(4.0)) == 4, "nothing is undone"
    assert epochs(10.0, 1, Costs(0.5), max_steps=1000) == 19, "90 s hold 18 of 5 s"
    assert epochs(10.0, 1, Costs(0.5), max_steps=120) == 12
    assert epochs(10.0, 2, Costs(0.5), max_steps=1000) == 10, "later none is added"


@pytest.mark.slow
def test_a_time_budget_is_kept_on_a_machine_that_becomes_slower(cases, tmp_path, monkeypatch):
    """A step was measured as 0.5 s and takes 2, a validation takes 2; killed, it goes on alike."""
    recipe = Recipe.from_dict(
        {**TINY.to_dict(), "epochs": 10, "steps_per_epoch": 10, "mine_at": [0.6]}
    )
    now, told, kills = [1000.0], [], [7]

    def tell(event, content):
        now[0] += 2.0 * (event == "step")
        if event in ("fitted", "mined"):
            told.append((event, content["step"]))
        if event == "step" and content["step"] in kills:
            kills.clear()
            raise KeyboardInterrupt

    def validate(*_):
        now[0] += 2.0
        return {}, ()

    monkeypatch.setattr("segmitos.training.budget.monotonic", lambda: now[0])
    monkeypatch.setattr("segmitos.training.loop.validate", validate)
    monkeypatch.setattr("segmitos.training.loop.seconds_per_step", lambda *_: 0.5)
    monkeypatch.setattr("segmitos.training.loop._SAVE_EVERY_S", 0.0)
    monkeypatch.setattr("segmitos.training.loop._SAVE_FRACTION", 1e9)

    def run():
        train(
            cases[:4],
            tmp_path,
            recipe,
            cases[4:],
            time_budget_s=40.0,
            on_event=tell,
            accelerator="cpu",
        )

    with pytest.raises(KeyboardInterrupt):
        run()
    run()
    state = load_state(tmp_path)
    # Of 60 steps planned, 18 and three validations are 42 s; the step after the last checkpoint was
    # taken twice.
    assert told == [("fitted", 6), ("mined", 11)] and state.step == 18
    assert state.spent_s == 42 and now[0] == 1044
    assert [entry["step"] for entry in state.history] == [6, 12, 18]
    assert state.history[-1]["learning_rate"] < 0.02 * recipe.learning_rate, "it came to its end"


def test_a_checkpoint_of_another_network_is_one_line(cases, tmp_path):
    recipe = Recipe.from_dict({**TINY.to_dict(), "epochs": 1, "steps_per_epoch": 1, "mine_at": []})
    train(cases[:2], tmp_path, recipe, accelerator="cpu")
    state = load_state(tmp_path)
    save_checkpoint(tmp_path, {"network": {"w": torch.zeros(1)}}, state)
    with pytest.raises(ModelError, match="damaged checkpoint") as caught:
        train(cases[:2], tmp_path, recipe, accelerator="cpu")
    assert "\n" not in str(caught.value)
    (tmp_path / f"checkpoint-{state.step}.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="damaged checkpoint"):
        train(cases[:2], tmp_path, recipe, accelerator="cpu")


@pytest.mark.parametrize("accelerator", ["cuda", "mps"])
def test_an_accelerator_that_is_not_there_is_refused_in_one_line(accelerator, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match=f"accelerator {accelerator}: .*give --accelerator cpu"):
        make_fabric(TINY, accelerator, 1)
