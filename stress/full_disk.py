"""A run whose store and results lie on a file system that is too small: started by the fault ``disk.full``.

What is on that file system is gone with the process that mounted it, so the process itself says what it saw, as JSON.
"""

from __future__ import annotations

import errno
import json
import sys
from collections import Counter
from pathlib import Path

from sage import rundir
from sage.backtest import run_backtest
from stress.cases import InjectConfig
from stress.inject import market_of
from stress.whole_runs import ahead


def main(directory: Path, config: InjectConfig) -> dict[str, object]:
    """Run, and try to keep what the run leaves."""
    problems = []
    run = run_backtest(ahead(config, directory / "store"), market=market_of(config.bars, config.seed))
    if not any("forecast store" in note for note in run.notes):
        problems.append("the run does not say that its forecasts could not be kept")
    error = ""
    try:
        rundir.write(run, directory / "run")
    except OSError as caught:
        error = str(caught)
        if caught.errno not in {errno.ENOSPC, None}:
            problems.append(f"the run ended with another error than a full disk: {caught!r}")
    else:
        problems.append("96 kB held a whole run: nothing was provoked")
    left = sorted(path.name for path in directory.iterdir() if path.name != "store")
    if left:
        problems.append(f"left half-written: {', '.join(left)}")
    return {
        "signals": len(run.signals),
        "levels": Counter(int(signal.level) for signal in run.signals),
        "error": error,
        "problems": problems,
    }


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1]), InjectConfig(**json.loads(sys.argv[2]))), sys.stdout)
