"""The walk forward over one instrument: every forecast from the past alone, the model's and the baselines'."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from data.bars import BarSize, FloatArray, IntArray
from data.errors import DataError
from data.market import Market
from regime.config import RegimeConfig
from regime.errors import ModelUnavailable
from regime.forecast import WIDTH_RATIO_MAX, pinball
from regime.model.engines import Engine
from sage.backtest import CLOSURE_SECONDS
from sage.evaluation import scores
from sage.evaluation.baselines import BASELINES, DIURNAL, GJR, HISTORICAL, Forecasts, Past
from sage.evaluation.results import HORIZON, ONE_STEP, TASKS, Comparison, Forecaster, InstrumentResult, Score, Settings
from sage.evaluation.scores import relative_differences
from sage.evaluation.series import Series, season_slots
from sage.evaluation.settings import EvaluationConfig
from sage.progress import Progress, Silent

MODEL = "model"
WITHOUT_SEASON = "model, not told the time"

_BATCH_ROWS = 512
_SO_FAR_POINTS = 200


def evaluate_market(
    config: EvaluationConfig, market: Market, engine: Engine, settings: Settings, progress: Progress | None = None
) -> InstrumentResult:
    """Evaluate on one instrument. Raises DataError where it has too few bars, naming how many it takes."""
    show, started = progress or Silent(), time.perf_counter()
    name = f"{market.instrument.id} {market.size}"
    regime = RegimeConfig(
        context_bars=config.context_bars,
        horizon_bars=config.horizon_bars,
        closure_seconds=0 if market.kind.always_open else CLOSURE_SECONDS,
    )
    series = Series.of(market.bars, regime, market.size.seconds)
    origins, left_out = series.origins(config.warm_up_bars, config.horizon_bars, config.forecasts)
    if len(origins) < config.forecasts_min:
        needed = config.warm_up_bars + config.horizon_bars + config.forecasts_min
        raise DataError(
            f"{name}: {len(series):,} bars give {len(origins):,} forecasts after a warm-up of "
            f"{config.warm_up_bars:,}; it takes {needed:,} bars without a gap, or more with"
        )
    try:
        forecasts = forecast_all(config, series, origins, market.size, engine, show, name)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    outcomes = series.outcomes(origins, config.horizon_bars)
    judged = _Judged.of(outcomes, forecasts, config)
    points = np.unique(np.linspace(1, len(origins), _SO_FAR_POINTS).astype(np.int64)) - 1
    return InstrumentResult(
        settings=settings,
        instrument=str(market.instrument.id),
        bar=str(market.size),
        description=market.description,
        bars=len(market.bars),
        bars_sha256=market.bars.sha256(),
        always_open=market.kind.always_open,
        forecasts=len(origins),
        left_out=left_out,
        first_ts_ns=int(series.ts_ns[origins[0]]),
        last_ts_ns=int(series.ts_ns[origins[-1]]),
        block_bars=judged.block_bars,
        model=judged.forecasters.pop(MODEL),
        baselines=judged.forecasters,
        so_far_ts_ns=series.ts_ns[origins[points]].tolist(),
        so_far={task: judged.so_far(task)[points].tolist() for task in TASKS},
        seconds=time.perf_counter() - started,
    )


def forecast_all(
    config: EvaluationConfig,
    series: Series,
    origins: IntArray,
    size: BarSize,
    engine: Engine,
    progress: Progress | None = None,
    stage: str = "forecasting",
) -> dict[str, Forecasts]:
    """The model's forecasts and each baseline's at every origin, the model's first and GJR-GARCH-t's second."""
    show, past = progress or Silent(), past_of(series, origins, config, size)
    used = {name: baseline for name, baseline in BASELINES.items() if name != DIURNAL or past.slots is not None}
    intraday = size.seconds < 86_400
    show.stage(stage, len(origins) * (1 + intraday + len(used)))
    quantiles = model_quantiles(engine, series, origins, config, show)
    made = {name: baseline(past, lambda rows, name=name: show.advance(rows, name)) for name, baseline in used.items()}  # type: ignore[misc]
    found = {MODEL: Forecasts(quantiles, implied_variance(quantiles, made[GJR]))} | made
    if intraday:
        plain = model_quantiles(engine, series, origins, config, show, seasonal=False)
        found[WITHOUT_SEASON] = Forecasts(plain, implied_variance(plain, made[GJR]))
    return found


def past_of(series: Series, origins: IntArray, config: EvaluationConfig, size: BarSize) -> Past:
    """What the baselines may look at; slots of the day where a day has several bars."""
    in_run = series.in_run
    return Past(
        returns=series.returns[in_run],
        slots=season_slots(series.ts_ns, size.seconds)[in_run] if size.seconds < 86_400 else None,
        known=series.known[origins],
        horizon_bars=config.horizon_bars,
        warm_up_bars=config.warm_up_bars,
        window_bars=config.window_bars,
        refit_bars=config.refit_bars,
    )


def model_quantiles(
    engine: Engine,
    series: Series,
    origins: IntArray,
    config: EvaluationConfig,
    show: Progress,
    *,
    seasonal: bool = True,
) -> FloatArray:
    """The model's answer at each origin, shape (rows, horizon_bars, 9). Raises ModelUnavailable if one is NaN.

    Asked as the detector asks it, on returns without the season of the day, which the forecast is given back; without
    ``seasonal`` on the returns as they are.
    """
    answers = []
    for begin in range(0, len(origins), _BATCH_ROWS):
        rows = origins[begin : begin + _BATCH_ROWS]
        answers.append(
            engine.forecast(series.contexts(rows, config.context_bars, seasonal=seasonal), config.horizon_bars)
        )
        show.advance(len(rows), "model")
    quantiles = np.concatenate(answers).astype(np.float64)
    if not np.isfinite(quantiles).all():
        bad = int((~np.isfinite(quantiles)).any(axis=(1, 2)).sum())
        raise ModelUnavailable(f"the model answered {bad:,} of {len(quantiles):,} windows with NaN or infinity")
    return quantiles * series.outlook[origins][:, :, None] if seasonal else quantiles


def implied_variance(quantiles: FloatArray, reference: Forecasts) -> FloatArray:
    """The variance that nine quantiles imply, shape (rows, horizon_bars).

    Quantiles up to 0.9 do not tell it without the shape of the tails. That is borrowed from ``reference``, whose
    residuals are past ones: equal widths of the 80 % interval mean equal variance. An interval that has shut (or
    crossed) counts as 1/20 of the reference's.
    """
    width = quantiles[..., -1] - quantiles[..., 0]
    other = reference.quantiles[..., -1] - reference.quantiles[..., 0]
    ratio = np.maximum(width / other, 1.0 / WIDTH_RATIO_MAX)
    return np.asarray(reference.variance * ratio * ratio)


@dataclass(frozen=True)
class _Judged:
    """Scores of all forecasters; ``losses`` holds (rows, forecasters), the model's first, by task."""

    forecasters: dict[str, Forecaster]
    losses: dict[str, FloatArray]
    block_bars: dict[str, int]

    @classmethod
    def of(cls, outcomes: FloatArray, forecasts: dict[str, Forecasts], config: EvaluationConfig) -> _Judged:
        by_step = [pinball(outcomes, made.quantiles) for made in forecasts.values()]
        losses = {
            ONE_STEP: np.stack([loss[:, 0] for loss in by_step], axis=1),
            HORIZON: np.stack([loss.mean(axis=1) for loss in by_step], axis=1),
        }
        realised, steps = outcomes * outcomes, {ONE_STEP: 1, HORIZON: outcomes.shape[1]}
        # Over the horizon one volatility is judged: all variance forecast beside all realised.
        qlikes = {
            task: np.stack(
                [
                    scores.qlike(made.variance[:, :ahead].sum(axis=1), realised[:, :ahead].sum(axis=1))
                    for made in forecasts.values()
                ],
                axis=1,
            )
            for task, ahead in steps.items()
        }
        names = list(forecasts)
        relative = {
            task: relative_differences(losses[task], steps[task], config.replications, config.seed) for task in TASKS
        }
        found = {}
        for column, (name, made) in enumerate(forecasts.items()):
            scored, compared = {}, {}
            for task, ahead in steps.items():
                loss, quasi = losses[task], qlikes[task]
                mean = float(loss[:, column].mean())
                scored[task] = Score(
                    pinball=mean,
                    crps=2.0 * mean,
                    coverage=scores.coverage(outcomes[:, :ahead], made.quantiles[:, :ahead]),
                    qlike=float(quasi[:, column].mean()),
                )
                if name == MODEL:
                    continue
                compared[task] = Comparison(
                    difference=float(relative[task].values[column - 1]),
                    standard_error=float(relative[task].standard_errors[column - 1]),
                    p_value=scores.diebold_mariano(loss[:, 0], loss[:, column], ahead).p_value,
                    qlike_p_value=scores.diebold_mariano(quasi[:, 0], quasi[:, column], ahead).p_value,
                    broken=mean > float(loss[:, names.index(HISTORICAL)].mean()),
                )
            found[name] = Forecaster(
                scores=scored,
                comparisons=compared,
                pinball_by_step=by_step[column].mean(axis=0).tolist(),
                shares_below=scores.shares_below(outcomes, made.quantiles).tolist(),
                refits=made.refits,
                failures=made.failures,
            )
        return cls(found, losses, {task: relative[task].block_bars for task in TASKS})

    def so_far(self, task: str) -> FloatArray:
        """Relative difference to GJR-GARCH-t over all rows up to each, shape (rows,)."""
        model, baseline = self.losses[task][:, 0].cumsum(), self.losses[task][:, 1].cumsum()
        return np.asarray((model - baseline) / baseline)
