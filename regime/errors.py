"""What can go wrong on the model side.

ModelUnavailable     there is no usable model: exit code 4
StoreError           forecasts cannot be kept: exit code 6, or a note where the run can do without
ForecastFailed       this one forecast was not answered; the fallback chain takes over
CannotAnswer         this level has not what it needs for this bar; the next one is asked
UserCodeRaised       a class of the user's own raised: exit code 6
"""

from __future__ import annotations

import traceback

from regime.signal import Reason


class ModelUnavailable(Exception):
    """No usable model: checkpoint missing, damaged or of another architecture, or its process does not start."""


class StoreError(OSError):
    """A forecast store that cannot be written or kept. The message says where, why and what to do."""


class ForecastFailed(Exception):
    """A forecast that was asked for and did not come, with the reason that the signal will carry."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


class CannotAnswer(Exception):
    """A level's precondition does not hold."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class UserCodeRaised(Exception):
    """A user's strategy, forecaster or alpha raised; ``trace`` is its traceback as text."""

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message)
        self.trace = trace

    @classmethod
    def of(cls, error: BaseException, message: str) -> UserCodeRaised:
        """With the traceback of what was raised."""
        return cls(message, "".join(traceback.format_exception(error)))
