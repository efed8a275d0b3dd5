"""What is overheard of a real model process is what the one who asked could have used."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from regime.errors import ForecastFailed
from regime.model.checkpoint import find_checkpoint
from regime.serving.client import ModelClient
from regime.serving.config import ServingConfig
from regime.signal import Reason
from stress.misbehaviour import Control, Misbehaviour
from stress.overheard import OverheardChild, Talk

CONTEXTS = np.random.default_rng(5).normal(0.0, 0.01, (1, 64)).astype(np.float32)
LATE_S = 0.5
WAIT_S = 60.0


@pytest.fixture
def control() -> Iterator[Control]:
    control = Control()
    yield control
    control.close()


@pytest.fixture
def talk() -> Talk:
    return Talk()


@pytest.fixture
def client(control: Control, talk: Talk) -> Iterator[ModelClient]:
    def launch(checkpoint: object, config: ServingConfig) -> OverheardChild:
        return OverheardChild(checkpoint, config, control, talk)  # type: ignore[arg-type]

    checkpoint = find_checkpoint("embedded")
    with ModelClient(checkpoint, ServingConfig(hang_limit_s=WAIT_S), time.perf_counter, launch) as client:
        client.start()
        talk.clear()
        yield client


def test_a_question_and_its_answer_are_overheard(client: ModelClient, talk: Talk) -> None:
    client.forecast(CONTEXTS, 16, WAIT_S)
    assert [heard.sequence for heard in talk.received] == [sequence for sequence, _ in talk.asked]
    assert talk.received[0].quantiles.shape == (1, 16, 9)


def test_an_answer_that_comes_when_nobody_waits_any_more_is_none(
    client: ModelClient, control: Control, talk: Talk
) -> None:
    control.set(Misbehaviour.SLOW, LATE_S)
    with pytest.raises(ForecastFailed) as failed:
        client.forecast(CONTEXTS, 16, LATE_S / 10)
    assert failed.value.reason is Reason.TIMEOUT
    control.set(Misbehaviour.NONE)
    time.sleep(2 * LATE_S)
    # As the watcher does between two bars, or while a bar is held up.
    client.tend()
    assert len(talk.asked) == 1 and not talk.received
    client.forecast(CONTEXTS, 16, WAIT_S)
    assert [heard.sequence for heard in talk.received] == [talk.asked[-1][0]]
