"""The model process: it answers, it may be late, hang or die, and it leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file, save_file

from regime.config import RegimeConfig
from regime.errors import ForecastFailed, ModelUnavailable
from regime.forecast import Context
from regime.model.checkpoint import CONFIG_FILE, WEIGHTS_FILE, find_checkpoint
from regime.model.engines import EngineSpec
from regime.serving.ahead import BATCH_ROWS, AheadForecasts, forecast_ahead
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from regime.signal import Level, Reason
from tests.regime.streams import HOUR_S, bars, detector, signals_of

HORIZON = 16
PATIENT_S = 120.0


def windows(rows: int, seed: int = 0) -> Context:
    rng = np.random.default_rng(seed)
    return (0.01 * rng.standard_t(5, size=(rows, 512))).astype(np.float32)


@pytest.fixture
def own_model() -> Iterator[ModelClient]:
    """A process that the test may harm; it is started again at once."""
    with ModelClient(find_checkpoint("embedded"), ServingConfig(back_off_s=0.0)) as client:
        client.start()
        yield client


def test_quantiles_come_in_order_and_in_shape(model: ModelClient) -> None:
    found = model.forecast(windows(3), HORIZON, PATIENT_S)
    assert found.shape == (3, HORIZON, 9)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert (np.diff(found, axis=2) > -1e-4).all()


def test_a_forecast_scales_with_its_window(model: ModelClient) -> None:
    one = model.forecast(windows(1), HORIZON, PATIENT_S)
    other = model.forecast(4.0 * windows(1), HORIZON, PATIENT_S)
    np.testing.assert_allclose(other, 4.0 * one, rtol=1e-4, atol=1e-7)


def test_the_forecast_of_a_calm_window_is_narrower_after_calm_than_after_a_storm(model: ModelClient) -> None:
    calm, storm = windows(1), windows(1)
    calm[0, -48:] *= 0.3
    storm[0, -48:] *= 3.0
    narrow, wide = (float(np.ptp(model.forecast(window, HORIZON, PATIENT_S)[0, 0])) for window in (calm, storm))
    assert narrow < wide / 3


def test_windows_shorter_than_the_context_are_answered(model: ModelClient) -> None:
    window = windows(1)
    window[0, : 512 - 31] = np.nan
    assert np.isfinite(model.forecast(window, HORIZON, PATIENT_S)).all()


def test_horizons_beyond_one_patch_are_answered(model: ModelClient) -> None:
    assert model.forecast(windows(2), 40, PATIENT_S).shape == (2, 40, 9)


def test_batched_and_single_answers_are_the_same_bits(model: ModelClient) -> None:
    batch = windows(BATCH_ROWS)
    together = model.forecast(batch, HORIZON, PATIENT_S)
    single = np.concatenate([model.forecast(batch[row : row + 1], HORIZON, PATIENT_S) for row in range(3)])
    if not model.engine.startswith("native"):  # torch's products depend on the shape of the batch, in the last digits
        np.testing.assert_allclose(together[:3], single, atol=1e-7)
        return
    np.testing.assert_array_equal(together[:3], single)


def test_a_batch_that_is_cut_short_changes_no_digit_of_the_rows_before(model: ModelClient) -> None:
    stream = bars(32 + BATCH_ROWS + 40)
    whole, part = (AheadForecasts(model.checkpoint_id, None) for _ in range(2))
    forecast_ahead(stream, RegimeConfig(), HOUR_S, model, whole)
    forecast_ahead(stream[: 32 + BATCH_ROWS + 7], RegimeConfig(), HOUR_S, model, part)
    assert 0 < len(part) < len(whole)
    for key, quantiles in part._own.items():
        np.testing.assert_array_equal(quantiles, whole.get(key))


def test_impossible_requests_are_refused_before_they_are_sent(model: ModelClient) -> None:
    with pytest.raises(ForecastFailed) as caught:
        model.forecast(windows(BATCH_ROWS + 1), HORIZON, PATIENT_S)
    assert caught.value.reason is Reason.WRONG_SHAPE


@pytest.mark.parametrize(
    ("context", "horizon", "said"),
    [
        (np.array([[0.01, -np.inf]], dtype=np.float32), HORIZON, "context 0 is infinite at bar 1"),
        (np.full((1, 64), np.nan, dtype=np.float32), HORIZON, "holds no value"),
        (np.empty((1, 0), dtype=np.float32), HORIZON, "zero bars"),
        (np.ones((1, 64), dtype=np.int32), HORIZON, "not int32"),
        (np.zeros(64, dtype=np.float32), HORIZON, "shape"),
        (windows(1), -3, "horizon of -3 bars"),
    ],
)
def test_what_has_no_forecast_fails_with_the_reason_and_harms_nothing(
    model: ModelClient, context: Context, horizon: int, said: str
) -> None:
    with pytest.raises(ForecastFailed, match=said) as caught:
        model.forecast(context, horizon, PATIENT_S)
    assert caught.value.reason is Reason.MODEL_ERROR
    assert model.restarts == 0
    assert np.isfinite(model.forecast(windows(1), HORIZON, PATIENT_S)).all()


def test_an_unknown_engine_is_refused_by_the_model_process() -> None:
    config = ServingConfig(engine=EngineSpec(kind="warp"))  # type: ignore[arg-type]
    with ModelClient(find_checkpoint("embedded"), config) as client, pytest.raises(ModelUnavailable, match="warp"):
        client.start()


@pytest.mark.torch
def test_the_engine_in_torch_serves_the_same_forecasts(model: ModelClient) -> None:
    with ModelClient(find_checkpoint("embedded"), ServingConfig(engine=EngineSpec(kind="torch"))) as client:
        client.start()
        assert client.engine.startswith("torch-")
        found = client.forecast(windows(3), HORIZON, PATIENT_S)
        np.testing.assert_allclose(found, model.forecast(windows(3), HORIZON, PATIENT_S), atol=1e-7)


def test_a_process_that_is_killed_is_replaced(own_model: ModelClient) -> None:
    first = own_model.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    with pytest.raises(ForecastFailed) as caught:
        own_model.forecast(windows(1), HORIZON, PATIENT_S)
    assert caught.value.reason is Reason.MODEL_DIED
    assert np.isfinite(own_model.forecast(windows(1), HORIZON, PATIENT_S)).all()
    assert own_model.pid != first
    assert own_model.restarts == 1


def test_a_late_answer_is_dropped_not_mistaken_for_the_next(own_model: ModelClient) -> None:
    asked, other = windows(1, seed=1), windows(1, seed=2)
    truth = own_model.forecast(other, HORIZON, PATIENT_S)
    pid = own_model.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ForecastFailed) as caught:
        own_model.forecast(asked, HORIZON, 0.05)
    assert caught.value.reason is Reason.TIMEOUT
    os.kill(pid, signal.SIGCONT)
    np.testing.assert_array_equal(own_model.forecast(other, HORIZON, PATIENT_S), truth)
    assert own_model.pid == pid


def test_a_process_that_hangs_is_replaced_after_the_hang_limit() -> None:
    impatient = ServingConfig(back_off_s=0.0, hang_limit_s=0.2)
    with ModelClient(find_checkpoint("embedded"), impatient) as client:
        client.start()
        pid = client.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(ForecastFailed) as caught:
            client.forecast(windows(1), HORIZON, 0.3)
        assert caught.value.reason is Reason.TIMEOUT
        assert np.isfinite(client.forecast(windows(1), HORIZON, PATIENT_S)).all()
        client.tend()
        assert not psutil.pid_exists(pid)


def test_while_a_process_stays_away_forecasts_fail_at_once() -> None:
    with ModelClient(find_checkpoint("embedded"), ServingConfig(back_off_s=1e6, back_off_max_s=1e6)) as client:
        client.start()
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        reasons = []
        for _ in range(3):
            with pytest.raises(ForecastFailed) as caught:
                client.forecast(windows(1), HORIZON, PATIENT_S)
            reasons.append(caught.value.reason)
        assert reasons == [Reason.MODEL_DIED, Reason.MODEL_UNAVAILABLE, Reason.MODEL_UNAVAILABLE]


def test_a_death_between_two_forecasts_is_told_to_the_next_one_whoever_found_it() -> None:
    with ModelClient(find_checkpoint("embedded"), ServingConfig(back_off_s=1e6, back_off_max_s=1e6)) as client:
        client.start()
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        while client.lost == 0:  # until the kernel has ended it, and the look between two forecasts found that
            client.tend()
        reasons = []
        for _ in range(2):
            with pytest.raises(ForecastFailed) as caught:
                client.forecast(windows(1), HORIZON, PATIENT_S)
            reasons.append(caught.value.reason)
        assert reasons == [Reason.MODEL_DIED, Reason.MODEL_UNAVAILABLE]


def test_every_bar_keeps_its_signal_while_the_model_dies(own_model: ModelClient) -> None:
    subject = detector(None)
    subject._forecaster = own_model
    stream = bars(80)
    levels = []
    for index, bar in enumerate(stream):
        if index == 70 and own_model.pid is not None:
            os.kill(own_model.pid, signal.SIGKILL)
        levels.append(signals_of(subject, [bar])[0].level)
    assert levels[69] is Level.BASIC
    assert levels[70] is Level.SMART
    assert levels[71] is Level.BASIC


def test_nothing_is_left_when_the_client_closes() -> None:
    client = ModelClient(find_checkpoint("embedded"))
    client.start()
    pid = client.pid
    assert pid is not None
    client.close()
    client.close()
    assert not psutil.pid_exists(pid)


def test_the_process_ends_when_its_parent_is_killed() -> None:
    code = (
        "import time\n"
        "from regime.model.checkpoint import find_checkpoint\n"
        "from regime.serving.client import ModelClient\n"
        "client = ModelClient(find_checkpoint('embedded'))\n"
        "client.start()\n"
        "print(client.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone, _ = psutil.wait_procs([child], timeout=30)
    # Without a reaper the child may stay as a zombie, which holds nothing.
    assert gone or child.status() == psutil.STATUS_ZOMBIE


def copied_checkpoint(into: Path) -> Path:
    source = find_checkpoint("embedded").weights.parent
    shutil.copytree(source, into)
    return into


def test_a_truncated_checkpoint_is_refused_with_its_name(tmp_path: Path) -> None:
    damaged = copied_checkpoint(tmp_path / "damaged")
    weights = damaged / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:100_000])
    with (
        ModelClient(find_checkpoint(str(damaged))) as client,
        pytest.raises(ModelUnavailable, match=r"model\.safetensors is damaged"),
    ):
        client.start()


def test_weights_that_do_not_fit_their_configuration_are_refused(tmp_path: Path) -> None:
    swapped = copied_checkpoint(tmp_path / "swapped")
    config = swapped / CONFIG_FILE
    config.write_text(config.read_text().replace('"num_blocks": 4', '"num_blocks": 5'))
    with ModelClient(find_checkpoint(str(swapped))) as client, pytest.raises(ModelUnavailable, match="does not fit"):
        client.start()


def test_a_process_that_is_started_again_refuses_weights_that_changed_meanwhile(tmp_path: Path) -> None:
    own = copied_checkpoint(tmp_path / "own")
    weights = own / WEIGHTS_FILE
    with ModelClient(find_checkpoint(str(own)), ServingConfig(back_off_s=0.0)) as client:
        client.start()
        assert client.pid is not None
        tensors = load_file(weights)
        save_file({name: 1.01 * tensor for name, tensor in tensors.items()}, weights)
        os.kill(client.pid, signal.SIGKILL)
        with pytest.raises(ForecastFailed) as died:
            client.forecast(windows(1), HORIZON, PATIENT_S)
        with pytest.raises(ForecastFailed, match="has changed") as refused:
            client.forecast(windows(1), HORIZON, PATIENT_S)
        assert (died.value.reason, refused.value.reason) == (Reason.MODEL_DIED, Reason.MODEL_UNAVAILABLE)


@pytest.mark.parametrize("name", ["nowhere", "NX-AI/TiRex"])
def test_an_unknown_checkpoint_is_named(name: str) -> None:
    with pytest.raises(ModelUnavailable, match=name):
        find_checkpoint(name)


def test_a_starting_process_answers_nothing_yet_and_everything_later() -> None:
    with ModelClient(find_checkpoint("embedded")) as client:
        client.launch()
        with pytest.raises(ForecastFailed) as caught:
            client.forecast(windows(1), HORIZON, 0.01)
        assert caught.value.reason is Reason.TIMEOUT
        assert np.isfinite(client.forecast(windows(1), HORIZON, PATIENT_S)).all()
