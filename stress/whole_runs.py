"""Faults that are there before the first bar, or after the last: hub, store, catalog and disk.

Each has a run of its own and says itself what was not as it must be; :mod:`stress.expectations` says what that is.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from data.catalog import BarCatalog
from data.errors import DataError
from regime.errors import ModelUnavailable
from regime.model.checkpoint import Checkpoint, find_checkpoint
from regime.model.registry import directory_of
from regime.signal import Level, Reason
from sage.backtest import run_backtest
from sage.config import BacktestConfig, DataConfig
from sage.results import determinism_hash_of
from sage.rig import Rig
from sage.run import BacktestRun
from stress.cases import CaseResult, InjectConfig
from stress.expectations import Footing, levels_allowed
from stress.hub import REPO, REVISION, absent_hub, lying_hub
from stress.inject import market_of, run_config
from stress.stage import Failure

BARS = 300
_ONLY_HALF = 0.5
_CHILD_LIMIT_S = 300.0

_PULL = """
import sys
from regime.errors import ModelUnavailable
from regime.model.pull import pull
from regime.model.registry import HubName
try:
    pull(HubName.parse(sys.argv[1]))
except ModelUnavailable as error:
    sys.exit(str(error))
"""


@dataclass(frozen=True)
class RunFault:
    """A fault that concerns a run as a whole.

    ``provoke`` gets an empty directory and a result to fill, and yields a sentence for everything that was not as it
    must be. ``needs`` names what must be there, see :func:`stress.needs.missing`.
    """

    name: str
    does: str
    ends: str
    failure: Failure
    provoke: Callable[[InjectConfig, Path, CaseResult], Iterator[str]]
    needs: frozenset[str] = frozenset()


class _PullingRig(Rig):
    """Pulls its model from a hub when it is asked for one."""

    def __init__(self, endpoint: str, directory: Path) -> None:
        self._endpoint = endpoint
        self._home = directory / "hub"
        self._models = directory / "models"

    def checkpoint(self, name: str) -> Checkpoint:
        """Pull it, in a process of its own: the hub's client reads its environment when it is imported."""
        place = {
            "HF_ENDPOINT": self._endpoint,
            "HF_HOME": str(self._home),
            "HF_HUB_OFFLINE": "0",
            "SAGE_MODELS": str(self._models),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        done = subprocess.run(
            [sys.executable, "-c", _PULL, name],
            env=os.environ | place,
            capture_output=True,
            text=True,
            timeout=_CHILD_LIMIT_S,
            check=False,
        )
        if done.returncode:
            raise ModelUnavailable(done.stderr.strip() or f"pulling {name} failed with exit code {done.returncode}")
        return find_checkpoint(str(directory_of(REPO, REVISION, self._models)))

    def left_behind(self) -> list[Path]:
        """Files that a pull has taken for a model, or for a part of one."""
        kept = {*self._models.rglob("*.safetensors"), *self._home.rglob("*.incomplete")}
        return sorted(kept | {path for path in self._home.rglob("blobs/*") if path.is_file()})


def _without_hub(hub: Callable[[InjectConfig], AbstractContextManager[str]]) -> Callable[..., Iterator[str]]:
    def provoke(config: InjectConfig, directory: Path, result: CaseResult) -> Iterator[str]:
        settings = run_config(dataclasses.replace(config, bars=BARS, model=f"{REPO}@{REVISION}"))
        settings = dataclasses.replace(settings, model=dataclasses.replace(settings.model, allow_degraded=True))
        with hub(config) as endpoint:
            rig = _PullingRig(endpoint, directory)
            run = run_backtest(settings, rig=rig, market=market_of(BARS, config.seed))
        if not run.model_error:
            yield "the run took what came for a model"
        for path in rig.left_behind():
            yield f"{path.name} was left behind"
        _take_in(result, run)
        yield from _every_bar_at_its_level(result.failure, run, Reason.MODEL_UNAVAILABLE)

    return provoke


def _take_in(result: CaseResult, run: BacktestRun) -> None:
    result.for_bars = len(run.market.bars)
    result.began_at_bar = 1
    result.levels = Counter(signal.level for signal in run.signals)
    result.reasons = Counter(reason for signal in run.signals for reason in set(signal.reasons))
    result.bars_lost = len(run.market.bars) - len(run.signals) - len(run.rejections)
    result.worst_ms = max((timing.total_ms for timing in run.timings), default=0.0)
    result.orders_degraded = sum(order.level > Level.FULL for order in run.sent_orders)


def _every_bar_at_its_level(failure: Failure, run: BacktestRun, reason: Reason) -> Iterator[str]:
    regime, wrong = run.config.regime, 0
    for number, signal in enumerate(run.signals):
        best, worst = levels_allowed(failure, Footing(number + 1, 0, number), regime)
        named = number < regime.model_min_bars or reason in signal.reasons
        wrong += not (best <= signal.level <= worst and named)
    if wrong:
        yield f"{wrong} bars answered at another level than they must, or without {reason}"
    if len(run.signals) != len(run.market.bars):
        yield f"{len(run.market.bars)} bars, {len(run.signals)} signals"


def ahead(config: InjectConfig, store: Path) -> BacktestConfig:
    """A short run whose forecasts are made ahead and kept in a store of its own."""
    settings = run_config(dataclasses.replace(config, bars=BARS))
    return dataclasses.replace(
        settings,
        model=dataclasses.replace(settings.model, online=False, store=True, store_dir=str(store)),
        regime=dataclasses.replace(settings.regime, deadline_ms=0.0),
    )


def _damage(files: list[Path]) -> None:
    for path in files:
        content = path.read_bytes()
        path.write_bytes(content[: int(_ONLY_HALF * len(content))])


def _damaged_store(config: InjectConfig, directory: Path, result: CaseResult) -> Iterator[str]:
    settings, market = ahead(config, directory), market_of(BARS, config.seed)
    sound = run_backtest(settings, market=market)
    parts = sorted(directory.rglob("part-*.parquet"))
    _damage(parts)
    run = run_backtest(settings, market=market)
    _take_in(result, run)
    if not parts:
        yield "the first run kept no forecasts, so that nothing could be damaged"
    if not any("damaged" in note for note in run.notes):
        yield "the run does not say that its store was damaged"
    if determinism_hash_of(run) != determinism_hash_of(sound):
        yield "the run came out otherwise than with a sound store"
    if not run.forecasts_computed:
        yield "forecasts were taken from a damaged store"


def _damaged_catalog(config: InjectConfig, directory: Path, result: CaseResult) -> Iterator[str]:
    market = market_of(BARS, config.seed)
    root = directory / "catalog"
    BarCatalog(root, create=True).write(market.bars, market.instrument, market.size)
    settings = ahead(config, directory / "store")
    settings = dataclasses.replace(
        settings, data=DataConfig(source="catalog", catalog=str(root), instrument=str(market.instrument.id))
    )
    files = sorted((root / "data" / "bar").rglob("*.parquet"))
    before = run_backtest(settings)
    if len(before.market.bars) != BARS:
        yield f"the sound catalog gave {len(before.market.bars)} of {BARS} bars"
    _damage(files)
    try:
        run = run_backtest(settings)
    except DataError as error:
        if str(root) not in str(error):
            yield f"the message does not say where: {error}"
        result.why = str(error)
    else:
        _take_in(result, run)
        yield f"a run over {len(run.signals)} bars was made of a damaged catalog"


_TINY = """
set -e
mount -t tmpfs -o size=96k none "$1"
exec "$2" -m stress.full_disk "$1" "$3"
"""


def in_tiny_filesystem(directory: Path, command: str = _TINY, *arguments: str) -> list[str]:
    """The command line of a shell that may mount a file system of its own, seen by nobody else."""
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command, "sh", str(directory), *arguments]


