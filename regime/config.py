"""Configuration of the regime path. Lengths are in bars, so the same values fit minutes and days."""

from __future__ import annotations

from dataclasses import dataclass, field

from regime.signal import Level


@dataclass(frozen=True)
class CalibrationConfig:
    """Adaptive conformal inference (Gibbs and Candes, 2021), on the whole and by group.

    ``miscoverage`` is the target share of returns outside the interval, ``step_size`` their gamma,
    ``volatility_step`` and ``hour_step`` how far an outcome moves the logarithms of its groups' factors; the newest
    ``window_scores`` scores are kept, and level FULL needs ``min_scores`` of them.
    """

    miscoverage: float = 0.10
    step_size: float = 0.0005
    volatility_step: float = 0.0075
    hour_step: float = 0.01
    window_scores: int = 1000
    min_scores: int = 100


@dataclass(frozen=True)
class ClassifierConfig:
    """When a regime begins and ends.

    What drifts and the two volatility states are like is learned with a memory of ``reference_bars``. A volatility
    state ends when the other is more likely by ``band``, in logarithms of the odds relative to their long-run odds; a
    direction when another is more likely by ``direction_band``. Nothing ends before it has lasted ``least_bars`` bars.
    ``forecast_weight`` is what a level's own view of the trend adds to the odds, a z-score over ``trend_span_bars``.
    The EWMA volatility with ``volatility_decay`` is the yardstick of forecasts and returns.
    """

    trend_span_bars: int = 128
    forecast_weight: float = 0.1
    direction_band: float = 0.3
    volatility_decay: float = 0.94
    reference_bars: int = 2000
    band: float = 0.35
    least_bars: int = 2


@dataclass(frozen=True)
class BreakerConfig:
    """When the model is no longer asked, and for how long.

    The breaker opens when, of the last ``window_calls`` calls (at least ``minimum_calls``), a share of
    ``failure_rate`` failed or of ``slow_rate`` was slow: took more than ``slow_share`` of the deadline; without a
    deadline no call is slow. After ``open_bars`` accepted bars it lets ``probes`` calls through, one a bar, and
    closes if all are good.
    """

    window_calls: int = 20
    minimum_calls: int = 10
    failure_rate: float = 0.5
    slow_rate: float = 0.8
    slow_share: float = 0.9
    open_bars: int = 30
    probes: int = 3


@dataclass(frozen=True)
class HealthConfig:
    """When the model is worse than none.

    Every ``check_every_bars`` the losses of the last ``window_bars`` bars are looked at, and those of the last
    ``recent_bars``, without which there is nothing to be said. For the model to be found unhealthy, the relative
    excess over the baseline must surely exceed ``excess_limit`` at ``sustained_checks`` in a row; for it to be well
    again, that of the recent bars must surely fall short of it as often.
    """

    window_bars: int = 1000
    recent_bars: int = 250
    check_every_bars: int = 25
    excess_limit: float = 0.02
    sustained_checks: int = 3


@dataclass(frozen=True)
class DriftConfig:
    """When inputs or forecast errors have become another thing.

    The index of the last ``recent_bars`` against the ``reference_bars`` before them (from ``min_reference_bars`` on)
    is looked at every ``check_every_bars``; bins and critical value are found anew every ``recut_every_bars``. It is
    drift when the index exceeds what ``significance`` of undisturbed windows exceed at ``sustained_checks`` in a row,
    and none any more when it falls short as often. ``adwin_delta`` is the confidence parameter of ADWIN.
    """

    reference_bars: int = 8000
    min_reference_bars: int = 2000
    recent_bars: int = 250
    check_every_bars: int = 25
    recut_every_bars: int = 250
    significance: float = 0.001
    sustained_checks: int = 3
    adwin_delta: float = 0.0005


@dataclass(frozen=True)
class RegimeConfig:
    """The detector: its window, its levels' preconditions and its deadline.

    ``closure_seconds`` is the longest time for which the market may be closed without leaving a gap: 0 for one
    that never closes. A gap of more than ``max_gap_bars`` beyond that, or ``max_rejects`` rejected bars in a row,
    make the window unusable. ``deadline_ms`` of 0 waits for the model, at most ``hang_limit_s``. With ``seasonal``
    the model sees intraday returns without the season of the day, and its forecasts get it back.
    """

    context_bars: int = 512
    horizon_bars: int = 16
    model_min_bars: int = 32
    smart_min_bars: int = 64
    simple_min_bars: int = 3
    max_gap_bars: int = 24
    closure_seconds: int = 0
    max_rejects: int = 3
    history_regimes: int = 100
    deadline_ms: float = 0.0
    reserve_ms: float = 3.0
    hang_limit_s: float = 30.0
    seasonal: bool = True
    pinned_level: Level | None = None
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
