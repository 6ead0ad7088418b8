"""Verifiers trained from a pack: what it holds, its patches, and the weights that come of it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from experiments.gpu.__main__ import main
from experiments.gpu.packing import pack, read_pack
from experiments.gpu.patches import PatchReader, compressed
from experiments.gpu.training import train_verifiers
from experiments.laboratories.data import TARGET, read_images
from experiments.laboratories.folds import fold_verifiers
from experiments.laboratories.pools import FOLDS, SIZES, verifier_file
from segmitos.errors import DataError, OutputError
from segmitos.training import patches as cpu_patches
from segmitos.training.patches import augmented_patches, draw_transforms
from segmitos.training.train_verifier import VerifierRecipe, _rate
from tests.factories.synthetic_fields import write_cases

RECIPE = VerifierRecipe(steps=3, batch=4, pretrained=False)


def darkness(images):
    """Answers as a network of the map would that takes dark places for mitoses."""
    return 1 - images[:, 2::4, 2::4].mean(-1).astype(np.float32) / 255


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fields")
    result = []
    for seed, name in enumerate(("mitos14", "mitos12", "midesec")):
        result += read_images(name, write_cases(folder / name, slides=2, fields=1, seed=seed))
    crops = write_cases(folder / "crops", slides=2, fields=1, seed=3)
    result += read_images("crops", [dataclasses.replace(c, centered_crop=True) for c in crops])
    result[1].test = True
    return result


@pytest.fixture(scope="module")
def packed(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("pack") / "verifiers.pack"
    pack(images, path, darkness, 0.5, 90, 10**7)
    return path


def test_a_pack_holds_the_points_and_what_is_round_them(images, packed):
    content = read_pack(packed)
    kept = [image for image in images if not image.test]
    assert [image.name for image in content.images] == [image.name for image in kept]
    assert [image.source.stain for image in content.images] == [i.source.stain for i in kept]
    for pool in content.pools.values():
        for index, x, y in np.concatenate([pool.positives, pool.negatives]):
            (left, top), reach = np.maximum(0, np.array([x, y]).astype(int) - 60), 120
            part = np.s_[top : top + reach, left : left + reach]
            own, packed_one = (i[int(index)].source.image[part] for i in (kept, content.images))
            assert np.abs(own.astype(int) - packed_one).mean() < 6
    for name in ("mitos14", "mitos12", "midesec", "crops"):
        mitoses = [i.source.mitoses_xy for i in kept if i.laboratory == name]
        assert np.array_equal(content.pools[name].positives[:, 1:], np.concatenate(mitoses))
    assert set(content.pools_of(1)) == {image.laboratory for image in kept if image.fold != 1}
    assert set(content.pools) == {image.laboratory for image in kept}


def test_fields_are_gray_beyond_their_points_and_crops_are_whole(images, tmp_path):
    large = np.full((640, 640, 3), 255, np.uint8)
    field = dataclasses.replace(images[0].source, image=large)
    field.mitoses_xy, field.hard_negatives_xy = np.array([[100.0, 100.0]]), np.zeros((0, 2))
    others = [image for image in images[2:] if image.laboratory == "crops"]
    chosen = [dataclasses.replace(images[0], source=field), *others]
    pack(chosen, tmp_path / "pack", darkness, 0.5, 90, 10**7)
    first, *rest = (image.source.image.astype(int) for image in read_pack(tmp_path / "pack").images)
    assert np.abs(first[30:170, 30:170] - large[0, 0]).max() <= 6
    assert np.abs(first[200:] - 127).max() <= 6 and np.abs(first[:, 200:] - 127).max() <= 6
    for own, stored in zip(others, rest, strict=True):
        assert np.abs(own.source.image - stored).mean() < 6


def test_half_of_the_share_are_the_likest_a_mitosis(images, tmp_path):
    fields = [image for image in images if image.laboratory != "crops"]
    none = pack(fields, tmp_path / "none", darkness, 0.0, 50, 10**7)
    every = pack(fields, tmp_path / "every", darkness, 1.0, 50, 10**7)
    for name, (mitoses, others) in none.items():
        rejected = sum(len(i.source.hard_negatives_xy) for i in fields if i.laboratory == name)
        assert mitoses == every[name][0] and others <= rejected < every[name][1] + 1


def test_a_pack_that_is_too_large_damaged_or_none_is_told_of(images, packed, tmp_path, capsys):
    with pytest.raises(OutputError, match="smaller --share or --quality"):
        pack(images, tmp_path / "large", darkness, 0.5, 90, 1000)
    assert not (tmp_path / "large").exists()
    with zipfile.ZipFile(packed) as file, zipfile.ZipFile(tmp_path / "other", "w") as other:
        for name in file.namelist():
            content = file.read("00001.webp" if name == "00000.webp" else name)
            other.writestr(name, content)
    (tmp_path / "text").write_text("no pack")
    for name, why in (("other", "damaged"), ("text", "not a pack"), ("absent", "cannot read")):
        with pytest.raises(DataError, match=why):
            read_pack(tmp_path / name)


def test_patches_read_on_a_device_are_those_of_the_processor(images, monkeypatch):
    monkeypatch.setattr(cpu_patches, "_JPEG_FRACTION", 0.0)
    rng = np.random.default_rng(5)
    # Many beyond a border, false or not.
    points = np.column_stack([rng.integers(0, len(images), 40), rng.uniform(-5, 197, (40, 2))])
    stains = [image.source.stain for image in images]
    found = PatchReader(images, "cpu").augmented(points, stains, np.random.default_rng(2))
    chosen = [images[int(index)].source for index in points[:, 0]]
    rng = np.random.default_rng(2)
    wanted = augmented_patches(
        [source.image for source in chosen],
        [source.stain for source in chosen],
        points[:, 1:],
        draw_transforms(40, rng),
        stains,
        TARGET,
        rng,
    )
    assert (found - wanted).abs().max() <= 1


def test_everything_is_made_on_the_device_that_the_images_are_on(images):
    # Shapes without values: an operation that mixes devices fails here as on a GPU.
    rng = np.random.default_rng(5)
    points = np.column_stack([rng.integers(0, len(images), 40), rng.uniform(-5, 197, (40, 2))])
    stains = [image.source.stain for image in images]
    patches = PatchReader(images, "meta").augmented(points, stains, rng)
    assert patches.device.type == "meta" and patches.shape == (40, 3, 80, 80)


@pytest.mark.parametrize("quality", [40, 65, 90])
def test_compression_is_that_of_the_jpeg_library(quality):
    rng = np.random.default_rng(0)
    small = rng.uniform(40, 220, (20, 20, 3)).astype(np.uint8)
    original = np.asarray(Image.fromarray(small).resize((80, 80)))
    pixels = torch.from_numpy(np.stack([original, original])).permute(0, 3, 1, 2).float()
    found, other = compressed(pixels, [quality, 10]).permute(0, 2, 3, 1).numpy()
    buffer = io.BytesIO()
    Image.fromarray(original).save(buffer, "JPEG", quality=quality)
    library = np.asarray(Image.open(buffer)).astype(float)

    def apart(one, another):
        return np.abs(one - another).mean()

    # The library rounds in between; what is lost is the same.
    assert apart(found, library) < 1.6 < apart(other, library)
    assert apart(found, original) == pytest.approx(apart(library, original), rel=0.02)


@pytest.mark.slow
def test_weights_of_every_fold_are_read_by_the_laboratories(images, packed, tmp_path):
    told: list[str] = []
    content = read_pack(packed)
    for side in SIZES:
        train_verifiers(content, tmp_path, RECIPE, [0], side, "cpu", 600, told.append)
    assert sum("done after 3 steps" in line for line in told) == len(SIZES) * len(FOLDS)
    for fold in FOLDS:
        verifiers = fold_verifiers(images, fold, 0, None, (1, 1), tmp_path)
        assert [verifier.input_px for verifier in verifiers] == list(SIZES)
        for verifier in verifiers:
            assert torch.isfinite(verifier(torch.rand(2, 3, 80, 80) * 255)).all()
    weights = [load_file(tmp_path / verifier_file(fold, 64, 0)) for fold in FOLDS]
    assert not torch.equal(weights[0]["head.weight"], weights[1]["head.weight"])
    other = dataclasses.replace(RECIPE, batch=6)
    with pytest.raises(OutputError, match="choose another OUT"):
        train_verifiers(content, tmp_path, other, [0], 64, "cpu", 600, told.append)


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_weights(packed, tmp_path, monkeypatch):
    content = read_pack(packed)
    name = verifier_file(FOLDS[0], 64, 0)
    train_verifiers(content, tmp_path / "whole", RECIPE, [0], 64, "cpu", 10**6, lambda line: None)
    read, calls = PatchReader.augmented, []

    def stopped(self, *given):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return read(self, *given)

    monkeypatch.setattr(PatchReader, "augmented", stopped)
    for _ in range(2):
        with contextlib.suppress(KeyboardInterrupt):
            train_verifiers(
                content, tmp_path / "cut", RECIPE, [0], 64, "cpu", 10**6, lambda line: None, 0.0
            )
    whole, cut = (load_file(tmp_path / folder / name) for folder in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    # The call that was stopped was made again.
    assert len(calls) == 1 + len(FOLDS) * RECIPE.steps
    assert not list((tmp_path / "cut").glob("*/"))


@pytest.mark.slow
def test_time_ends_a_training_and_the_rate_falls_with_it(packed, tmp_path):
    recipe = dataclasses.replace(RECIPE, steps=10**6)
    train_verifiers(read_pack(packed), tmp_path, recipe, [0], 64, "cpu", 0.0, lambda line: None)
    assert len(list(tmp_path.glob("verifier-*.safetensors"))) == len(FOLDS)
    rates = [_rate(recipe, 500, done) for done in (0.0, 0.5, 1.0)]
    assert rates == pytest.approx([1e-3, 0.505e-3, 1e-5])


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [("--batch", "1", "at least 2"), ("--minutes", "nan", "at least 0"), ("--seeds", "x", "x")],
)
def test_options_that_make_no_sense_are_refused(option, value, why, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "PACK", "OUT", option, value])
    assert stopped.value.code == 2 and why in capsys.readouterr().err


def test_a_device_that_is_not_there_is_told_of(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Exception, match="torch finds no GPU"):
        main(["train", str(packed), str(tmp_path), "--device", "cuda"])
