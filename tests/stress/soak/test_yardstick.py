"""The fixed piece of work by which a soak knows how fast its machine is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from stress.soak import yardstick
from stress.soak.yardstick import Yardstick


def test_one_wait_for_a_core_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.002, 1.0, 1.5, 2.0, 2.001])
    monkeypatch.setattr(yardstick, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    assert Yardstick().measure_ms() == pytest.approx(1.0)


def test_the_work_is_the_same_each_time() -> None:
    work = Yardstick()
    assert 0.0 < work.measure_ms() < 1_000.0
    assert (work._values == Yardstick()._values).all()
