"""An evaluation from its settings to its verdict: every instrument in turn, finished ones kept and used again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from data.bars import BarSize
from data.catalog import BarCatalog
from data.errors import CatalogError, DataError
from data.market import Market, catalog_market, sp500_market, synthetic_market
from data.synthetic import SyntheticConfig
from regime.model.checkpoint import Checkpoint, find_checkpoint
from regime.model.engines import Engine, EngineChoice, choose_engine, load_engine
from regime.model.weights import load_weights
from sage.evaluation.results import InstrumentResult, Verdict, digest, judge, read_result, write_result
from sage.evaluation.settings import EvaluationConfig, check
from sage.evaluation.walk import evaluate_market
from sage.progress import Progress, Silent

METHOD_VERSION = 1
"""Part of a result's key: raise it when results of the same settings come out differently."""


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
    show.stage("loading the model", 1)
    checkpoint = find_checkpoint(config.model)
    weights = load_weights(checkpoint)
    choice = choose_engine(config.engine, weights.architecture)
    engine: Engine | None = None
    if config.out is not None:
        config.out.mkdir(parents=True, exist_ok=True)
    results: list[InstrumentResult] = []
    reused, skipped = 0, []
    whole_catalog = config.catalog is not None and not config.instruments
    for market in markets(config):
        instrument, bar = str(market.instrument.id), str(market.size)
        parts = key_parts(config, market, checkpoint, choice)
        known = read_result(config.out, instrument, bar, digest(parts)) if config.out is not None else None
        if known is not None:
            results.append(known)
            reused += 1
            continue
        if engine is None:
            engine, choice = load_engine(weights, config.engine)
        try:
            result = evaluate_market(config, market, engine, digest(parts), show)
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
    return Evaluation(config, checkpoint, choice, results, reused, skipped)


def markets(config: EvaluationConfig) -> Iterator[Market]:
    """The markets asked for, each loaded when its turn comes. Raises CatalogError for what the catalog has not."""
    if config.catalog is None:
        if config.source == "sp500":
            yield sp500_market()
        else:
            yield synthetic_market(SyntheticConfig(seed=config.seed))
        return
    catalog = BarCatalog(config.catalog)
    wanted: list[tuple[str, str]] = []
    for instrument in dict.fromkeys(config.instruments) or catalog.instrument_ids():
        if config.bar is not None:
            held = [config.bar] if config.instruments or config.bar in _sizes(catalog, instrument) else []
        else:
            held = _sizes(catalog, instrument)
        if config.instruments and not held:
            # Says what the catalog has.
            catalog_market(config.catalog, instrument, None)
        wanted += [(instrument, bar) for bar in held]
    if not wanted:
        what = f"{config.bar} bars" if config.bar else "bars"
        raise CatalogError(f"{config.catalog}: no {what} of any instrument; see sage ingest")
    for instrument, bar in wanted:
        yield catalog_market(config.catalog, instrument, bar, config.start, config.end)


def _sizes(catalog: BarCatalog, instrument: str) -> list[str]:
    specs = (spec.split("-") for spec in catalog.bar_sizes(instrument) if spec.endswith("-LAST-EXTERNAL"))
    return [str(size) for size in sorted(BarSize.parse(f"{spec[0]}{spec[1][0].lower()}") for spec in specs)]


def key_parts(config: EvaluationConfig, market: Market, checkpoint: Checkpoint, choice: EngineChoice) -> dict[str, Any]:
    """Everything that a result depends on."""
    numbers = dataclasses.asdict(config)
    for name in ("source", "catalog", "instruments", "bar", "start", "end", "model", "engine", "out"):
        del numbers[name]
    return {
        "method": METHOD_VERSION,
        "arch": version("arch"),
        "instrument": str(market.instrument.id),
        "bar": str(market.size),
        "always_open": market.kind.always_open,
        "bars_sha256": market.bars.sha256(),
        "checkpoint_sha256": checkpoint.sha256,
        "engine": choice.name,
        "dtype": config.engine.dtype,
        "device": config.engine.device,
    } | numbers
