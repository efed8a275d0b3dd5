"""One bar in, one signal out: the whole regime path, free of NT and of torch.

Backtests, latency benchmarks, fault injection and soaks all drive this class, so what they judge is what trades.
"""

from __future__ import annotations

import copy
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from regime import fallback
from regime.alerts import AlertBook, Severity
from regime.calibration import ConformalCalibrator, Outlook
from regime.classifier import EwmaVolatility, RegimeClassifier, TrendFilter
from regime.config import RegimeConfig
from regime.drift import DriftMonitor
from regime.errors import ForecastFailed
from regime.fallback import Evidence, ForecastResult
from regime.forecast import Context, Forecast, Forecaster, KnownForecasts, window_key
from regime.health import HealthMonitor
from regime.ranges import Ranges
from regime.serving.breaker import BreakerState, CircuitBreaker
from regime.signal import BarRejected, Level, Reason, Signal
from regime.window import BarInput, BarWindow

Stopwatch = Callable[[], float]
"""Seconds that pass, from any origin; handed in, so that a simulation can hand in its own."""


@dataclass(frozen=True)
class Timing:
    """How long one bar took, and where its forecast came from (``model``, ``store`` or ``none``)."""

    source: str
    total_ms: float
    model_ms: float


@dataclass
class DetectorState:
    """All that a detector remembers from bar to bar."""

    window: BarWindow
    calibrator: ConformalCalibrator
    classifier: RegimeClassifier
    trend: TrendFilter
    volatility: EwmaVolatility
    ranges: Ranges
    history: deque[Signal]
    breaker: CircuitBreaker
    health: HealthMonitor
    drift: DriftMonitor
    alerts: AlertBook
    accepted_bars: int = 0
    rejected_bars: int = 0
    realised_trend: float = 0.0
    failures: Counter[Reason] = field(default_factory=Counter)


