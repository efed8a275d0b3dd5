"""How the model process is run, and when it is replaced."""

from __future__ import annotations

from dataclasses import dataclass, field

from regime.model.engines import EngineSpec


@dataclass(frozen=True)
class ServingConfig:
    """The model process: its engine, how long it may take to start, be silent and stay away, and its memory.

    A process that has not said that it is ready ``start_timeout_s`` after it was started, whose heart has not beaten
    for ``silence_limit_s``, or that has not answered a request for ``hang_limit_s``, is killed. One that died or was
    killed is started again after ``back_off_s``, doubled with each failure in a row up to ``back_off_max_s``. With
    ``watch_s`` above 0 this happens between forecasts as well, looked after so often; 0 leaves it to the next one.

    On the CPU the process may hold ``memory_limit_mb`` of private memory (10**6 bytes; less in a container that has
    less; 0 for no limit). When its resident memory passes ``recycle_share`` of that, a successor is started beside
    it, and takes over once it is ready.
    """

    engine: EngineSpec = field(default_factory=EngineSpec)

    start_timeout_s: float = 120.0
    hang_limit_s: float = 30.0
    silence_limit_s: float = 5.0
    back_off_s: float = 1.0
    back_off_max_s: float = 60.0
    watch_s: float = 0.0
    memory_limit_mb: float = 4096.0
    recycle_share: float = 0.7
