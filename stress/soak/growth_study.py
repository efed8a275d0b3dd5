"""How often the verdict on memory growth is right: ``python -m stress.soak.growth_study``.

Simulated traces of 1 to 8 hours under seven kinds of noise, with leaks of known size, are judged by
``stress.soak.growth`` against its limit of 5 MB per hour. For each cell of hours, noise and leak the table tells which
share is called leaking, passed and undecided, how often the 95 % interval holds the true slope, how wide it is, and how
often a leak of the size that each run names as the smallest it could have found would have been found (80 % is meant).
The settings were chosen on other seeds than those judged here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from stress.soak.growth import LEAK_LIMIT_MB_PER_HOUR, GrowthVerdict, growth_of
from stress.soak.traces import Noise, simulated

HOURS = (1.0, 2.0, 4.0, 8.0)
LEAKS_MB_PER_HOUR = (0.0, 5.0, 10.0, 20.0)
TRACES = 200
FALSE_ALARMS_MAX = 0.05


@dataclass(frozen=True)
class Cell:
    """What came of so many ``traces``. Shares are in [0, 1], widths in MB per hour.

    ``finds_smallest`` is the share of traces that would have been called leaking, had they leaked as much as the
    smallest leak that they say they could have found.
    """

    noise: str
    hours: float
    leak_mb_per_hour: float
    traces: int
    leaking: float
    passed: float
    undecided: float
    covered: float
    width_mb_per_hour: float
    bias_mb_per_hour: float
    finds_smallest: float


def cell_of(noise: Noise, hours: float, leak_mb_per_hour: float, traces: int, first_seed: int = 0) -> Cell:
    """Judge traces with seeds from ``first_seed`` on."""
    verdicts, covered, widths, errors, found = [], [], [], [], []
    for seed in range(first_seed, first_seed + traces):
        growth = growth_of(simulated(noise, hours, leak_mb_per_hour, seed))
        verdicts.append(growth.verdict)
        slope = growth.per_hour
        if slope is None or growth.smallest_leak_mb_per_hour is None:
            continue
        covered.append(slope.lower <= leak_mb_per_hour <= slope.upper)
        widths.append(slope.upper - slope.lower)
        errors.append(slope.estimate - leak_mb_per_hour)
        # A leak moves the bounds and nothing else.
        moved = slope.lower - leak_mb_per_hour + growth.smallest_leak_mb_per_hour
        found.append(moved > LEAK_LIMIT_MB_PER_HOUR)
    shares = {verdict: verdicts.count(verdict) / traces for verdict in GrowthVerdict}
    return Cell(
        noise=str(noise),
        hours=hours,
        leak_mb_per_hour=leak_mb_per_hour,
        traces=traces,
        leaking=shares[GrowthVerdict.FAILED],
        passed=shares[GrowthVerdict.PASSED],
        undecided=shares[GrowthVerdict.UNDECIDED],
        covered=float(np.mean(covered)) if covered else float("nan"),
        width_mb_per_hour=float(np.mean(widths)) if widths else float("nan"),
        bias_mb_per_hour=float(np.mean(errors)) if errors else float("nan"),
        finds_smallest=float(np.mean(found)) if found else float("nan"),
    )


def study(
    hours: Sequence[float] = HOURS,
    leaks_mb_per_hour: Sequence[float] = LEAKS_MB_PER_HOUR,
    traces: int = TRACES,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Cell]:
    """All cells; each is of traces of its own."""
    cells = []
    wanted = [(noise, span, leak) for noise in Noise for span in hours for leak in leaks_mb_per_hour]
    for number, (noise, span, leak) in enumerate(wanted):
        tell(f"{number:>4} of {len(wanted)}: {noise}, {span:g} h, {leak:g} MB/h")
        # Seeds below 100,000; the settings were chosen above.
        cells.append(cell_of(noise, span, leak, traces, first_seed=round(leak) * 1_000 % 100_000))
    return cells


def main() -> int:
    """Command line; exit code 1 where more than 5 % of the clean traces of any cell are called leaking."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=TRACES, help="traces in each cell (default %(default)s)")
    parser.add_argument("--hours", type=float, nargs="+", default=HOURS)
    parser.add_argument("--leaks", type=float, nargs="+", default=LEAKS_MB_PER_HOUR, help="MB per hour")
    parser.add_argument("--json", action="store_true", help="print the cells as JSON")
    arguments = parser.parse_args()
    if arguments.traces < 1 or min(arguments.hours) <= 0.0:
        parser.error("--traces and --hours must be positive")
    cells = study(arguments.hours, arguments.leaks, arguments.traces, _tell)
    print(json.dumps([asdict(cell) for cell in cells], indent=2) if arguments.json else _table(cells))
    clean = [cell for cell in cells if cell.leak_mb_per_hour == 0.0]
    return int(any(cell.leaking > FALSE_ALARMS_MAX for cell in clean))


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _table(cells: list[Cell]) -> str:
    lines = [
        f"{'noise':<30}{'hours':>6}{'MB/h':>6}{'leaking':>9}{'passed':>8}{'undecided':>11}{'covered':>9}{'width':>8}"
        f"{'bias':>7}{'finds smallest':>16}"
    ]
    for cell in cells:
        lines.append(
            f"{cell.noise:<30}{cell.hours:>6g}{cell.leak_mb_per_hour:>6g}{cell.leaking:>9.1%}{cell.passed:>8.1%}"
            f"{cell.undecided:>11.1%}{cell.covered:>9.1%}{cell.width_mb_per_hour:>8.1f}{cell.bias_mb_per_hour:>+7.1f}"
            f"{cell.finds_smallest:>16.1%}"
        )
    lines.append("")
    for leak in sorted({cell.leak_mb_per_hour for cell in cells}):
        for hours in sorted({cell.hours for cell in cells}):
            chosen = [cell for cell in cells if cell.leak_mb_per_hour == leak and cell.hours == hours]
            leaking, covered = (
                float(np.mean([getattr(cell, key) for cell in chosen])) for key in ("leaking", "covered")
            )
            lines.append(f"{leak:g} MB/h in {hours:g} h: {leaking:.1%} called leaking, {covered:.1%} covered")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