def _full_disk(config: InjectConfig, directory: Path, result: CaseResult) -> Iterator[str]:
    wanted = json.dumps(dataclasses.asdict(dataclasses.replace(config, bars=BARS)))
    done = subprocess.run(
        in_tiny_filesystem(directory, _TINY, sys.executable, wanted),
        capture_output=True,
        text=True,
        timeout=_CHILD_LIMIT_S,
        check=False,
    )
    try:
        seen = json.loads(done.stdout)
    except ValueError:
        yield f"the run on the full disk broke off: {(done.stderr.strip().splitlines() or ['no word'])[-1]}"
        return
    result.for_bars, result.began_at_bar = BARS, 1
    result.levels = Counter({Level(int(level)): count for level, count in seen["levels"].items()})
    result.bars_lost = BARS - seen["signals"]
    result.why = seen["error"]
    yield from seen["problems"]


def _shallow(config: InjectConfig) -> AbstractContextManager[str]:  # noqa: ARG001 (one signature for both hubs)
    return absent_hub()


RUN_FAULTS: dict[str, RunFault] = {
    fault.name: fault
    for fault in (
        RunFault(
            "hub.down", "the hub refuses connections when the model is pulled", "the next run pulls again",
            Failure.CHECKPOINT_UNUSABLE, _without_hub(_shallow), frozenset({"hub"}),
        ),
        RunFault(
            "hub.lying", "the hub sends another file than it announced", "the next run pulls again",
            Failure.CHECKPOINT_UNUSABLE, _without_hub(lambda config: lying_hub(config.seed)), frozenset({"hub"}),
        ),
        RunFault(
            "store.damaged", "half of every file of the forecast store is gone", "the forecasts are made again",
            Failure.HARMLESS, _damaged_store,
        ),
        RunFault(
            "catalog.damaged", "half of the catalog's bars are gone from its file", "the interval is ingested again",
            Failure.RUN_REFUSED, _damaged_catalog,
        ),
        RunFault(
            "disk.full", "forecast store and run directory lie on a file system of 96 kB", "somebody makes room",
            Failure.RUN_REFUSED, _full_disk, frozenset({"tiny file system"}),
        ),
    )
}  # fmt: skip
"""Faults of whole runs, by name."""
