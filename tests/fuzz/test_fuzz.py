"""A fixed selection of mutated inputs of every kind; `python -m tests.fuzz` tries more by hand."""

from __future__ import annotations

import warnings

import pytest

from .kind import Kind, attempt, run
from .kinds import KINDS
from .mutate import mutate

SEED = 1


@pytest.fixture(autouse=True)
def quiet():
    """Warnings of decoders are for their own readers' tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_nothing_but_our_own_errors_comes_out_of_a_mutated_input(tmp_path, name):
    outcome = run(KINDS[name], SEED, KINDS[name].inputs, tmp_path)
    assert outcome.failures == []
    assert outcome.tried == KINDS[name].inputs


@pytest.mark.parametrize("name", KINDS)
def test_a_sound_input_is_read(tmp_path, name):
    KINDS[name].make(tmp_path)
    assert attempt(KINDS[name], tmp_path) == ("", False)


def test_a_fault_is_seen_with_its_place(tmp_path):
    def make(folder):
        (folder / "a.txt").write_text("1,2\n3,4\n")
        return [folder / "a.txt"]

    broken = Kind("broken", make, lambda folder: int((folder / "a.txt").read_text()))
    outcome = run(broken, 0, 5, tmp_path, tmp_path / "kept")
    assert len(outcome.failures) == 5 and "ValueError at test_fuzz.py" in outcome.failures[0]
    assert (tmp_path / "kept" / "broken-0" / "what.txt").is_file()
    silent = Kind("silent", make, lambda folder: 1)
    assert run(silent, 0, 1, tmp_path).failures == ["silent 0 (a.txt): exit code 1 without a word"]


def test_the_same_seed_gives_the_same_input():
    import random

    for name in ("a.csv", "a.json", "a.png"):
        first, second = (
            mutate(b'{"a": [1, 2]}\n1,2\n', name, random.Random("seed")) for _ in range(2)
        )
        assert first == second
