"""The model side of a run: which engine answers, what the forecast store knows, and whether a process is needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from data.bars import Bars
from data.errors import OptionError
from regime.config import RegimeConfig
from regime.errors import ModelUnavailable, UserCodeRaised
from regime.importing import NotUsable, Source
from regime.model.checkpoint import Checkpoint
from regime.model.engines import EngineChoice
from regime.serving.ahead import ALL, AheadForecasts, Share, forecast_ahead, missing_windows
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from regime.serving.process import OWN_ENGINE, launcher_of_own
from regime.serving.store import ForecastStore, StoreKey, default_root
from regime.window import BarInput
from sage.config import BacktestConfig
from sage.plugins import bars_frame, locate_plugin
from sage.progress import Progress
from sage.rig import Rig

WATCH_S = 0.25
"""How often the process of a run under a deadline is looked after, unless configured."""


class RunModel:
    """The model of one run.

    Its process is started when the first forecast is missing: a run whose forecasts are all kept needs none.
    ``notes`` collects what people should know: a slower engine, a store found damaged or not writable.
    """

    def __init__(self, config: BacktestConfig, client: ModelClient, choice: EngineChoice) -> None:
        self.client = client
        self.engine_name = choice.name
        self.notes: list[str] = [choice.note] if choice.note else []
        self.known = AheadForecasts(client.checkpoint_id, None)
        self.own: Source | None = None
        self.total = 0
        self._config = config
        self._store: ForecastStore | None = None
        self._bars_file: Path | None = None
        if config.model.store and not runs_online(config):
            self._open_store()

    @classmethod
    def open(cls, config: BacktestConfig, rig: Rig, stack: ExitStack) -> RunModel:
        """Find the checkpoint and its engine. Raises ModelUnavailable if there is none.

        A user's own forecaster is found instead where the run has one. Raises OptionError if there is none of its name.
        """
        if config.own.forecaster is not None:
            return cls._open_own(config, config.own.forecaster, rig, stack)
        checkpoint = rig.checkpoint(config.model.name)
        choice = rig.engine(config.serving.engine)
        serving = _serving(config, rig)
        client = stack.enter_context(rig.client(checkpoint, serving))
        model = cls(config, client, choice)
        if not len(model.known):
            # Sure to be needed: let it load while the bars are read.
            client.launch()
        return model

    @classmethod
    def _open_own(cls, config: BacktestConfig, spec: str, rig: Rig, stack: ExitStack) -> RunModel:
        source = locate_plugin("--forecaster", spec)
        bars_file = Path(stack.enter_context(TemporaryDirectory(prefix="sage-bars-"))) / "bars.parquet"
        serving = _serving(config, rig)
        launch = launcher_of_own(spec, Path.cwd(), bars_file)
        checkpoint = Checkpoint(spec, Path(source.file), source.sha256, None)
        client = stack.enter_context(ModelClient(checkpoint, serving, rig.stopwatch, launch))
        model = cls(config, client, EngineChoice("auto", OWN_ENGINE))
        model.own, model._bars_file = source, bars_file
        return model

    def start(self, bars: Bars, show: Progress) -> None:
        """Start the model process and wait for it.

        Raises
        ------
        ModelUnavailable
            If it cannot.
        OptionError, UserCodeRaised
            If a user's own forecaster is none, or raises when it is built.
        """
        show.stage("starting the model process", 1)
        if self._bars_file is not None:
            bars_frame(bars).to_parquet(self._bars_file)
        try:
            self.client.start()
        except ModelUnavailable as error:
            _raise_mistake(error)
            raise
        if self.client.engine != self.engine_name:
            # What the weights turned out to be decides; forecasts of another engine are not theirs.
            self.engine_name = self.client.engine
            if self._store is not None:
                self._open_store()
        self.notes = self.client.notes(self._config.regime.context_bars)
        deadline_ms, check_ms = self._config.regime.deadline_ms, self.client.check_ms
        if deadline_ms and check_ms is not None and check_ms > deadline_ms:
            self.notes.append(
                f"the start-up check took {check_ms:.0f} ms, the deadline is {deadline_ms:g} ms: most bars will be "
                "answered without the model"
            )
        show.advance(1)

    def count_missing(
        self, bars: Sequence[BarInput], regime: RegimeConfig, bar_seconds: int, share: Share = ALL
    ) -> int:
        """How many of the forecasts that these bars need, or of a share of them, are not known."""
        missing, self.total = missing_windows(bars, regime, bar_seconds, self.known, share)
        return missing

    def forecast_ahead(
        self, bars: Sequence[BarInput], regime: RegimeConfig, bar_seconds: int, show: Progress, share: Share = ALL
    ) -> None:
        """Make the forecasts that are missing, or a share of them, and keep them."""
        show.stage("forecasting ahead", self.total)
        forecast_ahead(bars, regime, bar_seconds, self.client, self.known, show.advance, share)

    def close(self) -> None:
        """End the process, and note what was found wrong with the store."""
        self.client.close()
        if self._store is not None:
            self.notes += [f"forecast store: {line}" for line in self._store.damaged]
        if self.own is not None and self.client.first_error:
            self.notes.append(f"{self.own.spec} raised first: {self.client.first_error}")
        if self.known.error:
            self.notes.append(f"forecast store: {self.known.error}")

    def _open_store(self) -> None:
        engine, regime = self._config.serving.engine, self._config.regime
        key = StoreKey(
            checkpoint_sha256=self.client.checkpoint.sha256,
            engine=self.engine_name,
            dtype=engine.dtype,
            device=engine.device,
            context_bars=regime.context_bars,
            horizon_bars=regime.horizon_bars,
            network=self.client.checkpoint.network,
        )
        root = Path(self._config.model.store_dir).expanduser() if self._config.model.store_dir else default_root()
        self._store = ForecastStore(root, key)
        self.known = AheadForecasts(self.client.checkpoint_id, self._store)


def runs_online(config: BacktestConfig) -> bool:
    """True where the model is asked bar by bar: when told to, and whenever its speed is judged by a deadline.

    A user's own forecaster is, always: nobody knows what its forecasts depend on, so none is kept for another run.
    """
    return config.model.online or config.regime.deadline_ms > 0 or config.own.forecaster is not None


def _serving(config: BacktestConfig, rig: Rig) -> ServingConfig:
    serving = dataclasses.replace(config.serving, hang_limit_s=config.regime.hang_limit_s)
    if config.regime.deadline_ms and not serving.watch_s and type(rig) is Rig:
        # Live-like: time passes between bars, and a process can be back before the next one asks for it. Rigs look
        # after their processes themselves.
        serving = dataclasses.replace(serving, watch_s=WATCH_S)
    return serving


def _raise_mistake(error: BaseException) -> None:
    """Raise what a user's own forecaster did wrong before its process was ready, if that is behind this error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NotUsable):
            raise OptionError(f"--forecaster {cause}") from error
        if isinstance(cause, UserCodeRaised):
            raise UserCodeRaised(f"--forecaster {cause}", cause.trace) from error
        cause = cause.__cause__
