"""What a latency measurement is asked for, and what it found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from data.errors import OptionError
from regime.config import RegimeConfig
from regime.model.checkpoint import EMBEDDED, Checkpoint
from regime.model.engines import EngineKind, EngineSpec
from regime.model.weights import ARCHITECTURES
from regime.serving.protocol import MAX_CONTEXT_BARS, MAX_HORIZON_BARS, MAX_ROWS
from regime.signal import Level
from sage.percentiles import Latencies, answers_needed

MODEL_SHARE_MIN = 0.99
"""So many of the answers must be the model's: a target that the fallback levels keep in its place is not kept."""


@dataclass(frozen=True)
class LatencyConfig:
    """What to measure. ``deadline_ms`` of 0 lets every forecast take its time, and shows how long that is."""

    engines: tuple[EngineKind, ...] = ("auto",)
    engine: EngineSpec = field(default_factory=EngineSpec)
    model: str = EMBEDDED
    architecture: str | None = None
    context_bars: int = 512
    horizon_bars: int = 16
    rate_hz: float = 20.0
    seconds: float = 60.0
    slo_ms: float = 50.0
    deadline_ms: float = 0.0
    background: int = 0
    batch_rows: int = 0
    seed: int = 7


@dataclass
class EngineLatency:
    """What was measured of one engine.

    ``latency`` counts from when a bar was due, ``model_call`` is the forecast alone. ``samples`` holds (seconds into
    the run, latency in ms) for the picture. ``unanswered`` bars were due and never sent, because those before them
    took too long; they are in ``latency`` with the time that they had waited. ``over_slo`` and ``missed_deadlines``
    count the bars that took longer than promised, and than was enforced. ``calls`` holds the seconds of model calls
    made one after the other, by the number of windows in each.
    """

    kind: EngineKind
    name: str = ""
    note: str = ""
    latency: Latencies = field(default_factory=Latencies)
    model_call: Latencies = field(default_factory=Latencies)
    levels: Counter[Level] = field(default_factory=Counter)
    samples: list[tuple[float, float]] = field(default_factory=list)
    unanswered: int = 0
    over_slo: int = 0
    missed_deadlines: int = 0
    measured_s: float = 0.0
    turns_s: float = 0.0
    model_cpu_s: float = 0.0
    trading_cpu_s: float = 0.0
    model_rss_bytes: int = 0
    trading_rss_bytes: int = 0
    calls: dict[int, list[float]] = field(default_factory=dict)

    @property
    def model_share(self) -> float | None:
        """The share of all answers that the model's forecast was in time for: those at levels FULL and BASIC."""
        answers = self.levels.total()
        return (self.levels[Level.FULL] + self.levels[Level.BASIC]) / answers if answers else None

    @property
    def model_in_time(self) -> bool:
        """False where so many answers were not the model's that a p99 of any run this short would have missed them."""
        others = self.levels.total() - self.levels[Level.FULL] - self.levels[Level.BASIC]
        return others <= (1.0 - MODEL_SHARE_MIN) * max(self.levels.total(), answers_needed(99.0))

    @property
    def achieved_rate_hz(self) -> float:
        """Answers per second of the time in which they were due or awaited."""
        return (len(self.latency) - self.unanswered) / self.measured_s if self.measured_s else 0.0


@dataclass
class LatencyReport:
    """A whole measurement; ``checkpoint`` names the weights that were run."""

    config: LatencyConfig
    checkpoint: Checkpoint
    engines: list[EngineLatency]
    fallback: dict[Level, Latencies]
    largest_difference_sd: float | None = None

    @property
    def judged(self) -> EngineLatency:
        """The engine whose p99 decides: the first; the stock one is there to be compared with."""
        return self.engines[0]

    @property
    def verdict(self) -> str:
        """``met``, ``missed`` or, where the run was too short for a p99, ``undecided``.

        A fallback level is always in time: where the model itself was not for 99 of 100 bars, it is missed.
        """
        p99 = self.judged.latency.at(99.0)
        if not self.judged.model_in_time:
            return "missed"
        if p99 is None:
            return "undecided"
        return "met" if p99 <= self.config.slo_ms else "missed"

    @property
    def ratio(self) -> float | None:
        """How many times longer a model call of a single window takes the second engine, median by median."""
        return self._ratio(1)

    @property
    def batch_ratio(self) -> float | None:
        """The same for batches."""
        return self._ratio(self.config.batch_rows)

    def _ratio(self, rows: int) -> float | None:
        if len(self.engines) < 2 or not all(engine.calls.get(rows) for engine in self.engines):
            return None
        return float(np.median(self.engines[1].calls[rows]) / np.median(self.engines[0].calls[rows]))


def check(config: LatencyConfig) -> None:
    """Refuse what cannot be measured. Raises OptionError naming the option."""
    finite = (config.rate_hz, config.seconds, config.slo_ms, config.deadline_ms)
    checks = (
        (bool(np.isfinite(finite).all()), "--rate, --seconds, --slo-ms and --deadline-ms must be finite"),
        (0 < config.rate_hz <= 10_000, "--rate must be more than 0, and 10000 bars a second at most"),
        (config.seconds > 0, "--seconds must be positive"),
        (config.rate_hz * config.seconds >= 1, "--rate times --seconds must make one bar at least"),
        (config.slo_ms > 0, "--slo-ms must be positive"),
        (config.deadline_ms == 0 or config.deadline_ms > RegimeConfig().reserve_ms,
         f"--deadline-ms must exceed the reserve of {RegimeConfig().reserve_ms:g} ms, or be 0 for none"),
        (RegimeConfig().model_min_bars <= config.context_bars <= MAX_CONTEXT_BARS,
         f"--context must lie between {RegimeConfig().model_min_bars} and {MAX_CONTEXT_BARS} bars"),
        (1 <= config.horizon_bars <= MAX_HORIZON_BARS, f"--horizon must lie between 1 and {MAX_HORIZON_BARS} bars"),
        (0 <= config.background <= 1024, "--background must lie between 0 and 1024 processes"),
        (0 <= config.batch_rows <= MAX_ROWS, f"--batch must lie between 0 and {MAX_ROWS} windows"),
        (config.engine.threads >= 1, "--threads must be 1 or more"),
        (config.seed >= 0, "--seed must not be negative"),
        (config.architecture is None or config.architecture in ARCHITECTURES,
         f"--architecture {config.architecture}: must be one of {', '.join(sorted(ARCHITECTURES))}"),
        (config.architecture is None or config.model == EMBEDDED, "--model and --architecture exclude each other"),
    )  # fmt: skip
    for holds, message in checks:
        if not holds:
            raise OptionError(message)
