"""Several model files as one: averaged networks, behind a proposal network."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from segmitos.cli import main
from segmitos.detection.model import Model
from segmitos.detection.model_file import read_model_file, write_model_file
from segmitos.errors import ModelError, UsageError
from segmitos.training.combine import combine
from tests.factories.toy_models import SPEC, proposal_graph, write_toy, write_toy_verified

SIZES = {"patch_px": 160, "block_px": 32, "margin_px": 48}
PROPOSAL = msgspec.structs.replace(SPEC, name="toy-proposal", mpp=0.5, stride=8, context_px=12)


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    made = {
        "soft": write_toy(folder / "soft.segmitos", sharpness=0.05),
        "sharp": write_toy(folder / "sharp.segmitos"),
        "coarse": write_toy(folder / "coarse.segmitos", mpp=0.5),
        "proposal": folder / "proposal.segmitos",
    }
    write_model_file(made["proposal"], PROPOSAL, {"network-0.onnx": proposal_graph()})
    return made


def field(seed: int, height: int, width: int) -> np.ndarray:
    """Pale noise with dark discs."""
    rng = np.random.default_rng(seed)
    image = rng.integers(200, 240, (height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for _ in range(8):
        y, x, radius = rng.uniform(40, height - 40), rng.uniform(40, width - 40), rng.uniform(7, 14)
        image[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = rng.integers(20, 60)
    return image


def test_the_maps_of_networks_are_averaged(parts, tmp_path):
    image = field(1, 128, 128)[None]
    one, other = (Model.load(parts[name], "cpu", 1).predict(image) for name in ("soft", "sharp"))
    combine([parts["soft"], parts["sharp"]], tmp_path / "mean.segmitos")
    found = Model.load(tmp_path / "mean.segmitos", "cpu", 1)
    np.testing.assert_allclose(found.predict(image), (one + other) / 2, atol=1e-6)
    assert found.spec.cascade is None


def test_behind_a_proposal_network_the_map_is_the_same_round_its_proposals(parts, tmp_path):
    networks = [parts["soft"], parts["sharp"]]
    combine(networks, tmp_path / "mean.segmitos")
    combine(networks, tmp_path / "both.segmitos", parts["proposal"], 0.05, 0.6, **SIZES)
    image = field(2, 320, 448)[None]
    expected = Model.load(tmp_path / "mean.segmitos", "cpu", 1).predict(image)
    found = Model.load(tmp_path / "both.segmitos", "cpu", 1).predict(image)
    # At its border the image meets the networks' own padding, black here, and patches meet gray.
    inner = np.s_[:, 10:-10, 10:-10]
    found, expected = found[inner], expected[inner]
    looked_at = found > 0
    assert 0.05 < looked_at.mean() < 0.95 and found.max() > 0.9
    np.testing.assert_allclose(found[looked_at], expected[looked_at], atol=1e-6)


def test_the_proposal_network_sees_the_average_of_pixels(parts, tmp_path):
    combine([parts["sharp"]], tmp_path / "both.segmitos", parts["proposal"], **SIZES)
    write_model_file(
        tmp_path / "finer.segmitos",
        msgspec.structs.replace(PROPOSAL, stride=16),
        {"network-0.onnx": read_model_file(tmp_path / "both.segmitos").proposal},
    )
    image = field(3, 192, 128)
    coarse = image.reshape(96, 2, 64, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    expected = Model.load(parts["proposal"], "cpu", 1).predict(coarse[None])[0]
    found = Model.load(tmp_path / "finer.segmitos", "cpu", 1).predict(image[None])[0]
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_the_specification_tells_of_the_cascade(parts, tmp_path):
    out = tmp_path / "both.segmitos"
    spec = combine(
        [parts["sharp"]], out, parts["proposal"], 0.25, **SIZES, name="both", description="new"
    )
    read = Model.load(out, "cpu", 1).spec
    assert read == spec and (read.name, read.description) == ("both", "new")
    assert read.cascade is not None
    assert (read.cascade.proposal_network, read.cascade.proposal_mpp) == ("toy-proposal", 0.5)
    assert (read.cascade.proposal_stride_px, read.cascade.proposal_threshold) == (16, 0.25)
    # From the border of the written middle to that of the patch on the other side.
    assert read.context_px == 160 - 48 and read.thresholds == SPEC.thresholds


def test_patches_may_lie_on_a_finer_grid(parts, tmp_path):
    out, sizes = tmp_path / "both.segmitos", {"patch_px": 192, "margin_px": 64}
    with pytest.raises(UsageError, match="patches lie on the networks' grid of 32 px"):
        combine([parts["sharp"]], out, parts["proposal"], **sizes)
    given = ["model", "combine", str(parts["sharp"]), "--proposal-network", str(parts["proposal"])]
    given += ["--patch-px", "192", "--margin-px", "64", "--grid-px", "16", "-o", str(out)]
    assert main(given) == 0
    cascade = Model.load(out, "cpu", 1).spec.cascade
    assert cascade is not None and (cascade.patch_px, cascade.grid_px) == (192, 16)


def test_half_precision_makes_the_graph_smaller_and_hardly_changes_the_map(parts, tmp_path):
    combine([parts["sharp"]], tmp_path / "half.segmitos", half_precision=True)
    image = field(5, 128, 160)[None]
    paths = (parts["sharp"], tmp_path / "half.segmitos")
    before, after = (Model.load(path, "cpu", 1).predict(image) for path in paths)
    assert 0 < np.abs(before - after).max() < 0.01
    large, small = (len(read_model_file(path).networks[0]) for path in paths)
    assert small < large


def test_what_does_not_fit_together_is_refused_by_name(parts, tmp_path):
    out = tmp_path / "both.segmitos"
    with pytest.raises(ModelError, match="differ in mpp"):
        combine([parts["sharp"], parts["coarse"]], out)
    with pytest.raises(UsageError, match="patch_px 100"):
        combine([parts["sharp"]], out, parts["proposal"], patch_px=100)
    with pytest.raises(UsageError, match="margin_px 80"):
        combine([parts["sharp"]], out, parts["proposal"], **{**SIZES, "margin_px": 80})
    with pytest.raises(UsageError, match="size 'patch': choose among block_px, patch_px, margin"):
        combine([parts["sharp"]], out, patch=160)
    with pytest.raises(UsageError, match="patch_px means nothing without a proposal network"):
        combine([parts["sharp"]], out, patch_px=160)
    with pytest.raises(UsageError, match="grid_px 8 is neither 16 nor 32"):
        combine([parts["sharp"]], out, parts["proposal"], grid_px=8)
    with pytest.raises(ModelError, match=r"the proposal network reads 0\.25"):
        combine([parts["coarse"]], out, parts["sharp"])
    for networks, proposal in ((["sharp"], parts["proposal"]), (["soft", "sharp"], None)):
        with pytest.raises(UsageError, match=r"ensemble threshold 0\.2 needs"):
            combine([parts[name] for name in networks], out, proposal, ensemble_threshold=0.2)
    for wrong in (1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match="no probability"):
            combine([parts["sharp"]] * 2, out, parts["proposal"], wrong)
    assert not out.exists()
    combine([parts["sharp"]], out, parts["proposal"])
    with pytest.raises(ModelError, match="is combined already"):
        combine([out], tmp_path / "again.segmitos", parts["proposal"])
    combine([parts["soft"], parts["sharp"]], tmp_path / "two.segmitos")
    for proposal in (out, tmp_path / "two.segmitos"):
        with pytest.raises(ModelError, match=f"{proposal.name} is combined already"):
            combine([parts["sharp"]], tmp_path / "again.segmitos", proposal)


def test_the_score_of_one_network_is_not_taken_for_that_of_all(parts, tmp_path):
    file = read_model_file(parts["sharp"])
    for scored, told in (
        ({"f_score": 0.8, "data": "2 slides"}, "2 slides, by the first network alone"),
        ({"f_score": 0.8}, "data not stated, by the first network alone"),
        ({}, None),
    ):
        spec = msgspec.structs.replace(file.spec, validation=scored)
        write_model_file(tmp_path / "scored.segmitos", spec, file.graphs)
        networks = [tmp_path / "scored.segmitos", parts["soft"]]
        for proposal in (None, parts["proposal"]):
            made = combine(networks, tmp_path / "both.segmitos", proposal)
            assert made.validation.get("data") == told
            assert read_model_file(tmp_path / "both.segmitos").spec.validation == made.validation


def test_the_command_line_says_what_it_made_and_what_is_wrong(parts, tmp_path, capsys):
    out = tmp_path / "both.segmitos"
    given = ["model", "combine", str(parts["sharp"]), "--proposal-network", str(parts["proposal"])]
    tuned = tmp_path / "thresholds.json"
    thresholds = {"threshold": 0.5, "min_area_um2": 9.0, "min_score": 0.7}
    tuned.write_text(json.dumps({"thresholds": thresholds, "validation": {"f_score": 0.5}}))
    assert main([*given, "-o", str(out), "--thresholds", str(tuned)]) == 0
    assert "1 network, behind" in capsys.readouterr().out
    spec = Model.load(out, "cpu", 1).spec
    assert (spec.name, spec.thresholds.min_area_um2) == ("both", 9.0)
    assert spec.validation == {"f_score": 0.5}
    for wrong, message in (
        ([*given, "-o", "both.txt"], "must end in .segmitos"),
        (["model", "combine", "absent.segmitos", "-o", str(out)], "absent.segmitos"),
        ([*given, "-o", str(out), "--thresholds", "absent.json"], "absent.json"),
        ([*given, "-o", str(out), "--proposal-threshold", "1"], "--proposal-threshold"),
        ([*given, "-o", str(out), "--patch-px", "40"], "patch_px 40"),
    ):
        assert main(wrong) in (1, 2)
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_thresholds_of_another_model_are_refused(parts, tmp_path, capsys):
    both, tuned = tmp_path / "both.segmitos", tmp_path / "thresholds.json"
    networks = [str(parts["soft"]), str(parts["sharp"])]
    combined = ["model", "combine", *networks, "--proposal-network", str(parts["proposal"])]
    assert main([*combined, "-o", str(both)]) == 0
    thresholds = {"threshold": 0.5, "min_area_um2": 9.0, "min_score": 0.7}
    content = {"thresholds": thresholds, "validation": {"f_score": 0.9}}
    tuned.write_text(json.dumps({**content, "model": read_model_file(both).about}))
    given = ["--thresholds", str(tuned), "-o", str(tmp_path / "made.segmitos"), "--name", "made"]
    assert main([*combined, *given]) == 0
    made = read_model_file(tmp_path / "made.segmitos")
    assert made.spec.thresholds.min_area_um2 == 9 and made.spec.validation == {"f_score": 0.9}
    assert made.about["maps_sha256"] == read_model_file(both).about["maps_sha256"]
    capsys.readouterr()
    for other in (
        ["model", "combine", *networks],
        ["model", "combine", *networks[::-1], *combined[4:]],
        [*combined, "--proposal-threshold", "0.3"],
        [*combined, "--half-precision"],
    ):
        (tmp_path / "made.segmitos").unlink(missing_ok=True)
        assert main([*other, *given]) == 2
        error = capsys.readouterr().err
        assert "--thresholds were tuned with another model, 'both'; make" in error
        assert error.count("\n") == 1 and not (tmp_path / "made.segmitos").exists()


@pytest.mark.parametrize("role", ["network", "proposal network"])
def test_a_model_with_a_verifier_is_not_combined(tmp_path, capsys, role, parts):
    verified = write_toy_verified(tmp_path / "verified.segmitos")
    out = tmp_path / "out.segmitos"
    behind = [str(parts["sharp"]), "--proposal-network"] if role != "network" else []
    assert main(["model", "combine", *behind, str(verified), "-o", str(out)]) == 1
    assert "verified.segmitos has a verifier; combine the networks" in capsys.readouterr().err
    assert not out.exists()


def test_the_built_in_model_is_found_by_its_name_and_cannot_be_combined(tmp_path, capsys):
    out = tmp_path / "out.segmitos"
    assert main(["model", "combine", "lite", "-o", str(out)]) == 1
    assert "lite.segmitos is combined already" in capsys.readouterr().err
    assert not out.exists()


def test_the_model_card_is_printed_as_text_and_as_json(parts, tmp_path, capsys):
    out = tmp_path / "both.segmitos"
    combine([parts["soft"], parts["sharp"]], out, parts["proposal"], 0.25, 0.5, **SIZES)
    assert main(["model", "info", str(out)]) == 0
    card = capsys.readouterr().out
    for said in ("synthetic", "toy-proposal at 0.5 um", "middle 64 px", "2, averaged", "f_score"):
        assert said in card
    assert main(["model", "info", str(out), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["cascade"]["ensemble_threshold"] == 0.5 and about["networks"] == 2
    assert main(["model", "info", "absent"]) == 1
    assert "built-in models: lite\n" in capsys.readouterr().err
    # Tables of figures are named on a card, and shown by --json alone.
    assert main(["model", "info", "lite"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "left_out" in line]
    assert "as_published, background" in line and line.endswith(": see --json")
