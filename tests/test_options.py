"""Options that several verbs share, as a shell gives them."""

from __future__ import annotations

import click
import pytest

from segmitos import options
from segmitos.detection.model import DEVICES
from segmitos.evaluation.matching import RULES
from segmitos.options import DataSets, data_options


@click.command()
@data_options
@click.option("--flag", is_flag=True)
def verb(**given):
    return given


@pytest.mark.parametrize(
    "line",
    [
        "mitos14:DIR --cases H04 H05 --exclude H03",
        "--exclude H03 --cases H04 H05 mitos14:DIR",
        "mitos14:DIR --cases H04 --cases H05 --exclude=H03",
        "--cases H04 --exclude H03 --cases H05 -- mitos14:DIR",
    ],
)
def test_an_option_takes_several_values_at_once(line):
    given = verb.main(line.split(), standalone_mode=False)
    data = DataSets(["mitos14:DIR"], ["H04", "H05"], ["H03"], None, False)
    assert given == {"data": data, "flag": False}


def test_what_begins_with_a_dash_is_no_value():
    given = verb.main(["x:y", "--cases", "a", "b", "--flag"], standalone_mode=False)
    assert given["data"].cases == ["a", "b"] and given["flag"]
    with pytest.raises(click.UsageError, match="No such option"):
        verb.main(["x:y", "--cases", "a", "--nothing"], standalone_mode=False)


def test_choices_are_those_of_the_code_that_is_not_imported_at_start():
    assert tuple(RULES) == options.RULES
    assert DEVICES == options.DEVICES
