"""The ensemble's record of a run: votes and weights as a table, figures for people, and how long each alpha took."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from sage.ensemble import Absence, Ensemble

_COLUMNS = ["ts_ns", "regime", "conviction", "disagreement"]
_VOTE, _WEIGHT, _ABSENT = "vote_", "weight_", "absent_"


def weights_table(ensemble: Ensemble | None) -> pd.DataFrame:
    """One row a bar: what all said together, and for each alpha vote, weight and why it has none."""
    if ensemble is None:
        return pd.DataFrame(columns=_COLUMNS)
    polls, names = ensemble.polls, ensemble.names
    frame = pd.DataFrame(
        [(poll.ts_ns, poll.regime, poll.conviction, poll.disagreement) for poll in polls], columns=_COLUMNS
    )
    votes = np.array([poll.votes for poll in polls]).reshape(len(polls), len(names))
    weights = np.array([poll.weights for poll in polls]).reshape(len(polls), len(names))
    for column, name in enumerate(names):
        frame[_VOTE + name] = votes[:, column]
        frame[_WEIGHT + name] = weights[:, column]
        frame[_ABSENT + name] = [str(poll.absent[column] or "") for poll in polls]
    return frame


def slow_votes(frame: pd.DataFrame) -> frozenset[tuple[int, str]]:
    """From a table of :func:`weights_table`: (ts_ns, name) of each vote that came too late, for a replay."""
    found: set[tuple[int, str]] = set()
    for column in frame.columns:
        if column.startswith(_ABSENT):
            late = frame.loc[frame[column] == Absence.SLOW, "ts_ns"]
            found |= {(int(ts_ns), column.removeprefix(_ABSENT)) for ts_ns in late}
    return frozenset(found)


def weights_of(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """From the same table: each alpha's weight, bar by bar."""
    return {
        column.removeprefix(_WEIGHT): frame[column] for column in frame.columns if column.startswith(_WEIGHT)
    }  # fmt: skip


def ensemble_figures(ensemble: Ensemble | None) -> dict[str, Any] | None:
    """Mean weights, votes, drops by reason, disagreement, and what the weights cost; None for another strategy."""
    if ensemble is None or not ensemble.polls:
        return None
    weights = np.array([poll.weights for poll in ensemble.polls])
    absent = [Counter(reasons) for reasons in zip(*(poll.absent for poll in ensemble.polls), strict=True)]
    voted = [poll.disagreement for poll in ensemble.polls if poll.conviction == poll.conviction]
    return {
        "weights": ensemble.weights.config.kind,
        "disagreement": float(np.mean(voted)) if voted else None,
        "alphas": {
            name: {
                "mean_weight": float(weights[:, column].mean()),
                "last_weight": float(weights[-1, column]),
                "votes": absent[column][None],
                "absent": {str(why): absent[column][why] for why in Absence if absent[column][why]},
                "dropped": dict(sorted(ensemble.faults[name].items())),
                "first_error": ensemble.first_errors.get(name),
            }
            for column, name in enumerate(ensemble.names)
        },
        "regimes": [asdict(report) for report in ensemble.weights.report()],
    }


def drop_notes(ensemble: Ensemble) -> list[str]:
    """What must be said aloud: votes that were dropped, what could not be learned, and why."""
    told = {
        name: ", ".join(f"{what} {count:,} times" for what, count in sorted(counts.items()))
        for name, counts in ensemble.faults.items()
        if counts
    }
    return [
        f"{name}: {text}; such a vote is dropped, the others stand; the first was {ensemble.first_errors[name]}"
        for name, text in told.items()
    ]


def telemetry(ensemble: Ensemble | None) -> dict[str, Any]:
    """How long each alpha took, by percentile in milliseconds and as an encoded HdrHistogram in microseconds."""
    if ensemble is None:
        return {}
    return {
        name: {"votes": len(latencies), **latencies.summary(), "hdr_histogram_us": latencies.encoded()}
        for name, latencies in ensemble.latencies.items()
    }
