"""What the client does for a model process that is dead, silent, too large or in too good company."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from regime.errors import ForecastFailed, ModelUnavailable
from regime.model.checkpoint import WEIGHTS_FILE, find_checkpoint
from regime.serving.client import LOOK_AT_MEMORY_EVERY, ModelClient
from regime.serving.config import ServingConfig
from regime.serving.process import memory_limit_bytes
from regime.signal import Reason
from stress.misbehaviour import Control, MisbehavingProcess, Misbehaviour
from tests.regime.test_serving import HORIZON, PATIENT_S, copied_checkpoint, windows

WAIT_S = 60.0


def until(holds: Callable[[], bool]) -> bool:
    """Whether something comes to hold while there is patience."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return False


def client_with(control: Control | None = None, **changes: float) -> ModelClient:
    """A client of the shipped checkpoint that starts again at once; its model can be made to misbehave."""
    config = ServingConfig(**{"back_off_s": 0.0, **changes})  # type: ignore[arg-type]
    checkpoint = find_checkpoint("embedded")
    if control is None:
        return ModelClient(checkpoint, config)

    return ModelClient(checkpoint, config, launch=partial(MisbehavingProcess, control))


def test_the_start_up_check_forecasts_once_and_tells_how_long_that_took() -> None:
    with client_with() as client:
        assert client.check_ms is None
        client.start()
        assert client.check_ms is not None
        assert client.check_ms > 0


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Misbehaviour.NAN_MEDIAN, "NOT_FINITE"),
        (Misbehaviour.CROSSED, "CROSSED_QUANTILES"),
        (Misbehaviour.CONSTANT, "ABSURD_WIDTH"),
        (Misbehaviour.RAISE, "planted"),
        (Misbehaviour.WRONG_SHAPE, "WRONG_SHAPE"),
    ],
)
def test_a_model_that_fails_its_start_up_check_is_not_taken(kind: Misbehaviour, said: str) -> None:
    control = Control()
    control.set(kind)
    with client_with(control) as client, pytest.raises(ModelUnavailable, match=said):
        client.start()
    control.close()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Misbehaviour.RAISE, Reason.MODEL_ERROR),
        (Misbehaviour.OUT_OF_MEMORY, Reason.OUT_OF_MEMORY),
        (Misbehaviour.WRONG_SHAPE, Reason.WRONG_SHAPE),
        (Misbehaviour.STALE, Reason.STALE_ANSWER),
    ],
)
def test_a_misbehaving_model_fails_its_forecast_and_not_the_next_one(kind: Misbehaviour, reason: Reason) -> None:
    control = Control()
    with client_with(control) as client:
        client.start()
        pid = client.pid
        truth = client.forecast(windows(1, seed=5), HORIZON, PATIENT_S)
        control.set(kind)
        with pytest.raises(ForecastFailed) as caught:
            client.forecast(windows(1, seed=6), HORIZON, PATIENT_S)
        assert caught.value.reason is reason
        control.set(Misbehaviour.NONE)
        np.testing.assert_array_equal(client.forecast(windows(1, seed=5), HORIZON, PATIENT_S), truth)
        assert client.pid == pid
    control.close()


def test_who_has_the_patience_waits_for_a_process_that_is_to_be_started_again() -> None:
    with client_with(back_off_s=0.4) as client:
        client.start()
        for _ in range(2):
            assert client.pid is not None
            os.kill(client.pid, signal.SIGKILL)
            with pytest.raises(ForecastFailed) as caught:
                client.forecast(windows(1), HORIZON, PATIENT_S)
            assert caught.value.reason is Reason.MODEL_DIED
            with pytest.raises(ForecastFailed) as caught:
                client.forecast(windows(1), HORIZON, 0.05)
            assert caught.value.reason is Reason.MODEL_UNAVAILABLE
            assert np.isfinite(client.forecast(windows(1), HORIZON, PATIENT_S)).all()


def test_a_silent_process_is_replaced_long_before_the_hang_limit() -> None:
    with client_with(silence_limit_s=0.5) as client:
        client.start()
        stopped = client.pid
        assert stopped is not None
        os.kill(stopped, signal.SIGSTOP)

        def replaced() -> bool:
            with pytest.raises(ForecastFailed):
                client.forecast(windows(1), HORIZON, 0.05)
            return client.pid != stopped

        assert until(replaced)
        assert np.isfinite(client.forecast(windows(1), HORIZON, PATIENT_S)).all()


def test_a_slow_forecast_is_not_taken_for_silence() -> None:
    control = Control()
    with client_with(control, silence_limit_s=0.3) as client:
        client.start()
        pid = client.pid
        control.set(Misbehaviour.SLOW, 1.5)
        for _ in range(8):
            with pytest.raises(ForecastFailed) as caught:
                client.forecast(windows(1), HORIZON, 0.1)
            assert caught.value.reason is Reason.TIMEOUT
        control.set(Misbehaviour.NONE)
        assert np.isfinite(client.forecast(windows(1), HORIZON, PATIENT_S)).all()
        assert client.pid == pid
    control.close()


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
def test_a_watched_process_is_replaced_between_forecasts(harm: signal.Signals) -> None:
    with client_with(watch_s=0.05, silence_limit_s=0.5) as client:
        client.start()
        harmed = client.pid
        assert harmed is not None
        os.kill(harmed, harm)
        assert until(lambda: client.pid not in {harmed, None})
        assert np.isfinite(client.forecast(windows(1), HORIZON, PATIENT_S)).all()
        assert until(lambda: not psutil.pid_exists(harmed))


