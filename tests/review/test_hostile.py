"""Hostile requests, some hundred; `python -m tests.fuzz.hostile` sends ten thousand."""

from __future__ import annotations

import pytest

pytest.importorskip("schemathesis")


@pytest.mark.slow
def test_hostile_requests_give_no_500_open_no_file_and_lose_no_event(tmp_path):
    from tests.fuzz.hostile import attacked

    attack = attacked(tmp_path, 600, seed=1)
    assert not attack.failures, attack.failures[:5]
    assert attack.sent > 500 and sum(map(len, attack.acknowledged.values())) > 30
    # It got past the guard and the decoder often enough to have tried something.
    assert attack.statuses[200] > 50 and attack.statuses[400] > 50
