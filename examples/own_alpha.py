"""An alpha of your own: bet against a bar that moved far on thin volume.

    sage backtest --alpha examples.own_alpha:ThinMove

It votes beside SAGE's own alphas, and gets the weight that it earns. It needs no base class.
"""

from __future__ import annotations

import math

import numpy as np

from sage.models.alpha import AlphaView


class ThinMove:
    """The larger a move in units of its usual size, and the thinner its volume, the stronger the vote against it."""

    name = "thin move"
    min_bars = 64
    needs_model = False

    def vote(self, view: AlphaView) -> float:
        """Conviction in [-1, 1]: 1 for as long as can be, 0 for flat."""
        usual = float(np.median(view.volumes))
        thinness = max(0.0, 1.0 - view.volumes[-1] / usual) if usual > 0 else 0.0
        spread = float(np.std(view.returns))
        return -math.tanh(view.returns[-1] / spread) * thinness if spread > 0 else 0.0
