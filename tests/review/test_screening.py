"""Fields cover an area, lie beside each other, and an area that was seen is known to be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmitos.errors import DataError
from segmitos.review.screening import area_mm2, covers, is_seen, screening_fields

SIZE = (10_000, 8_000)


def box(x0, y0, x1, y1):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 8000), st.integers(0, 6000), st.integers(10, 4000), st.integers(10, 4000),
    st.integers(300, 2000), st.integers(300, 2000),
)  # fmt: skip
def test_fields_cover_the_area_and_overlap_by_a_tenth(x, y, width, height, across, down):
    area = box(x, y, min(x + width, 9999.5), min(y + height, 7999.5))
    fields = screening_fields([area], (across, down), SIZE)
    assert covers([box(*field) for field in fields], area)
    for one, other in itertools.pairwise(fields):
        # The next field is beside the last, or below it.
        step = np.abs(np.array(other[:2]) - one[:2])
        assert (step <= 0.9 * np.array([across, down]) + 1e-6).all()
        assert np.count_nonzero(step > 1e-6) == 1


def test_fields_that_do_not_touch_the_area_are_left_out():
    corner = [(0.0, 0.0), (4000.0, 0.0), (0.0, 4000.0)]
    fields = screening_fields([corner], (400, 400), SIZE)
    assert len(fields) < 0.7 * len(screening_fields([box(0, 0, 4000, 4000)], (400, 400), SIZE))
    assert covers([box(*field) for field in fields], corner)


def test_too_many_fields_are_refused():
    with pytest.raises(DataError, match="too many"):
        screening_fields([box(0, 0, 9999, 7999)], (20, 20), SIZE)


def test_a_field_is_seen_when_fields_of_any_size_cover_it():
    assert is_seen([100, 100, 200, 200], [box(0, 0, 150, 300), box(140, 0, 300, 300)])
    assert not is_seen([100, 100, 200, 200], [box(0, 0, 150, 300)])
    assert not is_seen([100, 100, 200, 200], [])


def test_areas_that_overlap_count_once():
    assert area_mm2([box(0, 0, 2000, 1000), box(1000, 0, 3000, 1000)], 0.5) == pytest.approx(0.75)
    assert area_mm2([], 0.5) == 0
    assert covers([box(0, 0, 60, 100), box(50, 0, 100, 100)], box(0, 0, 100, 100))
    assert not covers([box(0, 0, 50, 100)], box(0, 0, 100, 100))
