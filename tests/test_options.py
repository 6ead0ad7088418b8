"""Options that several verbs share, as a shell gives them."""

from __future__ import annotations

import click
import pytest

from segmitos import options
from segmitos.detection.model import DEVICES
from segmitos.evaluation.matching import RULES
from segmitos.options import cases_option, data_argument, exclude_option


@click.command()
@data_argument
@cases_option
@exclude_option
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
    expected = {"data": ["mitos14:DIR"], "cases": ["H04", "H05"], "exclude": ["H03"]}
    assert given == expected | {"flag": False}


def test_what_begins_with_a_dash_is_no_value():
    given = verb.main(["x:y", "--cases", "a", "b", "--flag"], standalone_mode=False)
    assert given["cases"] == ["a", "b"] and given["flag"]
    with pytest.raises(click.UsageError, match="No such option"):
        verb.main(["x:y", "--cases", "a", "--nothing"], standalone_mode=False)


def test_choices_are_those_of_the_code_that_is_not_imported_at_start():
    assert tuple(RULES) == options.RULES
    assert DEVICES == options.DEVICES
