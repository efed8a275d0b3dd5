"""The regime path inside NT: bars in, one RegimeSignal per accepted bar out, before the strategy sees the bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from nautilus_trader.common.actor import Actor
from nautilus_trader.config import ActorConfig
from nautilus_trader.model.data import Bar, BarType

from regime import nt_signal
from regime.detector import Detector, Timing
from regime.recorded import RecordedDetector
from regime.signal import BarRejected, Signal
from regime.window import BarInput

Recorder = Callable[[Signal | BarRejected, Timing], None]
"""Gets every answer of the detector, with how long it took."""


class Interference(Protocol):
    """What may stand between bars, detector and strategy. NT itself refuses bad bars, so they are made behind it."""

    def bars(self, bar: BarInput) -> Sequence[BarInput]:
        """What the detector gets in the place of a bar."""

    def heard(self, answer: Signal | BarRejected) -> Signal | BarRejected:
        """What the strategy hears in the place of an answer."""


class RegimeActorConfig(ActorConfig, frozen=True):
    """Which bars to listen to."""

    bar_type: BarType


class RegimeActor(Actor):
    """Feeds bars to a detector and publishes what it answers.

    NT runs handlers synchronously, and publishing is synchronous too: the strategy has acted on a signal before
    ``on_bar`` returns.
    """

    def __init__(
        self,
        config: RegimeActorConfig,
        detector: Detector | RecordedDetector,
        recorder: Recorder | None = None,
        interference: Interference | None = None,
    ) -> None:
        super().__init__(config)
        self._bar_type = config.bar_type
        self._detector = detector
        self._recorder = recorder
        self._interference = interference
        self._instrument_id = config.bar_type.instrument_id
        self._signal_type = nt_signal.signal_type(self._instrument_id)
        self._rejection_type = nt_signal.rejection_type(self._instrument_id)

    def on_start(self) -> None:
        """Listen to the bars."""
        self.subscribe_bars(self._bar_type)

    def on_bar(self, bar: Bar) -> None:
        """Answer one bar."""
        if self._interference is None:
            self._publish(self._answer(bar_input(bar)))
            return
        for given in self._interference.bars(bar_input(bar)):
            self._publish(self._interference.heard(self._answer(given)))

    def _answer(self, bar: BarInput) -> Signal | BarRejected:
        answer = self._detector.step(bar)
        if self._recorder is not None:
            self._recorder(answer, self._detector.last_timing)
        return answer

    def _publish(self, answer: Signal | BarRejected) -> None:
        if isinstance(answer, Signal):
            self.publish_data(self._signal_type, nt_signal.to_nautilus(answer, self._instrument_id))
        else:
            rejected = nt_signal.rejection_to_nautilus(answer, self._instrument_id)
            self.publish_data(self._rejection_type, rejected)


def bar_input(bar: Bar) -> BarInput:
    """An NT bar as plain numbers."""
    return BarInput(
        ts_ns=bar.ts_init,
        open=bar.open.as_double(),
        high=bar.high.as_double(),
        low=bar.low.as_double(),
        close=bar.close.as_double(),
        volume=bar.volume.as_double(),
    )
