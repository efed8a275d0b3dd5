"""The alpha models that come with SAGE, by name."""

from __future__ import annotations

from collections.abc import Callable

from data.errors import OptionError
from sage.models.alpha import AlphaModel
from sage.models.breakout import BreakoutAlpha
from sage.models.forecast import ForecastAlpha
from sage.models.reversal import ReversalAlpha
from sage.models.trend import TrendAlpha

BUILT_IN = ("forecast", "trend", "reversal", "features", "breakout")


def built_in(name: str, conviction_gain: float) -> AlphaModel:
    """A fresh alpha of this name. Raises OptionError where there is none."""
    makers: dict[str, Callable[[], AlphaModel]] = {
        "forecast": lambda: ForecastAlpha(conviction_gain),
        "trend": TrendAlpha,
        "reversal": ReversalAlpha,
        "features": _features,
        "breakout": BreakoutAlpha,
    }
    if name not in makers:
        raise OptionError(f"ensemble.alphas: no alpha {name!r}; there are {', '.join(BUILT_IN)}")
    return makers[name]()


def _features() -> AlphaModel:
    # river takes a third of a second to import.
    from sage.models.features import FeaturesAlpha

    return FeaturesAlpha()
