"""What the study of regimes says: figures by cell and method, the reliability of transitions, and targets."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sage.studies.page import Finding
from sage.studies.regimes import CEILING, OURS, PEERS, CellResult, RegimeStudy, Row
from sage.studies.two_state import FloatArray

SHORTFALL_MAX = 0.02
CHANGES_RATIO_MAX = 2.0
PEER_ERRORS = 2.0
SERIES_MIN = 10
TRANSITIONS_MIN = 200
CALIBRATION_ERROR_MAX = 0.02

_RESAMPLES = 2000
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True)
class Figures:
    """One method in one cell, means over its series.

    ``beside_ceiling`` is the paired difference of balanced accuracies to the true-parameter filter, ``ours_beside``
    that of ours to this method; each has its standard error. ``changes_ratio`` is over the ceiling's changes.
    """

    balanced_accuracy: float
    accuracy_error: float
    beside_ceiling: float
    beside_ceiling_error: float
    ours_beside: float
    ours_beside_error: float
    changes_per_1000_bars: float
    changes_ratio: float
    bars_per_state: float
    delay_bars: float
    unnoticed: float


@dataclass(frozen=True)
class Reliability:
    """The transition probability against what followed, over all series.

    ``bins`` has a row for each bin that was used: bars, mean probability, share of bars that a transition of the
    hidden state followed, the lower and upper end of that share's interval, and the share that a transition of the
    named state followed. Intervals are from a bootstrap of whole series.
    """

    bins: list[list[float]]
    bars: int
    transitions: int
    base_rate: float
    mean_probability: float
    calibration_error: float
    calibration_error_interval: tuple[float, float]
    brier: float
    brier_of_base_rate: float
    skill: float
    skill_interval: tuple[float, float]


def figures(result: CellResult) -> dict[str, Figures]:
    """All methods of a cell, ours first; empty where every series was left out."""
    rows = [row for row in result.rows if not row.excluded]
    if not rows:
        return {}
    names = [OURS, CEILING, *(name for name in rows[0].scores if name not in {OURS, CEILING})]
    return {name: _figures(rows, name, result.cell.bars) for name in names}


def exclusions(result: CellResult) -> dict[str, int]:
    """How many series were left out, by reason."""
    reasons = sorted({row.excluded for row in result.rows if row.excluded})
    return {reason: sum(row.excluded == reason for row in result.rows) for reason in reasons}


def noticed_delay(study: RegimeStudy) -> float:
    """Mean delay in bars that the classifier itself ascribed to the changes it named."""
    delays = [bars for result in study.cells for row in result.rows for bars in row.noticed]
    return float(np.mean(delays)) if delays else float("nan")


def series_of(study: RegimeStudy) -> list[Row]:
    """All series of the two-state simulation, those too that are left out of the accuracies."""
    return [row for result in study.cells for row in result.rows]


def reliability(rows: Sequence[Row], seed: int = 0) -> Reliability:
    """Pool the transition tables of series."""
    tables = np.array([row.transitions for row in rows])
    pooled = tables.sum(axis=0)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(rows), np.full(len(rows), 1.0 / len(rows)), size=_RESAMPLES)
    resampled = np.einsum("rs,sbc->rbc", drawn, tables)
    bars = float(pooled[:, 0].sum())
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a bin that no series has used
        low, high = np.nanpercentile(resampled[:, :, 2] / resampled[:, :, 0], _INTERVAL, axis=0)
    used = np.flatnonzero(pooled[:, 0] > 0)
    error, error_interval = _calibration_error(pooled[None])[0], np.percentile(_calibration_error(resampled), _INTERVAL)
    skill, skill_interval = _skill(pooled[None])[0], np.percentile(_skill(resampled), _INTERVAL)
    base_rate = float(pooled[:, 2].sum() / bars)
    return Reliability(
        bins=[
            [float(value) for value in (pooled[at, 0], pooled[at, 1] / pooled[at, 0], pooled[at, 2] / pooled[at, 0],
                                        low[at], high[at], pooled[at, 3] / pooled[at, 0])]
            for at in used
        ],
        bars=int(bars),
        transitions=sum(row.hidden_changes for row in rows),
        base_rate=base_rate,
        mean_probability=float(pooled[:, 1].sum() / bars),
        calibration_error=float(error),
        calibration_error_interval=(float(error_interval[0]), float(error_interval[1])),
        brier=float(pooled[:, 4].sum() / bars),
        brier_of_base_rate=base_rate * (1.0 - base_rate),
        skill=float(skill),
        skill_interval=(float(skill_interval[0]), float(skill_interval[1])),
    )  # fmt: skip


def findings(study: RegimeStudy) -> list[Finding]:
    """Targets first."""
    by_cell = {result.cell.name: figures(result) for result in study.cells}
    judged = {name: found for name, found in by_cell.items() if found}
    if not judged:
        return [Finding(None, "every series was left out: too few seeds to say anything")]
    fewest = min(sum(not row.excluded for row in result.rows) for result in study.cells)
    against_truth = [_accuracy(judged), _changes(judged), _peers(judged)]
    if fewest < SERIES_MIN:
        few = f"; {fewest} series in a cell are too few to judge, it takes {SERIES_MIN}"
        against_truth = [Finding(None, finding.text + few) for finding in against_truth]
    return [
        *against_truth,
        _transitions("this simulation", series_of(study)),
        _transitions("markets of many kinds", study.mixed),
        _delays(study, judged),
    ]


def _accuracy(cells: dict[str, dict[str, Figures]]) -> Finding:
    worst, found = min(((name, cell[OURS]) for name, cell in cells.items()), key=lambda cell: cell[1].beside_ceiling)
    return Finding(
        all(cell[OURS].beside_ceiling >= -SHORTFALL_MAX for cell in cells.values()),
        f"mean balanced accuracy within {SHORTFALL_MAX} of the filter that knows the parameters in every cell; "
        f"furthest from it {found.beside_ceiling:+.4f} ± {found.beside_ceiling_error:.4f} ({worst})",
    )


def _changes(cells: dict[str, dict[str, Figures]]) -> Finding:
    worst, ratio = max(((name, cell[OURS].changes_ratio) for name, cell in cells.items()), key=lambda cell: cell[1])
    return Finding(
        ratio <= CHANGES_RATIO_MAX,
        f"at most {CHANGES_RATIO_MAX:g} times as many changes of state as that filter: {ratio:.2f} at most ({worst})",
    )


def _peers(cells: dict[str, dict[str, Figures]]) -> Finding:
    behind = [
        f"{peer} ({cell}): {found[peer].ours_beside:+.4f} ± {found[peer].ours_beside_error:.4f}"
        for cell, found in cells.items()
        for peer in PEERS
        if found[peer].ours_beside < -PEER_ERRORS * found[peer].ours_beside_error
    ]
    text = f"in no cell below a peer by more than {PEER_ERRORS:g} standard errors"
    if behind:
        return Finding(False, f"{text}, but for {'; '.join(behind)}")
    _, peer, closest = min(
        ((cell, peer, found[peer].ours_beside) for cell, found in cells.items() for peer in PEERS), key=lambda at: at[2]
    )
    return Finding(True, f"{text}; the nearest is the {peer}, {closest:+.4f}")


def _transitions(where: str, rows: Sequence[Row]) -> Finding:
    found = reliability(rows)
    low, high = found.calibration_error_interval
    text = (
        f"transition probability on {where}: expected calibration error {found.calibration_error:.4f} "
        f"({low:.4f} to {high:.4f}, target at most {CALIBRATION_ERROR_MAX}) over {found.transitions:,} transitions; "
        f"Brier score {found.brier:.4f}, {found.skill:.1%} better than saying the base rate, {found.base_rate:.3f}"
    )
    if found.transitions < TRANSITIONS_MIN:
        return Finding(None, f"{text}; {TRANSITIONS_MIN} transitions are needed to tell")
    return Finding(found.calibration_error <= CALIBRATION_ERROR_MAX and found.skill > 0, text)


def _delays(study: RegimeStudy, cells: dict[str, dict[str, Figures]]) -> Finding:
    ours, ceiling = (float(np.mean([cell[name].delay_bars for cell in cells.values()])) for name in (OURS, CEILING))
    return Finding(
        None,
        f"a true change is named after {ours:.1f} bars on average (the filter that knows all: {ceiling:.1f}); the "
        f"classifier's own estimate of its delay is {noticed_delay(study):.1f}",
    )


def _figures(rows: list[Row], name: str, bars: int) -> Figures:
    scores = [row.scores[name] for row in rows]
    accuracy, ceiling, ours = (
        np.array([row.scores[method].balanced_accuracy for row in rows]) for method in (name, CEILING, OURS)
    )
    changes = sum(found.changes for found in scores)
    delays = [bars for found in scores for bars in found.delays]
    return Figures(
        balanced_accuracy=float(accuracy.mean()),
        accuracy_error=_error(accuracy),
        beside_ceiling=float((accuracy - ceiling).mean()),
        beside_ceiling_error=_error(accuracy - ceiling),
        ours_beside=float((ours - accuracy).mean()),
        ours_beside_error=_error(ours - accuracy),
        changes_per_1000_bars=1000.0 * changes / (len(rows) * bars),
        changes_ratio=changes / max(1, sum(row.scores[CEILING].changes for row in rows)),
        bars_per_state=len(rows) * bars / (changes + len(rows)),
        delay_bars=float(np.mean(delays)),
        unnoticed=sum(found.unnoticed for found in scores) / len(delays),
    )


def _error(values: FloatArray) -> float:
    """Standard error of the mean; NaN of a single value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def _calibration_error(tables: FloatArray) -> FloatArray:
    """Mean distance between probability and share, weighted by bars; tables have shape (resamples, bins, 5)."""
    error: FloatArray = np.abs(tables[:, :, 1] - tables[:, :, 2]).sum(axis=1) / tables[:, :, 0].sum(axis=1)
    return error


def _skill(tables: FloatArray) -> FloatArray:
    """Brier score against that of the base rate: 1 is perfect, 0 no better."""
    bars = tables[:, :, 0].sum(axis=1)
    base_rate = tables[:, :, 2].sum(axis=1) / bars
    skill: FloatArray = 1.0 - tables[:, :, 4].sum(axis=1) / bars / np.maximum(base_rate * (1.0 - base_rate), 1e-12)
    return skill
