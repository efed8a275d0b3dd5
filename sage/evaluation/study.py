"""An evaluation from its settings to its verdict: every instrument in turn, finished ones kept and used again."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from data.bars import BarSize
from data.catalog import BarCatalog
from data.errors import CatalogError, DataError, OptionError
from data.instruments import parse_instrument_id
from data.market import Market, catalog_market, parse_span, sp500_market, synthetic_market
from data.synthetic import SyntheticConfig
from regime.model.checkpoint import Checkpoint, find_checkpoint
from regime.model.engines import Engine, EngineChoice, choose_engine, load_engine
from regime.model.weights import load_weights
from sage.evaluation.results import InstrumentResult, Settings, Verdict, judge, read_results, write_result
from sage.evaluation.settings import EvaluationConfig, check
from sage.evaluation.walk import evaluate_market
from sage.progress import Progress, Silent

METHOD_VERSION = 1
"""One of a result's settings: raise it when results of the same settings come out differently."""


@dataclass(frozen=True)
class Evaluation:
    """All results, in the order asked for; ``reused`` of them were found in ``config.out``.

    ``skipped`` says why instruments were left out of a whole catalog.
    """

    config: EvaluationConfig
    checkpoint: Checkpoint
    engine: EngineChoice
    results: list[InstrumentResult]
    reused: int
    skipped: list[str]

    @property
    def verdict(self) -> Verdict:
        """The results beside the targets."""
        return judge(self.results)


def evaluate(config: EvaluationConfig, progress: Progress | None = None) -> Evaluation:
    """Evaluate a checkpoint on all instruments asked for.

    Raises
    ------
    OptionError, DataError
        If the options or the data are at fault; too few bars are an error where the instrument was named, or where
        no other remains.
    ModelUnavailable
        If there is no such model, or it answers with NaN.
    """
    show = progress or Silent()
    check(config)
    wanted = wanted_markets(config)
    show.stage("loading the model", 1)
    checkpoint = find_checkpoint(config.model)
    weights = load_weights(checkpoint)
    choice = choose_engine(config.engine, weights.architecture)
    settings = settings_of(config, checkpoint, choice)
    kept = _kept(config, wanted, settings)
    engine: Engine | None = None
    results: list[InstrumentResult] = []
    skipped: list[str] = []
    whole_catalog = config.catalog is not None and not config.instruments
    for instrument, bar in wanted:
        known = kept.get((instrument, bar))
        if known is not None:
            results.append(known)
            continue
        if engine is None:
            engine, choice = load_engine(weights, config.engine)
        market = load_market(config, instrument, bar)
        try:
            result = evaluate_market(config, market, engine, settings, show)
        except DataError as error:
            if not whole_catalog:
                raise
            skipped.append(str(error))
            continue
        if config.out is not None:
            write_result(config.out, result)
        results.append(result)
    if not results:
        raise DataError("; ".join(skipped))
    return Evaluation(config, checkpoint, choice, results, len(kept), skipped)


def wanted_markets(config: EvaluationConfig) -> list[tuple[str, str]]:
    """Instrument and bar size of each market asked for. Raises CatalogError for what the catalog has not."""
    if config.catalog is None:
        market = _source_market(config)
        return [(str(market.instrument.id), str(market.size))]
    catalog = BarCatalog(config.catalog)
    parse_span(config.start, config.end)
    bar = str(BarSize.parse(config.bar)) if config.bar is not None else None
    wanted: list[tuple[str, str]] = []
    named = [str(parse_instrument_id(instrument)) for instrument in config.instruments]
    for instrument in dict.fromkeys(named) or catalog.instruments():
        held = [size for size in _sizes(catalog, instrument) if bar in {None, size}]
        if named and not held:
            # Says what the catalog has.
            catalog_market(config.catalog, instrument, bar)
        wanted += [(instrument, size) for size in held]
    if not wanted:
        what = f"{config.bar} bars" if config.bar else "bars"
        raise CatalogError(f"{config.catalog}: no {what} of any instrument; see sage ingest")
    return wanted


def load_market(config: EvaluationConfig, instrument: str, bar: str) -> Market:
    """One of the markets asked for, with its bars."""
    if config.catalog is None:
        return _source_market(config)
    return catalog_market(config.catalog, instrument, bar, config.start, config.end)


def _source_market(config: EvaluationConfig) -> Market:
    return sp500_market() if config.source == "sp500" else synthetic_market(SyntheticConfig(seed=config.seed))


def _sizes(catalog: BarCatalog, instrument: str) -> list[str]:
    specs = (spec.split("-") for spec in catalog.bar_sizes(instrument) if spec.endswith("-LAST-EXTERNAL"))
    return [str(size) for size in sorted(BarSize.parse(f"{spec[0]}{spec[1][0].lower()}") for spec in specs)]


def settings_of(config: EvaluationConfig, checkpoint: Checkpoint, choice: EngineChoice) -> Settings:
    """Everything that a result depends on beside its bars."""
    return {
        "checkpoint": checkpoint.sha256,
        "hyper-parameters": checkpoint.network,
        "engine": choice.name,
        "number type": config.engine.dtype,
        "device": config.engine.device,
        "--forecasts": config.forecasts,
        "--context": config.context_bars,
        "--horizon": config.horizon_bars,
        "--warm-up": config.warm_up_bars,
        "--window": config.window_bars,
        "--refit": config.refit_bars,
        "--seed": config.seed,
        "bootstrap replications": config.replications,
        "method": METHOD_VERSION,
        "arch package": version("arch"),
    }


def _kept(
    config: EvaluationConfig, wanted: list[tuple[str, str]], settings: Settings
) -> dict[tuple[str, str], InstrumentResult]:
    """Results of an earlier run that this one can use, from ``config.out``, which is made if it is not there.

    Raises
    ------
    OptionError
        If there are results of other settings, or of other bars: whoever made them may want them yet.
    """
    if config.out is None:
        return {}
    config.out.mkdir(parents=True, exist_ok=True)
    found = read_results(config.out)
    for result in found.values():
        _refuse_if(config.out, result, _differences(result.settings, settings))
    kept = {name: found[name] for name in wanted if name in found}
    for name, result in kept.items():
        market = load_market(config, *name)
        if (result.bars_sha256, result.always_open) != (market.bars.sha256(), market.kind.always_open):
            then = f"{result.bars:,} bars with sha256 {result.bars_sha256[:16]}"
            now = f"{len(market.bars):,} with {market.bars.sha256()[:16]}"
            why = "by --start, --end or --catalog, or ingested since"
            _refuse_if(config.out, result, [f"{then} (now {now}, {why})"])
    return kept


def _differences(before: Settings, now: Settings) -> list[str]:
    return [
        f"{name} {before.get(name, 'unknown')} (now {now.get(name, 'unknown')})"
        for name in {**now, **before}
        if before.get(name) != now.get(name)
    ]


def _refuse_if(out: Path, result: InstrumentResult, differences: list[str]) -> None:
    if differences:
        raise OptionError(
            f"--out {out}: the result of {result.name} there was made with {', '.join(differences)}; "
            "go on with the same settings, or give another --out"
        )
