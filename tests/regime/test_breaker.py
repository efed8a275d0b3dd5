"""The circuit breaker: opens for a reason, waits in bars, tries a little, and closes again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regime.config import BreakerConfig, RegimeConfig
from regime.errors import ForecastFailed
from regime.serving.breaker import BreakerState, CircuitBreaker
from regime.signal import Level, Reason, Signal
from tests.regime.streams import ScriptedForecaster, bars, detector, normal_forecast, signals_of

CONFIG = BreakerConfig(window_calls=10, minimum_calls=4, failure_rate=0.5, slow_rate=0.75, open_bars=7, probes=2)


def fed(*outcomes: str, config: BreakerConfig = CONFIG) -> CircuitBreaker:
    """A breaker that saw these calls at bars 0, 1, ...: ``ok``, ``failed`` or ``slow``."""
    breaker = CircuitBreaker(config)
    for bar, outcome in enumerate(outcomes):
        assert breaker.allows(bar)
        breaker.record(bar, failed=outcome == "failed", slow=outcome == "slow")
    return breaker


def test_a_breaker_opens_when_half_of_the_calls_failed() -> None:
    assert fed("ok", "failed", "ok").state is BreakerState.CLOSED
    assert fed("ok", "failed", "ok", "failed").state is BreakerState.OPEN


def test_a_breaker_opens_when_most_calls_are_slow_though_answered() -> None:
    assert fed("slow", "slow", "ok", "ok").state is BreakerState.CLOSED
    assert fed("slow", "slow", "ok", "slow").state is BreakerState.OPEN


def test_too_few_calls_decide_nothing() -> None:
    assert fed("failed", "failed", "failed").state is BreakerState.CLOSED


def test_old_calls_are_forgotten() -> None:
    assert fed(*["failed", "ok", "ok", "ok"], *["ok"] * 9, "failed", "failed").state is BreakerState.CLOSED


def test_an_open_breaker_lets_nothing_through_until_its_wait_is_over() -> None:
    breaker = fed("failed", "failed", "failed", "failed")
    assert [breaker.allows(bar) for bar in range(4, 10)] == [False] * 6
    assert breaker.allows(10)
    assert breaker.state is BreakerState.HALF_OPEN


def test_a_half_open_breaker_closes_after_good_probes_and_begins_to_count_anew() -> None:
    breaker = fed("failed", "failed", "failed", "failed")
    for bar in (10, 11):
        assert breaker.allows(bar)
        breaker.record(bar, failed=False, slow=False)
    assert breaker.state is BreakerState.CLOSED
    for bar in (12, 13, 14):
        breaker.record(bar, failed=True, slow=False)
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("outcome", ["failed", "slow"])
def test_one_bad_probe_opens_it_again_for_the_whole_wait(outcome: str) -> None:
    breaker = fed("failed", "failed", "failed", "failed")
    assert breaker.allows(10)
    breaker.record(10, failed=outcome == "failed", slow=outcome == "slow")
    assert not breaker.allows(16)
    assert breaker.allows(17)
    assert breaker.times_opened == 2


outcomes = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 5)), max_size=200)


@given(outcomes)
def test_whatever_happens_a_breaker_tries_again_within_its_wait_and_probes_are_bounded(
    story: list[tuple[bool, bool, int]],
) -> None:
    breaker, bar, refused_since, probes = CircuitBreaker(CONFIG), 0, None, 0
    for failed, slow, step in story:
        bar += step
        if not breaker.allows(bar):
            refused_since = bar if refused_since is None else refused_since
            assert bar - refused_since < CONFIG.open_bars
            probes = 0
            continue
        refused_since = None
        probes = probes + 1 if breaker.state is BreakerState.HALF_OPEN else 0
        assert probes <= CONFIG.probes
        breaker.record(bar, failed=failed, slow=slow)


def test_a_model_that_fails_is_left_alone_and_asked_again_later() -> None:
    config = RegimeConfig(breaker=CONFIG)

    def script(call: int, horizon: int) -> object:
        # Well for 60 calls, then ill until the breaker has opened and tried it once.
        if 60 < call <= 70:
            raise ForecastFailed(Reason.TIMEOUT)
        return normal_forecast(horizon)

    model = ScriptedForecaster(script)  # type: ignore[arg-type]
    signals = signals_of(detector(model, config), bars(32 + 60 + 60))[32 + 59 :]
    failing = [signal for signal in signals if signal.level is Level.SMART]
    assert {reason for signal in failing for reason in signal.reasons} == {Reason.TIMEOUT, Reason.BREAKER_OPEN}
    assert model.calls < 130
    assert signals[-1].level is not Level.SMART


def test_forecasts_that_are_known_need_no_closed_breaker() -> None:
    class Known:
        checkpoint_id = ScriptedForecaster.checkpoint_id

        def get(self, window: bytes) -> object:
            return normal_forecast(16) if window else None

    subject = detector(None)
    subject._store = Known()  # type: ignore[assignment]
    subject.state.breaker._open(0)
    levels = {signal.level for signal in signals_of(subject, bars(80))[40:]}
    assert levels == {Level.BASIC}


def test_unsound_quantiles_with_a_usable_median_do_not_open_it() -> None:
    crossed = ScriptedForecaster(lambda call, horizon: normal_forecast(horizon)[:, ::-1])
    signals: list[Signal] = signals_of(detector(crossed), bars(150))
    assert signals[-1].level is Level.BASIC
    assert signals[-1].reasons == (Reason.CROSSED_QUANTILES,)
