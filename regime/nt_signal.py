"""Signals as NT custom data. NT inspects the annotations, so this module must not postpone them."""

from nautilus_trader.core.data import Data
from nautilus_trader.model.custom import customdataclass
from nautilus_trader.model.data import DataType
from nautilus_trader.model.identifiers import InstrumentId

from regime.signal import BarRejected, Direction, Level, Reason, Signal, VolatilityState


@customdataclass
class RegimeSignal(Data):
    """A :class:`~regime.signal.Signal` on NT's message bus; ``reasons`` are joined by commas."""

    instrument_id: InstrumentId
    direction: str
    volatility_state: str
    confidence: float
    uncertainty: float
    expected_return: float
    interval_low: float
    interval_high: float
    bar_interval_low: float
    bar_interval_high: float
    realised_volatility: float
    forecast_volatility: float
    transition_probability: float
    level: int
    reasons: str
    checkpoint_id: str


@customdataclass
class RegimeBarRejected(Data):
    """A :class:`~regime.signal.BarRejected` on NT's message bus."""

    instrument_id: InstrumentId
    why: str


def signal_type(instrument_id: InstrumentId) -> DataType:
    """What to subscribe to for the signals of one instrument."""
    return DataType(RegimeSignal, metadata={"instrument_id": instrument_id.value})


def rejection_type(instrument_id: InstrumentId) -> DataType:
    """What to subscribe to for the rejected bars of one instrument."""
    return DataType(RegimeBarRejected, metadata={"instrument_id": instrument_id.value})


def to_nautilus(signal: Signal, instrument_id: InstrumentId) -> RegimeSignal:
    """The same signal for the bus."""
    return RegimeSignal(
        ts_event=signal.ts_event,
        ts_init=signal.ts_init,
        instrument_id=instrument_id,
        direction=signal.direction.value,
        volatility_state=signal.volatility_state.value,
        confidence=signal.confidence,
        uncertainty=signal.uncertainty,
        expected_return=signal.expected_return,
        interval_low=signal.interval_low,
        interval_high=signal.interval_high,
        bar_interval_low=signal.bar_interval_low,
        bar_interval_high=signal.bar_interval_high,
        realised_volatility=signal.realised_volatility,
        forecast_volatility=signal.forecast_volatility,
        transition_probability=signal.transition_probability,
        level=int(signal.level),
        reasons=",".join(signal.reasons),
        checkpoint_id=signal.checkpoint_id,
    )


def from_nautilus(data: RegimeSignal) -> Signal:
    """Back from the bus. Raises ValueError for a direction, state, level or reason that does not exist."""
    return Signal(
        instrument_id=data.instrument_id.value,
        direction=Direction(data.direction),
        volatility_state=VolatilityState(data.volatility_state),
        confidence=data.confidence,
        uncertainty=data.uncertainty,
        expected_return=data.expected_return,
        interval_low=data.interval_low,
        interval_high=data.interval_high,
        bar_interval_low=data.bar_interval_low,
        bar_interval_high=data.bar_interval_high,
        realised_volatility=data.realised_volatility,
        forecast_volatility=data.forecast_volatility,
        transition_probability=data.transition_probability,
        level=Level(data.level),
        reasons=tuple(Reason(reason) for reason in data.reasons.split(",") if reason),
        checkpoint_id=data.checkpoint_id,
        ts_event=data.ts_event,
        ts_init=data.ts_init,
    )


def rejection_to_nautilus(rejected: BarRejected, instrument_id: InstrumentId) -> RegimeBarRejected:
    """The same event for the bus."""
    return RegimeBarRejected(
        ts_event=rejected.ts_event, ts_init=rejected.ts_init, instrument_id=instrument_id, why=rejected.why
    )
