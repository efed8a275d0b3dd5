"""What a test rig may put in the place of parts of a run. The one here changes nothing; rigs derive from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from regime.config import RegimeConfig
from regime.detector import Detector
from regime.forecast import KnownForecasts
from regime.model.checkpoint import Checkpoint, find_checkpoint
from regime.model.engines import EngineChoice, EngineSpec, choose_engine
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from regime.signal import BarRejected, Signal
from regime.window import BarInput
from sage.ledger import Ledger
from sage.sizing import ExposurePolicy, SizingConfig
from sage.strategy import SageStrategy


@dataclass(frozen=True)
class Parts:
    """The parts of a run that is about to begin; ``client`` is None where there is no model."""

    detector: Detector
    client: ModelClient | None
    strategy: SageStrategy
    ledger: Ledger


class Rig:
    """Builds the parts of a run, and stands between them while it goes on."""

    def stopwatch(self) -> float:
        """Seconds that pass, for deadlines and back-off."""
        return time.perf_counter()

    def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint of this name. Raises ModelUnavailable."""
        return find_checkpoint(name)

    def engine(self, spec: EngineSpec) -> EngineChoice:
        """The engine that will run. Raises ModelUnavailable."""
        return choose_engine(spec)

    def client(self, checkpoint: Checkpoint, serving: ServingConfig) -> ModelClient:
        """The model's client, not yet started."""
        return ModelClient(checkpoint, serving, self.stopwatch)

    def detector(
        self,
        config: RegimeConfig,
        instrument_id: str,
        bar_seconds: int,
        client: ModelClient | None,
        known: KnownForecasts | None,
    ) -> Detector:
        """The detector."""
        return Detector(config, instrument_id, bar_seconds, client, known, self.stopwatch)

    def policy(self, config: SizingConfig, bars_per_year: float, *, allow_short: bool) -> ExposurePolicy:
        """What decides exposures."""
        return ExposurePolicy(config, bars_per_year, allow_short=allow_short)

    def built(self, parts: Parts) -> None:
        """Hear of the parts, before the first bar."""

    def bars(self, bar: BarInput) -> Sequence[BarInput]:
        """What the detector gets in the place of a bar: none, one or several."""
        return (bar,)

    def heard(self, answer: Signal | BarRejected) -> Signal | BarRejected:
        """What the strategy hears in the place of an answer; called after the answer was recorded."""
        return answer
