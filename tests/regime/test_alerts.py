"""An alert is raised once and cleared once, and a run tells of both."""

from __future__ import annotations

import dataclasses

from regime.alerts import AlertBook, Severity
from regime.config import CalibrationConfig, HealthConfig, RegimeConfig
from regime.signal import Reason
from tests.regime.streams import ScriptedForecaster, bars, detector, normal_forecast, signals_of


def test_an_alert_is_written_down_when_it_comes_and_when_it_goes_and_not_in_between() -> None:
    book, asked = AlertBook(), []

    def told() -> str:
        asked.append(1)
        return "so it is"

    for ts, on in enumerate([False, True, True, True, False, False, True]):
        book.report(ts, "model.health", Severity.HIGH, on, told)
    assert [(alert.ts_ns, alert.raised) for alert in book.log] == [(1, True), (4, False), (6, True)]
    assert list(book.active) == ["model.health"]
    assert len(asked) == len(book.log)


def test_alerts_of_different_names_do_not_mind_each_other() -> None:
    book = AlertBook()
    book.report(1, "a", Severity.HIGH, True, str)
    book.report(2, "b", Severity.MEDIUM, True, str)
    book.report(3, "a", Severity.HIGH, False, str)
    assert [alert.name for alert in book.log] == ["a", "b", "a"]
    assert list(book.active) == ["b"]


def test_a_model_that_goes_bad_and_is_mended_raises_one_alert_and_clears_it() -> None:
    config = RegimeConfig(
        context_bars=64, horizon_bars=4, calibration=CalibrationConfig(min_scores=20),
        health=HealthConfig(window_bars=400, recent_bars=100, check_every_bars=10),
    )  # fmt: skip
    script = lambda call, horizon: normal_forecast(horizon, 0.04 if 200 < call < 500 else 0.01)  # noqa: E731
    subject = detector(ScriptedForecaster(script), config)
    found = signals_of(subject, bars(900))
    unhealthy = [signal.ts_event for signal in found if Reason.UNHEALTHY in signal.reasons]
    log = [alert for alert in subject.state.alerts.log if alert.name == "model.health"]
    assert [alert.raised for alert in log] == [True, False]
    assert log[0].severity is Severity.HIGH
    assert "moving volatility" in log[0].detail
    assert log[0].ts_ns == unhealthy[0]
    assert log[1].ts_ns > unhealthy[-1]


def test_a_breaker_that_opens_is_told_of() -> None:
    def failing(call: int, horizon: int) -> object:
        if call < 12:
            raise RuntimeError
        return normal_forecast(horizon)

    subject = detector(ScriptedForecaster(failing))  # type: ignore[arg-type]
    signals_of(subject, bars(200))
    log = [alert for alert in subject.state.alerts.log if alert.name == "model.breaker"]
    assert [alert.raised for alert in log] == [True, False]
    assert dataclasses.asdict(log[0])["severity"] == "HIGH"
