"""The study of drift and health, on short streams with a forecaster of a few lines."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter

from data.errors import OptionError
from regime.config import DriftConfig, HealthConfig
from regime.drift import Stream
from regime.forecast import FloatArray
from sage.studies import drift_report as report
from sage.studies.drift import (
    CONTEXT_BARS,
    HORIZON_BARS,
    Detector,
    Disturbance,
    DriftStudy,
    DriftStudyConfig,
    Kind,
    StreamResult,
    disturbed,
    independent_critical,
    simulate,
    spoilt,
    study,
    watched_from,
)

CONFIG = DriftStudyConfig(
    kinds=(Kind.INDEPENDENT, Kind.SWITCHING),
    streams=2,
    before=1_750,
    after=500,
    drift=DriftConfig(reference_bars=1500, min_reference_bars=500, recent_bars=100, recut_every_bars=100),
    health=HealthConfig(window_bars=500, recent_bars=125, check_every_bars=10),
)
SHAPE_T5 = np.array([-1.476, -0.920, -0.559, -0.267, 0.0, 0.267, 0.559, 0.920, 1.476]) * math.sqrt(0.6)


def moving_volatility(returns: FloatArray, first: int) -> FloatArray:
    """What a modest model would say."""
    variance = lfilter([0.03], [1.0, -0.97], returns**2, zi=[0.97 * returns[:100].var()])[0]
    return np.repeat((np.sqrt(variance[first:, None]) * SHAPE_T5)[:, None, :], HORIZON_BARS, axis=1)


@pytest.fixture(scope="module")
def asked() -> list[tuple[int, int]]:
    """Lengths of the returns that forecasts were asked for, and from which bar on."""
    return []


@pytest.fixture(scope="module")
def made(asked: list[tuple[int, int]]) -> DriftStudy:
    def forecasts(returns: FloatArray, first: int) -> FloatArray:
        asked.append((len(returns), first))
        return moving_volatility(returns, first)

    return study(CONFIG, forecasts=forecasts)


def test_what_is_wrong_with_the_model_is_found_and_nothing_else_is_laid_at_its_door(made: DriftStudy) -> None:
    assert report.found(made, Detector.HEALTH, Disturbance.MODEL_30).share == 1.0
    assert report.found(made, Detector.HEALTH, Disturbance.NONE).share == 0.0
    assert report.found(made, Detector.HEALTH, Disturbance.VOLATILITY_20).share == 0.0
    assert report.false_alarms(made, Detector.HEALTH).count == 0
    found = report.found(made, Detector.ADWIN, Disturbance.MODEL_30)
    assert found.share == 1.0
    assert 0 <= found.delays[0] < 200


def test_a_doubled_volatility_shows_in_the_index_where_it_was_steady_before(made: DriftStudy) -> None:
    kinds = [Kind.INDEPENDENT]
    assert report.found(made, Detector.PSI_INDEPENDENT, Disturbance.VOLATILITY_20, kinds).share == 1.0
    assert report.found(made, Detector.PSI_BOOTSTRAP, Disturbance.VOLATILITY_20, kinds).delays
    assert not report.found(made, Detector.PSI_BOOTSTRAP, Disturbance.NONE, kinds).delays


def test_the_two_other_rules_see_the_same_checks(made: DriftStudy) -> None:
    for results in made.results.values():
        for result in results:
            for stream in Stream:
                assert all(count <= result.checks[stream] for count in result.exceeded[stream].values())
    # On steady streams the bootstrap's critical value is about that for independent data.
    assert independent_critical(CONFIG.drift, 2000) == pytest.approx((1 / 100 + 1 / 2000) * 27.877, rel=1e-3)


def test_a_stream_is_the_same_up_to_the_break_however_it_goes_on() -> None:
    for kind in Kind:
        market = simulate(CONFIG, kind, 0)
        plain = market.returns
        assert plain.std() < 0.05
        for disturbance in Disturbance:
            changed = disturbed(market, disturbance, CONFIG, 0)
            assert np.array_equal(changed[: CONFIG.before], plain[: CONFIG.before])
            of_returns = not np.array_equal(changed, plain)
            quantiles = np.arange(300.0 * HORIZON_BARS * 9).reshape(300, HORIZON_BARS, 9)
            of_answers = not np.array_equal(spoilt(quantiles, disturbance, 250), quantiles)
            assert of_returns + of_answers == (disturbance is not Disturbance.NONE), disturbance


def test_disturbances_do_what_they_say() -> None:
    config = dataclasses.replace(CONFIG, after=20_000)
    market = simulate(config, Kind.INDEPENDENT, 1)
    later = {each: disturbed(market, each, config, 1)[config.before :] / 0.01 for each in Disturbance}
    assert later[Disturbance.VOLATILITY_20] == pytest.approx(2.0 * later[Disturbance.NONE])
    assert later[Disturbance.MEAN].mean() == pytest.approx(0.25, abs=0.03)
    chained = later[Disturbance.DEPENDENCE]
    assert np.corrcoef(chained[1:], chained[:-1])[0, 1] == pytest.approx(0.3, abs=0.03)
    assert chained.std() == pytest.approx(1.0, abs=0.05)
    kurtosis = {each: float((later[each] ** 4).mean() / later[each].var() ** 2) for each in later}
    assert kurtosis[Disturbance.TAILS] > 2.0 * kurtosis[Disturbance.NONE]


def test_forecasts_are_asked_for_the_bars_that_come_after_them(made: DriftStudy, asked: list[tuple[int, int]]) -> None:
    bars = CONFIG.before + CONFIG.after
    assert asked[0] == (bars, CONTEXT_BARS - 1)
    assert set(asked[1:6]) == {(CONTEXT_BARS + CONFIG.after, CONTEXT_BARS)}
    assert len(asked) == 6 * sum(len(results) for results in made.results.values())


def result_of(alarms: list[int], delay: int) -> StreamResult:
    nothing = {str(stream): dict.fromkeys(map(str, Detector), 0) for stream in Stream}
    return StreamResult(
        alarms=dict.fromkeys(map(str, Detector), alarms),
        exceeded=nothing,
        checks=dict.fromkeys(map(str, Stream), 100),
        delays={str(each): dict.fromkeys(map(str, Detector), delay) for each in Disturbance},
    )


def test_rates_shares_and_delays_are_counted_as_told() -> None:
    results = {kind: [result_of([1_500, 1_800], 30), result_of([], -1), result_of([], -2)] for kind in Kind}
    counted = DriftStudy(CONFIG, results, "none", watched_from(CONFIG))
    rate = report.false_alarms(counted, Detector.ADWIN, [Kind.GARCH])
    assert (rate.count, rate.bars) == (2, 3 * (2_250 - watched_from(CONFIG)))
    assert rate.interval[0] < rate.value < rate.interval[1]
    found = report.found(counted, Detector.ADWIN, Disturbance.MEAN, [Kind.GARCH])
    assert (found.streams, found.delays) == (2, [30])
    assert str(found) == "50 %, 30 (30)"
    missed = [finding.text for finding in report.findings(counted) if finding.met is False]
    assert any("health finds model's widths x3 on 50%" in text for text in missed)


def test_without_any_alarm_the_rate_is_none_and_its_bound_that_of_the_rule_of_three_or_so() -> None:
    low, high = report.Rate(0, 10_000).interval
    assert (low, high) == (0.0, pytest.approx(0.369, abs=0.001))


def test_the_page_and_the_document_hold_all_of_it(made: DriftStudy) -> None:
    document = json.loads(json.dumps(report.as_document(made)))
    assert set(document["found"]) == set(map(str, CONFIG.kinds))
    assert document["settings"]["before"] == CONFIG.before
    text = report.page(made)
    for disturbance in Disturbance:
        assert str(disturbance).replace("'", "&#39;") in text
    assert "src=" not in text[text.index("<body>") :]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"streams": 1}, "--streams"),
        ({"before": 1_000}, "--before must be"),
        ({"after": 100}, "--after"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        study(dataclasses.replace(CONFIG, **changes), forecasts=moving_volatility)  # type: ignore[arg-type]


def test_a_rerun_with_the_shipped_model_goes_on_from_what_is_kept(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, kinds=(Kind.INDEPENDENT,), after=200, out=tmp_path)
    first = study(config)
    again = study(dataclasses.replace(config, streams=2))
    assert (first.reused, again.reused) == (0, 2)
    assert again.results == first.results
    assert again.engine.startswith("embedded")
