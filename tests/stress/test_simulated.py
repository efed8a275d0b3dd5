"""The real client and simulated processes: hours of waiting, in no time."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import pytest

from regime.errors import ForecastFailed, ModelUnavailable
from regime.forecast import Context
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from regime.signal import Reason
from stress.misbehaviour import Misbehaviour
from stress.simulated import FIRST_PID, Machine, Pace, honest_answer
from stress.witness import SIMULATED_CHECKPOINT

HOUR_S = 3600.0
DEADLINE_S = 0.047
HORIZON = 4
EVEN = Pace(answer_spread=0.0, straggler_one_in=10**9)


def window(seed: int = 0, volatility: float = 0.01) -> Context:
    return (volatility * np.random.default_rng(seed).standard_normal((1, 64))).astype(np.float32)


@pytest.fixture
def machine() -> Iterator[Machine]:
    found = Machine(EVEN, seed=1)
    yield found
    found.close()


@pytest.fixture
def client(machine: Machine) -> Iterator[ModelClient]:
    config = ServingConfig(start_timeout_s=120.0, hang_limit_s=30.0, back_off_s=1.0, back_off_max_s=8.0)
    with ModelClient(SIMULATED_CHECKPOINT, config, machine.time.now, machine.launch) as found:
        found.start()
        yield found


def reason_of_failure(client: ModelClient, asked: Context | None = None) -> Reason:
    with pytest.raises(ForecastFailed) as caught:
        client.forecast(window() if asked is None else asked, HORIZON, DEADLINE_S)
    return caught.value.reason


def test_the_simulated_model_is_honest_about_width_and_trend() -> None:
    calm, storm = (honest_answer(window(volatility=scale), HORIZON).quantiles[0] for scale in (0.01, 0.03))
    np.testing.assert_allclose(np.ptp(storm, axis=1), 3.0 * np.ptp(calm, axis=1), rtol=1e-4)
    rising = honest_answer(window() + np.float32(0.02), HORIZON).quantiles[0, :, 4]
    falling = honest_answer(window() - np.float32(0.02), HORIZON).quantiles[0, :, 4]
    assert (rising > 0).all()
    assert (falling < 0).all()


def test_waiting_in_vain_takes_the_time_allowed_and_not_much_more(machine: Machine, client: ModelClient) -> None:
    machine.control.set(Misbehaviour.SLOW, 10.0)
    began = machine.time.s
    assert reason_of_failure(client) is Reason.TIMEOUT
    assert DEADLINE_S <= machine.time.s - began <= DEADLINE_S + 2 * machine.pace.wake_s


def test_loading_takes_simulated_time(machine: Machine, client: ModelClient) -> None:
    assert client.pid is not None
    machine.kill(client.pid, signal.SIGKILL)
    assert reason_of_failure(client) is Reason.MODEL_DIED
    machine.time.advance(2.0)
    assert reason_of_failure(client) is Reason.TIMEOUT
    machine.time.advance(2 * machine.pace.load_s)
    assert np.isfinite(client.forecast(window(), HORIZON, DEADLINE_S)).all()
    assert (client.restarts, client.lost) == (1, 1)


def test_a_stopped_process_answers_late_by_the_time_it_was_stopped(machine: Machine, client: ModelClient) -> None:
    assert client.pid is not None
    machine.kill(client.pid, signal.SIGSTOP)
    assert reason_of_failure(client) is Reason.TIMEOUT
    machine.time.advance(2.0)
    machine.kill(client.pid, signal.SIGCONT)
    np.testing.assert_array_equal(
        client.forecast(window(1), HORIZON, DEADLINE_S), honest_answer(window(1), HORIZON).quantiles
    )
    assert client.restarts == 0


def test_a_process_that_died_answering_is_reported_and_replaced(machine: Machine, client: ModelClient) -> None:
    machine.dies_answering = True
    assert reason_of_failure(client) is Reason.MODEL_DIED
    machine.dies_answering = False
    machine.time.advance(1.1)
    assert np.isfinite(client.forecast(window(), HORIZON, HOUR_S)).all()


def test_a_process_whose_heart_stands_still_is_replaced_though_it_answers(
    machine: Machine, client: ModelClient
) -> None:
    first = client.pid
    machine.hearts_stand_since = machine.time.s
    for _ in range(8):
        machine.time.advance(1.0)
        client.tend()
    assert client.pid != first


def test_a_leaking_process_is_relieved_without_a_forecast_lost(machine: Machine, client: ModelClient) -> None:
    machine.leak_bytes = 60_000_000
    for _ in range(140):
        machine.time.advance(0.1)
        assert np.isfinite(client.forecast(window(), HORIZON, DEADLINE_S)).all()
    assert client.recycled >= 1
    assert client.lost == 0


def test_a_successor_that_never_loads_is_given_up_and_another_one_tried(machine: Machine, client: ModelClient) -> None:
    machine.leak_bytes = 60_000_000
    machine.load_factor = 1e9
    launched = len(machine.processes)
    for _ in range(140):
        machine.time.advance(0.1)
        client.forecast(window(), HORIZON, DEADLINE_S)
    assert len(machine.processes) == launched + 1
    machine.time.advance(130.0)
    client.forecast(window(), HORIZON, DEADLINE_S)
    assert machine.processes[launched].gone and client.recycled == 0
    machine.load_factor = 1.0
    for _ in range(140):
        machine.time.advance(0.1)
        client.forecast(window(), HORIZON, DEADLINE_S)
    assert client.recycled == 1 and client.lost == 0


def test_a_process_that_cannot_load_says_why(machine: Machine) -> None:
    machine.load_error = "the weights are damaged"
    with (
        ModelClient(SIMULATED_CHECKPOINT, ServingConfig(), machine.time.now, machine.launch) as client,
        pytest.raises(ModelUnavailable, match="the weights are damaged"),
    ):
        client.start()


def test_a_model_that_has_loaded_while_nobody_asked_is_not_started_again(machine: Machine, client: ModelClient) -> None:
    assert client.pid is not None
    machine.kill(client.pid, signal.SIGKILL)
    assert reason_of_failure(client) is Reason.MODEL_DIED
    machine.time.advance(HOUR_S)
    assert reason_of_failure(client) is Reason.TIMEOUT
    successor = client.pid
    machine.time.advance(HOUR_S)
    assert np.isfinite(client.forecast(window(), HORIZON, DEADLINE_S)).all()
    assert client.pid == successor


def test_an_answer_that_came_while_nobody_asked_costs_no_process(machine: Machine, client: ModelClient) -> None:
    first = client.pid
    machine.control.set(Misbehaviour.SLOW, 1.0)
    assert reason_of_failure(client) is Reason.TIMEOUT
    machine.control.set(Misbehaviour.NONE)
    machine.time.advance(HOUR_S)
    assert np.isfinite(client.forecast(window(1), HORIZON, DEADLINE_S)).all()
    assert client.pid == first


def test_no_signal_reaches_a_process_that_is_not_there(machine: Machine) -> None:
    with pytest.raises(ProcessLookupError):
        machine.kill(FIRST_PID + 7, signal.SIGKILL)


def test_nothing_is_left_on_the_machine_when_the_client_closes(machine: Machine) -> None:
    machine.unkillable_s = 0.5
    with ModelClient(SIMULATED_CHECKPOINT, ServingConfig(), machine.time.now, machine.launch) as client:
        client.start()
    assert [process.ended for process in machine.processes] == [True]
