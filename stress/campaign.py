"""The catalogue run as a whole or in part: every fault at every place, skipped where it cannot be had, and judged."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.errors import OptionError
from regime.model.checkpoint import find_checkpoint
from regime.signal import Level, Reason
from sage.progress import Progress, Silent
from stress.cases import MATRIX, CaseResult, InjectConfig, Place, Placement, Verdict
from stress.expectations import expected
from stress.faults import FAULTS, find
from stress.inject import check, run_case
from stress.needs import missing
from stress.scratch import scratch_directory
from stress.stage import Fault
from stress.whole_runs import RUN_FAULTS, RunFault

CATALOGUE: dict[str, Fault | RunFault] = {**FAULTS, **RUN_FAULTS}
"""Every fault by name."""


@dataclass
class Campaign:
    """What was asked for and what came out. ``whole`` tells that it was the whole catalogue."""

    config: InjectConfig
    whole: bool
    results: list[CaseResult] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, verdict: Verdict) -> int:
        """Cases that came out like this."""
        return sum(result.verdict is verdict for result in self.results)

    @property
    def reached(self) -> dict[Level, Counter[Reason]]:
        """Every level that answered in any case, with the reasons for it that were recorded."""
        found: dict[Level, Counter[Reason]] = {}
        for result in self.results:
            for level, reasons in result.reached.items():
                found.setdefault(level, Counter()).update(reasons)
        return dict(sorted(found.items()))

    @property
    def problems(self) -> list[str]:
        """One sentence for each thing that is not as it must be; none where everything is."""
        found = [
            f"{result.fault}, {result.place}: {result.why}"
            for result in self.results
            if result.verdict in {Verdict.FAILED, Verdict.NOT_PLACED}
        ]
        unseen = [level.name for level in Level if level not in self.reached]
        if self.whole and unseen:
            found.append(f"never reached through the real path: level {', '.join(unseen)}")
        return found


def placements(where: str | None, at_bar: int | None, for_bars: int | None) -> list[Placement]:
    """Where faults are to be provoked: at one bar, at one kind of place, or at each kind. Raises OptionError."""
    if where is not None and at_bar is not None:
        raise OptionError("--where and --at exclude each other: one names a kind of place, the other a bar")
    if at_bar is not None:
        return [Placement(Place.AT_BAR, at_bar, for_bars)]
    if where is not None and where not in set(MATRIX):
        raise OptionError(f"--where {where}: must be one of {', '.join(MATRIX)}")
    return [Placement(place, None, for_bars) for place in MATRIX if where in {None, place}]


def run_campaign(
    names: Sequence[str],
    where: Sequence[Placement],
    config: InjectConfig,
    progress: Progress | None = None,
) -> Campaign:
    """Provoke faults, one case after the other.

    Parameters
    ----------
    names
        Which faults; empty for the whole catalogue, of which what cannot be provoked here is skipped.
    where
        The places.
    config
        What the runs have in common.
    progress
        Hears how far it is.

    Raises
    ------
    OptionError
        If a fault is unknown, cannot be provoked here though it was named, or place or length make no sense.
    ModelUnavailable
        If there is no model to begin with.
    """
    show = progress or Silent()
    started = time.perf_counter()
    faults = find(names, CATALOGUE) if names else list(CATALOGUE.values())
    why_not = {fault.name: missing(fault.needs, config) for fault in faults}
    absent = [f"{name} cannot be provoked here: {why}" for name, why in why_not.items() if why]
    if names and absent:
        raise OptionError("; ".join(absent))
    for fault in faults:
        for placement in where:
            _check(fault, placement, config, named=bool(names))
    find_checkpoint(config.model)
    campaign = Campaign(config, whole=not names)
    cases = [(fault, placement) for fault in faults for placement in _placed(fault, where)]
    show.stage("provoking faults", len(cases))
    for fault, placement in cases:
        if why_not[fault.name]:
            result = CaseResult(
                fault.name, fault.failure, str(placement), expected(fault.failure), Verdict.SKIPPED, why_not[fault.name]
            )
        else:
            result = provoked(fault, placement, config)
        campaign.results.append(result)
        show.advance(1, f"{fault.name}, {placement}: {result.verdict}")
    campaign.seconds = time.perf_counter() - started
    return campaign


def provoked(fault: Fault | RunFault, placement: Placement, config: InjectConfig) -> CaseResult:
    """One case, whatever kind of run it needs."""
    if isinstance(fault, Fault):
        return run_case(fault, placement, config)
    result = CaseResult(fault.name, fault.failure, str(Place.WHOLE_RUN), expected(fault.failure))
    started = time.perf_counter()
    with scratch_directory() as directory:
        problems = list(fault.provoke(config, Path(directory), result))
    if result.bars_lost:
        problems.append(f"{result.bars_lost} bars were lost")
    result.verdict = Verdict.FAILED if problems else Verdict.PASSED
    result.why = "; ".join(problems) or result.why or "as expected"
    result.seconds = time.perf_counter() - started
    return result


def _placed(fault: Fault | RunFault, where: Sequence[Placement]) -> Sequence[Placement]:
    return where if isinstance(fault, Fault) else [Placement(Place.WHOLE_RUN)]


def _check(fault: Fault | RunFault, placement: Placement, config: InjectConfig, *, named: bool) -> None:
    if isinstance(fault, Fault):
        check(config, placement, fault)
    elif named and (placement.place is Place.AT_BAR or placement.for_bars is not None):
        raise OptionError(f"{fault.name} concerns a run as a whole: --at and --for have no meaning for it")
