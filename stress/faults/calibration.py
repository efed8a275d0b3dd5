"""The calibration's memory is lost or damaged, as by a snapshot that was written half."""

from __future__ import annotations

import math

from regime.calibration import ConformalCalibrator
from regime.signal import Reason
from stress.stage import Failure, Fault, Stage


def _forget(stage: Stage) -> None:
    config = stage.detector.config
    stage.detector.state.calibrator = ConformalCalibrator(config.calibration, config.horizon_bars)


def _corrupt(stage: Stage) -> None:
    calibrator = stage.detector.state.calibrator
    calibrator.conformal.levels[:] = math.nan
    calibrator.errors.append(math.nan)


def _nothing(stage: Stage) -> None:
    """Scores come back with time."""


FAULTS = (
    Fault(
        name="calibration.no_history",
        does="all scores are gone",
        ends="enough forecasts have matured",
        failure=Failure.CALIBRATION_LOST,
        begin=_forget,
        end=_nothing,
        # Before the warm-up is over nobody can tell scores that were lost from scores that are yet to come.
        reasons=frozenset({Reason.FEW_SCORES, Reason.WARM_UP}),
        calibration_lost=True,
    ),
    Fault(
        name="calibration.corrupted",
        does="scores and level hold NaN",
        ends="calibration has started over, and enough forecasts have matured",
        failure=Failure.CALIBRATION_LOST,
        begin=_corrupt,
        end=_nothing,
        reasons=frozenset({Reason.CALIBRATION_CORRUPT}),
        calibration_lost=True,
    ),
)
