"""Classes of the user's own in the place of SAGE's: what they must be, and how they are built.

A strategy is an ordinary NautilusTrader strategy. Its constructor gets, by name and only if it asks,

    config   its own StrategyConfig (the annotation tells which); ``bar_type`` and ``instrument_id`` are filled in
             where it has them, the rest comes from the run's parameters
    bars     all bars of the run as a data frame, to compute indicators from before the first one: an invitation to
             look ahead, which ``sage backtest --check-lookahead`` is there to find
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
from nautilus_trader.common.config import msgspec_decoding_hook
from nautilus_trader.config import StrategyConfig
from nautilus_trader.trading.strategy import Strategy

from data.bars import Bars
from data.errors import OptionError
from data.market import Market
from regime.importing import NotUsable, Source, build, constructor_parameters, importable, load, locate
from sage.config import OwnConfig
from sage.models.alpha import AlphaModel, problem_with_alpha

FILLED_IN = ("bar_type", "instrument_id")
"""Fields of a strategy's configuration that the run knows."""


@dataclass(frozen=True)
class Plugin:
    """A class of the user's own, by the option that named it."""

    option: str
    source: Source
    cls: type


def load_plugin(option: str, spec: str) -> Plugin:
    """Import a class; the current directory is searched first.

    Raises
    ------
    OptionError
        If there is no such class.
    UserCodeRaised
        If its module raises.
    """
    source = locate_plugin(option, spec)
    try:
        return Plugin(option, source, load(spec))
    except NotUsable as error:
        raise OptionError(f"{option} {error}") from error


def locate_plugin(option: str, spec: str) -> Source:
    """Find a class's module without running it. Raises OptionError if there is none."""
    importable(Path.cwd())
    try:
        return locate(spec)
    except NotUsable as error:
        raise OptionError(f"{option} {error}") from error


def own_digests(own: OwnConfig) -> dict[str, str]:
    """sha256 of the file of each class of the user's own, by option and class. Raises OptionError if there is none."""
    wanted = [
        ("--forecaster", own.forecaster),
        ("--strategy", own.strategy),
        *(("--alpha", spec) for spec in own.alphas),
    ]
    return {f"{option} {spec}": locate_plugin(option, spec).sha256 for option, spec in wanted if spec is not None}


def load_strategy(spec: str) -> Plugin:
    """Import a NautilusTrader strategy. Raises OptionError or UserCodeRaised."""
    plugin = load_plugin("--strategy", spec)
    if not issubclass(plugin.cls, Strategy):
        raise OptionError(
            f"--strategy {spec} is no NautilusTrader strategy: it does not derive from {Strategy.__name__}"
        )
    return plugin


def build_alphas(plugins: Sequence[Plugin], market: Market) -> list[AlphaModel]:
    """Build a user's alphas; a constructor takes nothing, or ``bars``.

    Raises
    ------
    OptionError
        If one asks for anything else, or what comes out is no alpha: the message says what is missing.
    UserCodeRaised
        If a constructor raises.
    """
    alphas = []
    for plugin in plugins:
        try:
            alpha = build(plugin.source.spec, plugin.cls, {"bars": lambda: bars_frame(market.bars)})
        except NotUsable as error:
            raise OptionError(f"{plugin.option} {error}") from error
        if (problem := problem_with_alpha(alpha)) is not None:
            raise OptionError(f"{plugin.option} {plugin.source.spec} is no alpha model: {problem}")
        alphas.append(alpha)
    return alphas


def build_strategy(plugin: Plugin, market: Market, parameters: Mapping[str, Any]) -> Strategy:
    """Build a user's strategy for a market.

    Raises
    ------
    OptionError
        If its constructor asks for what there is not, or the parameters do not fit its configuration.
    UserCodeRaised
        If the constructor raises.
    """
    spec = plugin.source.spec
    try:
        asked = constructor_parameters(spec, plugin.cls, ("config", "bars"))
        if parameters and "config" not in asked:
            raise OptionError(f"--strategy {spec}: its constructor takes no config that parameters could go into")
        offered = {
            "config": lambda: _strategy_config(plugin, market, parameters),
            "bars": lambda: bars_frame(market.bars),
        }
        strategy = build(spec, plugin.cls, offered)
    except NotUsable as error:
        raise OptionError(f"{plugin.option} {error}") from error
    assert isinstance(strategy, Strategy)
    return strategy


def bars_frame(bars: Bars) -> pd.DataFrame:
    """Bars as a data frame: open, high, low, close and volume, indexed by the time of the close, UTC."""
    stamps, *columns = bars.columns()
    index = pd.to_datetime(stamps, unit="ns", utc=True).rename("close_time")
    return pd.DataFrame(
        dict(zip(("open", "high", "low", "close", "volume"), columns, strict=True)), index=index, copy=True
    )


def _strategy_config(plugin: Plugin, market: Market, parameters: Mapping[str, Any]) -> StrategyConfig:
    spec, kind = plugin.source.spec, _config_class(plugin)
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for name in parameters:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=3) or [*kind.__annotations__]
            raise OptionError(f"--param {name}: {kind.__name__} has no such field; near it: {', '.join(near)}")
    known = {"bar_type": str(market.bar_type), "instrument_id": str(market.instrument.id)}
    values = {name: known[name] for name in FILLED_IN if name in fields} | dict(parameters)
    lacking = [name for name, field in fields.items() if field.required and name not in values]
    if lacking:
        raise OptionError(f"--strategy {spec}: {kind.__name__} needs {lacking[0]}: --param {lacking[0]}=VALUE")
    try:
        return msgspec.convert(values, kind, dec_hook=msgspec_decoding_hook, strict=False)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise OptionError(f"--strategy {spec}: {kind.__name__}: {error}") from error


def _config_class(plugin: Plugin) -> type[StrategyConfig]:
    try:
        parameter = inspect.signature(plugin.cls, eval_str=True).parameters["config"]
        kind = StrategyConfig if parameter.annotation is parameter.empty else parameter.annotation
    except ValueError:  # a compiled constructor, NT's own
        kind = StrategyConfig
    except NameError as error:
        raise OptionError(
            f"--strategy {plugin.source.spec}: the annotations of its constructor cannot be read: {error}"
        ) from error
    kinds = [found for found in (typing.get_args(kind) or (kind,)) if isinstance(found, type)]
    found = next((found for found in kinds if issubclass(found, StrategyConfig)), None)
    if found is None:
        raise OptionError(
            f"--strategy {plugin.source.spec}: annotate config in its constructor with your StrategyConfig class"
        )
    return found
