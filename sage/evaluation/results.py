"""What an evaluation found: one document per instrument, and what they say together."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import msgspec

from data.errors import OptionError
from regime.files import write_durably
from sage.evaluation.baselines import GJR

ONE_STEP = "one_step"
HORIZON = "horizon"
TASKS = (ONE_STEP, HORIZON)
"""The next bar, and the mean over all bars of the horizon."""

MEAN_DIFFERENCE_MAX = 0.0
EXCESS_MAX = 0.005
EXCESS_ERRORS = 2.0
COVERAGE_RANGE = (0.77, 0.83)
"""Targets: on average no worse than GJR-GARCH-t; on no series worse by 0.5 % with certainty; the native 80 %
interval within three points of its name."""


Settings = dict[str, int | str]
"""What results depend on beside their bars, under the names of the options where there are any."""


class Score(msgspec.Struct, frozen=True):
    """Mean losses of a forecaster at a task; ``pinball`` and ``crps`` are in log return, ``qlike`` has no unit."""

    pinball: float
    crps: float
    coverage: float
    qlike: float


class Comparison(msgspec.Struct, frozen=True):
    """The model beside a baseline at a task.

    ``difference`` is (model - baseline) / baseline of the mean pinball loss; a baseline that loses to historical
    quantiles is ``broken`` and does not count. The p-values are Diebold and Mariano's, two-sided.
    """

    difference: float
    standard_error: float
    p_value: float
    qlike_p_value: float
    broken: bool


class Forecaster(msgspec.Struct, frozen=True):
    """The model or a baseline on one instrument; ``comparisons`` are empty for the model.

    ``pinball_by_step`` has shape (horizon,), ``shares_below`` (9,): outcomes at or below each quantile.
    """

    scores: dict[str, Score]
    comparisons: dict[str, Comparison]
    pinball_by_step: list[float]
    shares_below: list[float]
    refits: int = 0
    failures: list[str] = msgspec.field(default_factory=list)


class InstrumentResult(msgspec.Struct, frozen=True):
    """All about one instrument.

    ``settings`` and the bars are everything that the result depends on; markets that are ``always_open`` have other
    gaps. ``left_out`` counts bars without a forecast between the first and the last, for a gap in their horizon or a
    window too short. ``so_far`` is the relative difference to GJR-GARCH-t up to each of some bars.
    """

    settings: Settings
    instrument: str
    bar: str
    description: str
    bars: int
    bars_sha256: str
    always_open: bool
    forecasts: int
    left_out: int
    first_ts_ns: int
    last_ts_ns: int
    block_bars: dict[str, int]
    model: Forecaster
    baselines: dict[str, Forecaster]
    so_far_ts_ns: list[int]
    so_far: dict[str, list[float]]
    seconds: float

    @property
    def name(self) -> str:
        """Instrument and bar size."""
        return f"{self.instrument} {self.bar}"


class Verdict(msgspec.Struct, frozen=True):
    """What all instruments say together.

    ``mean_difference`` is by baseline and task, None where the baseline was broken everywhere. ``excesses`` names,
    by baseline, each series and task on which the model is worse for certain; those to GJR-GARCH-t miss a target, and
    those to the other baselines are there to be known. ``miscovered`` names where the native interval misses its own.
    """

    mean_difference: dict[str, dict[str, float | None]]
    excesses: dict[str, list[str]]
    miscovered: list[str]
    broken: list[str]
    kept_fits: int

    @property
    def mean_met(self) -> bool:
        """True where the model is on average no worse than GJR-GARCH-t, next bar and whole horizon."""
        means = self.mean_difference.get(GJR, {}).values()
        return bool(means) and all(value is not None and value <= MEAN_DIFFERENCE_MAX for value in means)

    @property
    def met(self) -> bool:
        """True where every target is."""
        return self.mean_met and not self.excesses.get(GJR) and not self.miscovered


def judge(results: list[InstrumentResult]) -> Verdict:
    """Hold results against the targets."""
    differences: dict[str, dict[str, list[float]]] = {}
    excesses: dict[str, list[str]] = {}
    miscovered, broken = [], []
    for result in results:
        for task in TASKS:
            share = result.model.scores[task].coverage
            if not COVERAGE_RANGE[0] <= share <= COVERAGE_RANGE[1]:
                miscovered.append(f"{result.name}, {task.replace('_', ' ')}: {share:.1%}")
            for baseline, forecaster in result.baselines.items():
                known = differences.setdefault(baseline, {name: [] for name in TASKS})
                found = forecaster.comparisons[task]
                if found.broken:
                    broken.append(f"{baseline} on {result.name}, {task.replace('_', ' ')}")
                    continue
                known[task].append(found.difference)
                if found.difference - EXCESS_ERRORS * found.standard_error > EXCESS_MAX:
                    excesses.setdefault(baseline, []).append(
                        f"{result.name}, {task.replace('_', ' ')}: {found.difference:+.2%} ± {found.standard_error:.2%}"
                    )
    return Verdict(
        {
            baseline: {task: sum(values) / len(values) if values else None for task, values in by_task.items()}
            for baseline, by_task in differences.items()
        },
        excesses,
        miscovered,
        broken,
        sum(len(forecaster.failures) for result in results for forecaster in result.baselines.values()),
    )


def read_results(directory: Path) -> dict[tuple[str, str], InstrumentResult]:
    """Finished results, by instrument and bar size; one that is not whole will be made again.

    Raises
    ------
    OptionError
        If a file bears a result's name and is something else, which is not to be written over.
    """
    found = {}
    for path in sorted(directory.glob("*-*.json")):
        try:
            result = msgspec.json.decode(path.read_bytes(), type=InstrumentResult)
        except msgspec.ValidationError as error:
            raise OptionError(
                f"--out {directory}: {path.name} is no result of this version; give another --out"
            ) from error
        except msgspec.DecodeError:
            continue
        found[(result.instrument, result.bar)] = result
    return found


def write_result(directory: Path, result: InstrumentResult) -> None:
    """Write it at once or not at all."""
    # Some symbols have a slash in them.
    name = f"{quote(result.instrument, safe='')}-{result.bar}.json"
    write_durably(directory / name, msgspec.json.format(msgspec.json.encode(result), indent=1))
