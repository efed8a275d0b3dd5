"""How a run is doing, while it does it: a picture on stderr that is drawn anew, or a line now and then."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator

from rich.console import Console, Group
from rich.live import Live

from cli.exits import to_nowhere
from cli.frame import Picture, Stage, alert_line, frame, plain_line, resident, under_way
from cli.render import LINE_EVERY_S
from regime.alerts import Alert
from sage.collector import VitalsCollector
from sage.processes import Machine, Sampler
from sage.vitals import Vitals

FRAMES_PER_S = 2.0
_CHANGES_KEPT = 30
_LINES_BELOW = 2


class Dashboard:
    """Shows the newest :class:`~sage.vitals.Vitals` while its context lasts, and the stages before and after.

    A :class:`~sage.progress.Progress` too. On a terminal one picture is drawn again and again, by a thread of its own;
    on anything else there is a line per stage, one every ``line_every_s``, and one for each alert that comes or goes.

    Parameters
    ----------
    title
        Stands above it all.
    console
        Stderr unless somebody wants to look at what is drawn.
    line_every_s
        Between two lines.
    stopwatch
        Seconds that pass.
    """

    def __init__(
        self,
        title: str,
        console: Console | None = None,
        line_every_s: float = LINE_EVERY_S,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or _Console(stderr=True)
        self._drawn = self._console.file.isatty() and not self._console.is_dumb_terminal
        self._line_every_s = line_every_s
        self._stopwatch = stopwatch
        self._began = self._line_at_s = self._bar_at_s = stopwatch()
        self._picture = Picture(title)
        self._changes: deque[Alert] = deque(maxlen=_CHANGES_KEPT)
        self._sampled_at_s = self._minutes = -1.0
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=FRAMES_PER_S,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Dashboard:
        if self._drawn:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._drawn:
            # A terminal that is gone takes no result with it.
            try:
                self._live.stop()
            except OSError:
                _silence(self._console)
        elif self._picture.vitals.bars:
            self._line(plain_line(self._picture))

    def stage(self, name: str, total: int) -> None:
        """Begin another stage."""
        self._picture.stage = Stage(name, 0.0, total)
        if not self._drawn:
            self._line(f"{name} ...")

    def say(self, text: str) -> None:
        """Tell something by the way: above the picture on a terminal, which goes on below it. From any thread."""
        self._line(text, due=False)

    def advance(self, steps: int, note: str = "") -> None:  # noqa: ARG002 (what it says is among the vitals)
        """So many steps more."""
        stage = self._picture.stage
        self._reach(Stage(stage.name, stage.done + steps, stage.total))

    def reach(self, name: str, done: int, total: int) -> None:
        """Be at ``done`` of ``total`` in the stage of that name."""
        if self._picture.stage.name != name:
            self.stage(name, total)
        self._reach(Stage(name, done, total))

    def update(self, vitals: Vitals) -> None:
        """Show these from now on."""
        picture, before = self._picture, self._picture.vitals
        if vitals.bars != before.bars:
            self._bar_at_s = self._stopwatch()
            picture.equity.add(vitals.equity)
            if vitals.bars_per_s:
                picture.speed.add(vitals.bars_per_s)
        if vitals.minutes != self._minutes and vitals.latency_minute.p99 is not None:
            self._minutes = vitals.minutes
            picture.p99.add(vitals.latency_minute.p99)
        if vitals.machine is not None and vitals.machine.at_s != self._sampled_at_s:
            self._sampled_at_s = vitals.machine.at_s
            picture.memory.add(sum(map(resident, vitals.machine.processes)))
        for change in _changes(before, vitals):
            self._changes.appendleft(change)
            if not self._drawn:
                self._line(f"{vitals.bars:,} bars: {alert_line(change)}", due=False)
        picture.changes = tuple(self._changes)
        picture.vitals = vitals
        self._line_if_due()

    def _reach(self, stage: Stage) -> None:
        self._picture.stage = stage
        self._line_if_due()

    def _render(self) -> Group:
        console, picture = self._console, self._picture
        self._look_at_the_time()
        size = console.size
        ascii_only = console.options.ascii_only
        # A full last line would make the terminal scroll, and a full last column some of them wrap.
        return Group(*frame(picture, size.width - 1, size.height - _LINES_BELOW, ascii_only=ascii_only))

    def _look_at_the_time(self) -> None:
        now = self._stopwatch()
        self._picture.elapsed_s, self._picture.silent_s = now - self._began, now - self._bar_at_s

    def _line_if_due(self) -> None:
        if self._drawn or self._stopwatch() - self._line_at_s < self._line_every_s:
            return
        self._look_at_the_time()
        picture = self._picture
        stage = picture.stage
        if under_way(picture.vitals):
            self._line(plain_line(picture))
        elif stage.done < stage.total:
            self._line(f"{stage.name}: {stage.done:,.0f} of {stage.total:,.0f}")

    def _line(self, text: str, *, due: bool = True) -> None:
        if due:
            self._line_at_s = self._stopwatch()
        try:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)
            self._console.file.flush()
        except OSError:
            # A log that takes no more is no reason to end what is looked at.
            _silence(self._console)


class _Console(Console):
    """One that goes on when nobody reads it any more; rich's own ends the program."""

    def on_broken_pipe(self) -> None:
        """Write to nowhere from now on."""
        _silence(self)


def _silence(console: Console) -> None:
    """Write no more where nobody takes it."""
    console.quiet = True
    with contextlib.suppress(OSError, ValueError):
        to_nowhere(console.file)


def _changes(before: Vitals, now: Vitals) -> Iterator[Alert]:
    """What came and what went between the two."""
    old, new = ({(alert.name, alert.ts_ns): alert for alert in vitals.alerts} for vitals in (before, now))
    for key, alert in old.items():
        if key not in new:
            yield Alert(now.ts_ns, alert.name, alert.severity, False, alert.detail)
    for key, alert in new.items():
        if key not in old:
            yield alert


@contextlib.contextmanager
def live_backtest(title: str, deadline_ms: float) -> Iterator[tuple[Dashboard, VitalsCollector]]:
    """A dashboard, and the observer through which a backtest in this process feeds it.

    Without a deadline (0) latencies are held against the target of all vitals.
    """
    machine = Machine(lambda: {os.getpid(): "trading"})
    with Sampler(machine) as sampler, Dashboard(title) as dashboard:
        collector = VitalsCollector(
            target_ms=deadline_ms or Vitals.target_ms,
            tell=dashboard.update,
            tell_every_s=1.0 / FRAMES_PER_S,
            machine=lambda: sampler.newest,
        )
        yield dashboard, collector
