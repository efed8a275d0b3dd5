"""What a person who leaves a run alone wants of it: alerts to a file and a webhook, metrics for Prometheus.

with telemetry(config.watch, alerts=path, webhook_url_env="HOOK", metrics_port=9464) as consumer:
    ...  # consumer(vitals), now and then
print(consumer.summary)
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from regime.alerts import Alert
from sage.metrics import Exporter, MetricsServer, serve
from sage.sinks import Delivery, FileSink, LogSink, Sink
from sage.vitals import Vitals
from sage.watch import Watch, WatchConfig
from sage.webhook import Address, Webhook


@dataclass(frozen=True)
class TelemetrySummary:
    """What was told to whom.

    ``raised`` counts alerts by name, ``still_on`` names those that were on at the end, ``held_back`` counts what the
    cool-down kept from being raised again. ``scrapes`` is None where no metrics were served.
    """

    raised: dict[str, int]
    still_on: tuple[str, ...]
    held_back: int
    deliveries: tuple[Delivery, ...]
    scrapes: int | None

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each sink that did not get everything."""
        return tuple(str(one) for one in self.deliveries if one.failed or one.dropped)

    def __str__(self) -> str:
        raised = ", ".join(f"{name} {count}" for name, count in self.raised.items()) or "none"
        held = f"; {self.held_back} held back" if self.held_back else ""
        still = f"; still on: {', '.join(self.still_on)}" if self.still_on else ""
        scraped = [] if self.scrapes is None else [f"metrics: asked for {self.scrapes} times"]
        return "\n".join([f"alerts raised: {raised}{held}{still}", *map(str, self.deliveries), *scraped])


class Telemetry:
    """Takes vitals in, one after the other, from one thread; costs next to nothing and waits for nobody."""

    def __init__(self, watch: Watch, sinks: Sequence[Sink], exporter: Exporter | None, server: MetricsServer | None):
        self.url = server.url if server else None
        self.newest: tuple[Alert, ...] = ()
        self._watch = watch
        self._sinks = sinks
        self._exporter = exporter
        self._server = server
        self._deliveries: tuple[Delivery, ...] = ()

    @property
    def active(self) -> tuple[Alert, ...]:
        """The alerts that are on: the detector's, and those about machine, latency and level."""
        return self._watch.active

    @property
    def summary(self) -> TelemetrySummary:
        """What was told to whom; complete once the context has ended."""
        return TelemetrySummary(
            raised=dict(sorted((+self._watch.raised).items())),
            still_on=tuple(alert.name for alert in self.active),
            held_back=self._watch.held_back,
            deliveries=self._deliveries,
            scrapes=self._server.scrapes if self._server else None,
        )

    def __call__(self, vitals: Vitals) -> None:
        """See the newest vitals; ``newest`` are then the alerts that came or went by them."""
        self.newest = tuple(self._watch.see(vitals))
        for alert in self.newest:
            for sink in self._sinks:
                sink.tell(alert)
        if self._exporter is not None:
            self._exporter.update(dataclasses.replace(vitals, alerts=self.active))

    def go_on_from(self, before: Vitals) -> None:
        """A run goes on where these were the newest: nobody is told again of what happened by then."""
        self._watch.go_on_from(before)

    def close(self) -> None:
        """Have every sink finish."""
        closed = [sink.close() for sink in self._sinks]
        self._deliveries = tuple(delivery for delivery in closed if delivery is not None)


@contextlib.contextmanager
def telemetry(
    config: WatchConfig,
    *,
    alerts: Path | None = None,
    webhook_url_env: str | None = None,
    metrics_port: int | None = None,
    metrics_host: str = "127.0.0.1",
) -> Iterator[Telemetry]:
    """Everything that the options ask for; alerts go to the log in any case, for whoever has set up logging.

    Parameters
    ----------
    config
        The rules' marks.
    alerts
        A file for alerts, one JSON object a line.
    webhook_url_env
        The name of the environment variable with the address to post to, see :class:`sage.webhook.Address`.
    metrics_port, metrics_host
        Where to serve metrics; port 0 takes any that is free.

    Raises
    ------
    OptionError
        If one of them makes no sense, before anything has begun.
    """
    sinks: list[Sink] = [LogSink()]
    if alerts is not None:
        sinks.append(FileSink(alerts))
    address = Address.from_environment(webhook_url_env) if webhook_url_env is not None else None
    with contextlib.ExitStack() as stack:
        exporter = server = None
        if metrics_port is not None:
            exporter = Exporter()
            server = stack.enter_context(serve(exporter, metrics_port, metrics_host))
        if address is not None:
            sinks.append(Webhook(address))
        found = Telemetry(Watch(config), sinks, exporter, server)
        stack.callback(found.close)
        yield found
