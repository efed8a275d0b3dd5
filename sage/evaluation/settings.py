"""What is evaluated on what, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from data.errors import OptionError
from regime.model.checkpoint import EMBEDDED
from regime.model.engines import EngineSpec


@dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated on what.

    Bars come from ``source``, or with ``catalog`` from there: ``instruments`` (all when empty), of size ``bar``
    (every one held when None). The newest ``forecasts`` of each count. Baselines see ``warm_up_bars`` returns before
    their first forecast and fit to at most ``window_bars``, again every ``refit_bars``. ``out`` keeps finished
    instruments for a rerun.
    """

    source: str = "synthetic"
    catalog: Path | None = None
    instruments: tuple[str, ...] = ()
    bar: str | None = None
    start: str | None = None
    end: str | None = None
    model: str = EMBEDDED
    engine: EngineSpec = field(default_factory=EngineSpec)
    forecasts: int = 9_000
    context_bars: int = 512
    horizon_bars: int = 16
    warm_up_bars: int = 2_000
    window_bars: int = 4_000
    refit_bars: int = 1_500
    replications: int = 1_000
    seed: int = 7
    out: Path | None = None

    @property
    def forecasts_min(self) -> int:
        """Fewer forecasts than this give no error worth the name."""
        return 10 * self.horizon_bars


def check(config: EvaluationConfig) -> None:
    """Raise OptionError for numbers that make no sense."""
    for holds, message in (
        (1 <= config.horizon_bars <= 512, "--horizon must lie between 1 and 512"),
        (32 <= config.context_bars <= 4096, "--context must lie between 32 and 4096"),
        (config.forecasts >= config.forecasts_min, f"--forecasts must be at least {config.forecasts_min}"),
        (config.warm_up_bars >= 500 + config.horizon_bars, "--warm-up must be 500 bars and the horizon, at least"),
        (config.window_bars >= 500 + config.horizon_bars, "--window must be 500 bars and the horizon, at least"),
        (config.refit_bars >= 1, "--refit must be 1 or more"),
        (config.replications >= 100, "the bootstrap needs 100 replications or more"),
        (config.seed >= 0, "--seed must not be negative"),
        (config.engine.threads >= 1, "--threads must be 1 or more"),
    ):
        if not holds:
            raise OptionError(message)
    if config.catalog is None:
        if config.source not in {"synthetic", "sp500"}:
            raise OptionError(f"--data {config.source}: must be synthetic or sp500; for ingested bars: --catalog DIR")
        for option in ("instruments", "bar", "start", "end"):
            if getattr(config, option):
                raise OptionError(f"--{option.rstrip('s')} goes with --catalog, not with --data {config.source}")
