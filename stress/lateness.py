"""How late a signal is, by the wall clock, when the model hangs, dies or is slow: time beyond the deadline.

``python -m stress.lateness`` asks bar after bar with the breaker held closed, so that each one meets the fault and
waits for as long as it may. A benchmark: it judges itself against ``LIMIT_MS``, but machines differ.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from regime.config import BreakerConfig, RegimeConfig
from regime.detector import Detector
from regime.model.checkpoint import EMBEDDED, find_checkpoint
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from regime.signal import Level, Signal
from regime.window import BarInput
from sage.percentiles import Latencies, answers_needed
from sage.progress import Progress, Silent
from stress.misbehaviour import Control, MisbehavingProcess, Misbehaviour
from stress.stream import endless_bars

LIMIT_MS = 5.0
"""At p99.9, beyond the deadline."""

DEADLINE_MS = 50.0
KILL_EVERY_BARS = 10
RESTS_S = 0.02

_BAR_SECONDS = 3600
_NEVER = 1e9


@dataclass
class Lateness:
    """Answer times under one fault, and which levels answered."""

    fault: str
    latencies: Latencies = field(default_factory=Latencies)
    levels: dict[str, int] = field(default_factory=dict)

    @property
    def p999_ms(self) -> float | None:
        """99.9th percentile of the whole way, bar in to signal out; None where there are too few answers."""
        return self.latencies.at(99.9)


def measure(answers: int, model: str = EMBEDDED, seed: int = 7, progress: Progress | None = None) -> list[Lateness]:
    """Measure each fault with so many answers; ``all`` at the end counts them together."""
    show = progress or Silent()
    checkpoint, stream = find_checkpoint(model), endless_bars(seed, _BAR_SECONDS)
    together = Lateness("all")
    found = []
    for fault, (harm, share) in _FAULTS.items():
        count = round(share * answers)
        show.stage(fault, count)
        control = Control()
        # Nothing but the deadline may end the waiting for a hung process.
        patient = ServingConfig(back_off_s=0.02, back_off_max_s=0.02, hang_limit_s=_NEVER, silence_limit_s=_NEVER)
        with ModelClient(checkpoint, patient, launch=partial(MisbehavingProcess, control)) as client:
            client.start()
            result = Lateness(fault)
            for signal_out, seconds in _answers(client, stream, count, partial(harm, client, control)):
                for counted in (result, together):
                    counted.latencies.record(seconds)
                    counted.levels[signal_out.level.name] = counted.levels.get(signal_out.level.name, 0) + 1
                show.advance(1)
            if fault == "hung" and client.pid is not None:
                os.kill(client.pid, signal.SIGCONT)
        control.close()
        found.append(result)
    return [*found, together]


def _answers(
    client: ModelClient, stream: Iterator[BarInput], count: int, harm: Callable[[int], None]
) -> Iterator[tuple[Signal, float]]:
    regime = RegimeConfig(deadline_ms=DEADLINE_MS, breaker=BreakerConfig(failure_rate=2.0, slow_rate=2.0))
    subject = Detector(regime, "LATENESS.SIM", _BAR_SECONDS, client)
    for bar in itertools.islice(stream, regime.context_bars):
        subject.step(bar)
    for number in range(count):
        harm(number)
        bar = next(stream)
        began = time.perf_counter()
        answer = subject.step(bar)
        seconds = time.perf_counter() - began
        assert isinstance(answer, Signal)
        yield answer, seconds


def _hang(client: ModelClient, _control: Control, bar: int) -> None:
    if bar == 0 and client.pid is not None:
        os.kill(client.pid, signal.SIGSTOP)


def _die(client: ModelClient, _control: Control, bar: int) -> None:
    if bar % KILL_EVERY_BARS == 0 and client.pid is not None:
        os.kill(client.pid, signal.SIGKILL)
    time.sleep(RESTS_S)  # so that dead, awaited, loading and sound processes are all met


def _slow(_client: ModelClient, control: Control, bar: int) -> None:
    # Just at the deadline, now before it and now after.
    control.set(Misbehaviour.SLOW, (DEADLINE_MS - 8.0 + bar % 10) / 1e3)


_FAULTS: dict[str, tuple[Callable[[ModelClient, Control, int], None], float]] = {
    "hung": (_hang, 0.4),
    "dead": (_die, 0.3),
    "slow": (_slow, 0.3),
}
"""What is done before each bar, and its share of the answers."""


def as_document(results: list[Lateness]) -> dict[str, object]:
    """For ``--json``; times in milliseconds."""
    return {
        "deadline_ms": DEADLINE_MS,
        "limit_ms_beyond": LIMIT_MS,
        "faults": {
            result.fault: {
                "answers": len(result.latencies),
                "levels": {level.name: result.levels.get(level.name, 0) for level in Level},
                **result.latencies.summary(),
                "p99.9_beyond_deadline": None if result.p999_ms is None else result.p999_ms - DEADLINE_MS,
            }
            for result in results
        },
    }


def main() -> int:
    """Command line of ``python -m stress.lateness``; exit code 1 where the limit is missed, 5 where undecided."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=answers_needed(99.9), help="answers in all")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    results = measure(arguments.answers)
    print(json.dumps(as_document(results), indent=2) if arguments.json else "\n".join(map(_line, results)))
    p999 = results[-1].p999_ms
    if p999 is None:
        return 5
    return 0 if p999 <= DEADLINE_MS + LIMIT_MS else 1


def _line(result: Lateness) -> str:
    told = {
        name: "too few" if value is None else f"{value:.1f} ms" for name, value in result.latencies.summary().items()
    }
    figures = "   ".join(f"{name} {value}" for name, value in told.items())
    return f"{result.fault:<6}{len(result.latencies):>7,} answers   {figures}   (deadline {DEADLINE_MS:g} ms)"


if __name__ == "__main__":
    sys.exit(main())