def test_a_process_that_outgrows_its_memory_is_relieved_without_losing_a_forecast() -> None:
    # A share so small that any process is too large: each one is relieved at its first look.
    with client_with(recycle_share=0.001) as client:
        client.start()
        first = client.pid
        truth = client.forecast(windows(1), HORIZON, PATIENT_S)

        def relieved() -> bool:
            np.testing.assert_array_equal(client.forecast(windows(1), HORIZON, PATIENT_S), truth)
            return client.recycled > 0

        for _ in range(LOOK_AT_MEMORY_EVERY):
            relieved()
        assert until(relieved)
        assert client.pid != first


def test_a_process_that_refuses_for_want_of_memory_is_relieved_and_not_left_to_refuse_for_good() -> None:
    control = Control()
    with client_with(control, recycle_share=0.001) as client:
        client.start()
        first = client.pid
        control.set(Misbehaviour.OUT_OF_MEMORY)
        with pytest.raises(ForecastFailed) as caught:
            client.forecast(windows(1), HORIZON, PATIENT_S)
        assert caught.value.reason is Reason.OUT_OF_MEMORY
        control.set(Misbehaviour.NONE)

        def relieved() -> bool:
            client.forecast(windows(1), HORIZON, PATIENT_S)
            return client.pid != first

        assert until(relieved)
    control.close()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_watcher_goes_on_when_what_it_started_cannot_load(tmp_path: Path) -> None:
    own = copied_checkpoint(tmp_path / "own")
    weights = own / WEIGHTS_FILE
    config = ServingConfig(back_off_s=0.02, back_off_max_s=0.02, watch_s=0.01)
    with ModelClient(find_checkpoint(str(own)), config) as client:
        client.start()
        sound, first = weights.read_bytes(), client.restarts
        weights.write_bytes(sound[:1_000])
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        assert until(lambda: client.restarts >= first + 3)
        weights.write_bytes(sound)

        def answers() -> bool:
            try:
                return bool(np.isfinite(client.forecast(windows(1), HORIZON, PATIENT_S)).all())
            except ForecastFailed:
                return False

        assert until(answers)


def test_a_process_may_not_hold_more_memory_than_its_ceiling() -> None:
    with client_with(memory_limit_mb=30.0) as client, pytest.raises(ModelUnavailable, match="not enough memory"):
        client.start()


def test_there_is_no_ceiling_where_none_is_wanted() -> None:
    assert memory_limit_bytes(ServingConfig(memory_limit_mb=0.0)) == 0
    assert 0 < memory_limit_bytes(ServingConfig(memory_limit_mb=100.0)) <= 100_000_000


def test_first_calls_from_many_threads_load_one_model_and_all_are_answered() -> None:
    with client_with() as client, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.forecast(windows(1), HORIZON, PATIENT_S), range(8)))
        assert client.restarts == 0
        for answer in answers:
            np.testing.assert_array_equal(answer, answers[0])


def test_the_process_outlives_the_thread_that_asked_first() -> None:
    with client_with() as client:
        thread = threading.Thread(target=client.start)
        thread.start()
        thread.join()
        pid = client.pid
        assert np.isfinite(client.forecast(windows(1), HORIZON, PATIENT_S)).all()
        assert client.pid == pid


def test_a_forecast_waits_for_another_no_longer_than_it_may() -> None:
    control = Control()
    with client_with(control) as client:
        client.start()
        control.set(Misbehaviour.SLOW, 1.0)
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(client.forecast, windows(1), HORIZON, PATIENT_S)
            assert until(lambda: client._lock.locked())
            with pytest.raises(ForecastFailed, match="another forecast is outstanding"):
                client.forecast(windows(1), HORIZON, 0.01)
            assert np.isfinite(slow.result()).all()
    control.close()


PARENT = """
import os, signal, sys, time
from regime.model.checkpoint import WEIGHTS_FILE, find_checkpoint
from regime.serving.client import ModelClient
client = ModelClient(find_checkpoint("embedded"))
client.start()
print(client.pid, flush=True)
if "stopped" in sys.argv:
    os.kill(client.pid, signal.SIGSTOP)
time.sleep(600)
"""


@pytest.mark.parametrize("child", ["running", "stopped"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_is_left_when_the_parent_is_ended(child: str, end: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, child], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    left = psutil.Process(int(parent.stdout.readline()))
    if child == "stopped":
        assert until(lambda: left.status() == psutil.STATUS_STOPPED)
    parent.send_signal(end)
    parent.wait()
    parent.stdout.close()
    # Without a reaper it may stay as a zombie, which holds nothing.
    assert until(lambda: not left.is_running() or left.status() == psutil.STATUS_ZOMBIE)


def test_ten_deaths_leave_no_descriptor_thread_or_process_behind() -> None:
    me = psutil.Process()
    with client_with() as client:
        client.start()
        client.forecast(windows(1), HORIZON, PATIENT_S)
        before = me.num_fds(), me.num_threads()
        for _ in range(10):
            assert client.pid is not None
            os.kill(client.pid, signal.SIGKILL)
            with pytest.raises(ForecastFailed):
                client.forecast(windows(1), HORIZON, PATIENT_S)
            client.forecast(windows(1), HORIZON, PATIENT_S)
        client.tend()
        assert (me.num_fds(), me.num_threads()) == before
        assert client.pids == [client.pid]
    assert not [child for child in me.children() if child.pid == client.pid]
