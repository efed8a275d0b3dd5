"""What a run leaves: the raw material of its results."""

from __future__ import annotations

from dataclasses import dataclass, field

from data.market import Market
from regime.alerts import Alert
from regime.detector import Timing
from regime.errors import UserCodeRaised
from regime.forecast import KnownForecasts
from regime.importing import Source
from regime.model.checkpoint import Checkpoint
from regime.signal import BarRejected, Signal
from sage.bookkeeper import OrderStep
from sage.config import BacktestConfig
from sage.costs import CostRates
from sage.ensemble import Ensemble
from sage.ledger import BookEntry, Ledger
from sage.liquidity import VolumeLimit
from sage.model import runs_online
from sage.strategy import SentOrder


class BacktestFailed(Exception):
    """The run itself went wrong inside NT: exit code 6. ``run`` is what there was by then."""

    def __init__(self, message: str, run: BacktestRun) -> None:
        super().__init__(message)
        self.run = run


@dataclass(frozen=True)
class OrderRecord:
    """One order as it ended; ``side`` is +1 for buys and -1 for sells."""

    order_id: str
    ts_ns: int
    side: int
    quantity: float
    filled_quantity: float
    status: str


@dataclass
class BacktestRun:
    """Everything that a run left: the raw material of its results.

    ``own`` are the user's classes that took part. ``stopped`` is what one of them raised, where that ended the run:
    then everything here reaches up to that bar.
    """

    config: BacktestConfig
    market: Market
    checkpoint: Checkpoint | None
    model_error: str
    engine_name: str
    signals: list[Signal] = field(default_factory=list)
    rejections: list[BarRejected] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    answer_stamps: list[int] = field(default_factory=list)
    book: list[BookEntry] = field(default_factory=list)
    orders: list[OrderRecord] = field(default_factory=list)
    order_steps: list[OrderStep] = field(default_factory=list)
    sent_orders: list[SentOrder] = field(default_factory=list)
    refused_orders: list[tuple[int, str, str]] = field(default_factory=list)
    volume_limit: VolumeLimit = field(default_factory=lambda: VolumeLimit(0.0))
    ignored_signals: dict[str, int] = field(default_factory=dict)
    forecast_failures: dict[str, int] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=lambda: Ledger(0.0))
    ensemble: Ensemble | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    model_peak_rss_bytes: int = 0
    model_restarts: int = 0
    breaker_opened: int = 0
    forecasts_computed: int = 0
    forecasts_reused: int = 0
    notes: list[str] = field(default_factory=list)
    known: KnownForecasts | None = None
    own: dict[str, Source] = field(default_factory=dict)
    stopped: UserCodeRaised | None = None
    alerts: list[Alert] = field(default_factory=list)
    allow_short: bool = False
    trade_from_ns: int = 0
    nautilus_equity: float = 0.0

    @property
    def cost_rates(self) -> CostRates:
        """What trading and holding cost in this run; a strategy of the user's own may go short wherever it likes."""
        allow_short = self.allow_short or self.config.own.strategy is not None
        return CostRates.of(self.config.costs, self.market, allow_short=allow_short)

    @property
    def forecasts_made(self) -> str:
        """Which path the forecasts took: ``ahead`` in batches, ``online`` bar by bar, or ``none``."""
        if self.checkpoint is None or self.model_error:
            return "none"
        return "online" if runs_online(self.config) else "ahead"