class Detector:
    """Turns bars into signals.

    Parameters
    ----------
    config
        Lengths, levels and deadline.
    instrument_id
        Goes into every signal.
    bar_seconds
        Length of a bar.
    forecaster
        The model, or None where there is none: the chain then answers from level SMART on.
    store
        Forecasts made ahead, if this run may read any.
    stopwatch
        Measures deadlines; ``time.perf_counter`` unless simulated.
    """

    def __init__(
        self,
        config: RegimeConfig,
        instrument_id: str,
        bar_seconds: int,
        forecaster: Forecaster | None,
        store: KnownForecasts | None = None,
        stopwatch: Stopwatch = time.perf_counter,
    ) -> None:
        self.config = config
        self.last_timing = Timing("none", 0.0, 0.0)
        self._instrument_id = instrument_id
        self._forecaster = forecaster
        self._store = store
        self._stopwatch = stopwatch
        self._state = DetectorState(
            window=BarWindow(config, bar_seconds),
            calibrator=ConformalCalibrator(config.calibration, config.horizon_bars),
            classifier=RegimeClassifier(config.classifier),
            trend=TrendFilter(config.classifier.trend_span_bars),
            volatility=EwmaVolatility(config.classifier.volatility_decay),
            ranges=Ranges(),
            history=deque(maxlen=config.history_regimes),
            breaker=CircuitBreaker(config.breaker),
            health=HealthMonitor(config.health, config.horizon_bars),
            drift=DriftMonitor(config.drift),
            alerts=AlertBook(),
        )

    @property
    def state(self) -> DetectorState:
        """What is remembered, itself and not a copy: for reports, and for rigs that damage it."""
        return self._state

    @property
    def failures(self) -> Counter[Reason]:
        """Forecasts that were asked for and did not come, by reason."""
        return self._state.failures

    def snapshot(self) -> DetectorState:
        """A copy of everything remembered, independent of what follows."""
        return copy.deepcopy(self._state)

    def restore(self, state: DetectorState) -> None:
        """Go on from a snapshot."""
        self._state = copy.deepcopy(state)

    def step(self, bar: BarInput) -> Signal | BarRejected:
        """Answer one bar: a signal if it is accepted, the reason if not. Raises nothing for any bar."""
        started = self._stopwatch()
        state = self._state
        why = state.window.accept(bar)
        if why is not None:
            state.rejected_bars += 1
            self.last_timing = Timing("none", 1e3 * (self._stopwatch() - started), 0.0)
            return BarRejected(self._instrument_id, why, bar.ts_ns, bar.ts_ns)
        state.accepted_bars += 1
        self._take_in(bar)
        forecast, source, model_ms = self._forecast(started)
        volatility = state.volatility.value
        if isinstance(forecast, ForecastFailed):
            outlook: Outlook | Reason = forecast.reason
        else:
            window = state.window
            outlook = Outlook.of(forecast, volatility, state.ranges, window.outlook(), window.hours_ahead())
        evidence = Evidence(
            config=self.config,
            window=state.window,
            forecast=forecast,
            outlook=outlook,
            calibrator=state.calibrator,
            classifier=state.classifier,
            realised_trend=state.realised_trend,
            realised_volatility=volatility,
            history=state.history,
            unhealthy=state.health.unhealthy,
        )
        level, answer, reasons = fallback.answer(evidence)
        signal = Signal(
            instrument_id=self._instrument_id,
            direction=answer.regime.direction,
            volatility_state=answer.regime.volatility_state,
            confidence=answer.confidence,
            uncertainty=answer.uncertainty,
            expected_return=answer.expected_return,
            interval_low=answer.interval[0],
            interval_high=answer.interval[1],
            bar_interval_low=answer.bar_interval[0],
            bar_interval_high=answer.bar_interval[1],
            realised_volatility=volatility,
            forecast_volatility=answer.forecast_volatility,
            transition_probability=answer.regime.transition_probability,
            level=level,
            reasons=tuple(self._in_context(reason) for reason in reasons),
            checkpoint_id=self._checkpoint_id() if level <= Level.BASIC else "",
            ts_event=bar.ts_ns,
            ts_init=bar.ts_ns,
        )
        if isinstance(outlook, Outlook) and isinstance(forecast, Forecast):
            # A sound forecast is entered for scoring, whichever level answered.
            state.calibrator.await_outcome(state.accepted_bars, math.log(bar.close), outlook)
            state.health.await_outcome(state.accepted_bars, forecast.quantiles, volatility)
            state.drift.await_outcome(forecast.quantiles[0])
        state.history.append(signal)
        self._report(bar.ts_ns)
        self.last_timing = Timing(source, 1e3 * (self._stopwatch() - started), model_ms)
        return signal

    def _take_in(self, bar: BarInput) -> None:
        """Bring volatility, its state, trend and matured scores up to this bar."""
        state = self._state
        if state.window.restarted_now:
            state.calibrator.forget_pending()
            state.classifier.restart()
            state.health.forget_pending()
            state.drift.forget_pending()
            return
        newest = float(state.window.returns.view(1)[0])
        # Standardised by the volatility known before this return.
        known = state.volatility.value
        standardised = newest / known if known > 0 else 0.0
        if known > 0:
            state.realised_trend = state.trend.update(standardised)
        state.health.observe(state.accepted_bars, newest, known)
        state.volatility.update(newest)
        state.ranges.update(bar.high, bar.low, bar.close / math.exp(newest), state.window.season_factor)
        shown = float(state.window.shown.view(1)[0])
        state.classifier.observe(shown, standardised)
        state.drift.observe(newest, shown)
        state.calibrator.observe(state.accepted_bars, newest, math.log(bar.close))

    def _report(self, ts_ns: int) -> None:
        """Let the book of alerts know how things stand."""
        state, report = self._state, self._state.alerts.report
        report(ts_ns, "model.health", Severity.HIGH, state.health.unhealthy, state.health.told)
        not_asked = state.breaker.state is not BreakerState.CLOSED
        report(ts_ns, "model.breaker", Severity.HIGH, not_asked, lambda: f"the breaker is {state.breaker.state}")
        for stream, monitor in state.drift.streams.items():
            report(ts_ns, f"drift.{stream}", Severity.MEDIUM, monitor.drifted, monitor.told)
        report(ts_ns, "drift.error_size", Severity.MEDIUM, state.drift.errors_changed, state.drift.told)

    def _forecast(self, started: float) -> tuple[ForecastResult, str, float]:
        """Ask the store, then the model; never longer than the deadline allows."""
        window = self._state.window
        if self.config.pinned_level is not None and self.config.pinned_level > Level.BASIC:
            return ForecastFailed(Reason.PINNED), "none", 0.0
        if not window.model_ready:
            short = window.usable_bars < self.config.model_min_bars
            return ForecastFailed(window.shortage() if short else Reason.NO_VARIANCE), "none", 0.0
        asked = self._stopwatch()
        source = "store"
        try:
            context = window.context()
            answer = self._store.get(window_key(context)) if self._store is not None else None
            if answer is None:
                source = "model" if self._forecaster is not None else "none"
                result: ForecastResult = self._ask_model(context, started)
            else:
                result = Forecast.of(answer, self.config.horizon_bars, window.outlook())
        except ForecastFailed as error:
            result = error
        except Exception as error:  # a store that breaks its promise costs the forecast, not the bar
            result = ForecastFailed(Reason.MODEL_ERROR, repr(error))
        if isinstance(result, ForecastFailed):
            self._state.failures[result.reason] += 1
            source = "none" if result.reason is Reason.BREAKER_OPEN else source
        return result, source, 1e3 * (self._stopwatch() - asked)

    def _ask_model(self, context: Context, started: float) -> Forecast:
        """Ask the model unless the breaker is open, for as long as the deadline leaves. Raises ForecastFailed."""
        forecaster, config, state = self._forecaster, self.config, self._state
        if forecaster is None:
            raise ForecastFailed(Reason.MODEL_UNAVAILABLE)
        if not state.breaker.allows(state.accepted_bars):
            raise ForecastFailed(Reason.BREAKER_OPEN)
        asked = self._stopwatch()
        timeout_s, slow_s = config.hang_limit_s, math.inf
        if config.deadline_ms:
            timeout_s = (config.deadline_ms - config.reserve_ms) / 1e3 - (asked - started)
            slow_s = config.breaker.slow_share * config.deadline_ms / 1e3
        failed = True
        try:
            answer = forecaster.forecast(context[None, :], config.horizon_bars, timeout_s)[0]
            forecast = Forecast.of(answer, config.horizon_bars, state.window.outlook())
            failed = False
            return forecast
        except ForecastFailed:
            raise
        except MemoryError as error:
            raise ForecastFailed(Reason.OUT_OF_MEMORY) from error
        except Exception as error:  # a user's own forecaster may raise anything; the bar still gets its signal
            raise ForecastFailed(Reason.MODEL_ERROR, repr(error)) from error
        finally:
            slow = self._stopwatch() - asked > slow_s
            state.breaker.record(state.accepted_bars, failed=failed, slow=slow)

    def _in_context(self, reason: Reason) -> Reason:
        """Scores that are few because the run is young are warm-up, not a fault."""
        state, config = self._state, self.config
        undisturbed = not state.failures and state.window.restart is None and not state.calibrator.restarts
        # The first score comes a horizon after the first forecast; whatever lacks later than this was lost.
        warm_up_bars = config.model_min_bars + config.horizon_bars + config.calibration.min_scores
        young = undisturbed and state.accepted_bars < warm_up_bars
        return Reason.WARM_UP if reason is Reason.FEW_SCORES and young else reason

    def _checkpoint_id(self) -> str:
        if self._forecaster is not None:
            return self._forecaster.checkpoint_id
        return self._store.checkpoint_id if self._store is not None else ""
