"""A user's own forecaster in the model's place and process: whatever it does there, hanging and dying too, ends no run.

Its constructor gets ``bars``, all bars of the run as a data frame, if it has a parameter of that name; nothing else.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from regime.forecast import QUANTILE_LEVELS, Context, Forecaster
from regime.importing import NotUsable, build, importable, load, require
from regime.serving.process import OWN_ENGINE
from regime.serving.protocol import digest_of
from regime.serving.server import Answer, AnswerFunction, checkpoint_of, run

METHODS = {"forecast": ("contexts", "horizon_bars", "timeout_s")}


def load_own(spec: dict[str, Any]) -> tuple[AnswerFunction, dict[str, Any]]:
    """Build the forecaster that ``spec["own"]`` names.

    Raises
    ------
    ModelUnavailable
        If its file has changed since the run began.
    NotUsable, UserCodeRaised
        If there is none, it is no forecaster, or its module or constructor raises.
    """
    own = spec["own"]
    checkpoint_of(spec)
    importable(Path(own["directory"]))
    found = load(own["spec"])
    require(own["spec"], found, "forecaster", METHODS, ())
    forecaster: Forecaster = build(own["spec"], found, {"bars": lambda: _read_bars(own["bars"])})
    require(own["spec"], forecaster, "forecaster", METHODS, ("checkpoint_id",))
    checkpoint_id = forecaster.checkpoint_id
    if not isinstance(checkpoint_id, str) or not checkpoint_id:
        raise NotUsable(f"{own['spec']}: checkpoint_id must be a text that names its weights, not {checkpoint_id!r}")

    def answer(contexts: Context, horizon_bars: int) -> Answer:
        digest = digest_of(contexts)
        try:
            # A copy: what it keeps must not change under it.
            quantiles = forecaster.forecast(contexts.copy(), horizon_bars, own["hang_limit_s"])
        except MemoryError:
            raise  # the server has a word of its own for it, and the client a successor
        except Exception as error:
            raise ValueError(f"{error!r}{_place(error)}") from error
        return Answer(_quantiles(quantiles), digest)

    return answer, {"engine": OWN_ENGINE, "note": "", "context_bars": 0, "checkpoint_id": checkpoint_id}


def _quantiles(answer: object) -> np.ndarray[Any, np.dtype[np.float32]]:
    found = np.asarray(answer, dtype=np.float32)
    if found.ndim != 3 or found.shape[2] != len(QUANTILE_LEVELS):
        raise ValueError(f"a forecast must have the shape (rows, horizon_bars, 9), not {found.shape}")
    return found


def _read_bars(path: str) -> Any:
    import pandas as pd  # half a second that most forecasters need not wait

    return pd.read_parquet(path)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f", {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


if __name__ == "__main__":
    run(sys.argv[1:], load=load_own)
