"""Where something is to be written: what of the way there is there already."""

from __future__ import annotations

import os
from pathlib import Path


def nearest(path: Path) -> Path:
    """The place itself, or the nearest of its parents that is there."""
    # By os.path: what may not be looked at is not there for it, and Path raises.
    return next(place for place in (path.absolute(), *path.absolute().parents) if os.path.exists(place))  # noqa: PTH110
