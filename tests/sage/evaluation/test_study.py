"""Several instruments, an interruption, and a verdict that says what it is held against."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import msgspec
import pytest

from data.bars import BarSize
from data.catalog import BarCatalog
from data.errors import CatalogError, DataError, OptionError
from data.instruments import Kind, Precision, make_instrument, parse_instrument_id
from regime.model.checkpoint import find_checkpoint
from regime.model.random_weights import write_random_checkpoint
from regime.model.weights import ARCHITECTURES
from sage.evaluation import report, results
from sage.evaluation.baselines import GJR
from sage.evaluation.report import as_document, as_html, forecasts_told, verdict_lines
from sage.evaluation.results import TASKS, Comparison, Forecaster, InstrumentResult, Score, judge
from sage.evaluation.settings import EvaluationConfig
from sage.evaluation.study import evaluate, wanted_markets
from tests.sage.evaluation.simulated import SMALL, bars_of, gjr_returns


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two instruments that are long enough, one of them in two sizes, and one that is not."""
    root = tmp_path_factory.mktemp("evaluation") / "catalog"
    writer = BarCatalog(root, create=True)
    for name, seconds, bars in (
        ("BTCUSDT.SIM", 3600, 900), ("ETHUSDT.SIM", 3600, 900), ("ETHUSDT.SIM", 1800, 900), ("LTCUSDT.SIM", 3600, 300),
    ):  # fmt: skip
        instrument = make_instrument(parse_instrument_id(name), Kind.CRYPTO, Precision(6, 0))
        returns = gjr_returns(bars, seed=len(name) + seconds)
        writer.write(bars_of(returns, seconds), instrument, BarSize(seconds))
    return root


def on(catalog: Path, **values: object) -> EvaluationConfig:
    return dataclasses.replace(SMALL, catalog=catalog, **values)  # type: ignore[arg-type]


class Interrupting:
    """Interrupts where a stage of this name begins."""

    def __init__(self, name: str) -> None:
        self._name = name

    def stage(self, name: str, total: int) -> None:
        if name == self._name:
            raise KeyboardInterrupt

    def advance(self, steps: int, note: str = "") -> None:
        pass


def test_a_whole_catalog_is_evaluated_but_for_what_is_too_short(catalog: Path) -> None:
    evaluation = evaluate(on(catalog))
    assert [result.name for result in evaluation.results] == ["BTCUSDT.SIM 1h", "ETHUSDT.SIM 30m", "ETHUSDT.SIM 1h"]
    assert len(evaluation.skipped) == 1 and "LTCUSDT.SIM 1h: 300 bars" in evaluation.skipped[0]
    document = json.dumps(as_document(evaluation), allow_nan=False)
    assert json.loads(document)["skipped"] == evaluation.skipped


def test_an_instrument_that_was_named_and_is_too_short_is_an_error(catalog: Path) -> None:
    with pytest.raises(DataError, match=r"LTCUSDT.SIM 1h: 300 bars .* it takes 644"):
        evaluate(on(catalog, instruments=("LTCUSDT.SIM",)))
    with pytest.raises(CatalogError, match=r"XRPUSDT.SIM"):
        evaluate(on(catalog, instruments=("XRPUSDT.SIM",)))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"bar": "30m"}, ["ETHUSDT.SIM 30m"]),
        ({"bar": "60m", "instruments": ("ETHUSDT.SIM",)}, ["ETHUSDT.SIM 1h"]),
        (
            {"instruments": ("ETHUSDT.SIM", "BTCUSDT.SIM", "ETHUSDT.SIM")},
            ["ETHUSDT.SIM 30m", "ETHUSDT.SIM 1h", "BTCUSDT.SIM 1h"],
        ),
    ],
)
def test_instruments_and_sizes_are_chosen(catalog: Path, values: dict[str, object], names: list[str]) -> None:
    assert [f"{instrument} {bar}" for instrument, bar in wanted_markets(on(catalog, **values))] == names


def test_a_catalog_without_such_bars_says_so(catalog: Path) -> None:
    with pytest.raises(CatalogError, match="no 5m bars of any instrument"):
        wanted_markets(on(catalog, bar="5m"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"catalog": Path("nowhere")}, "nowhere: no such catalog"),
        ({"instruments": ("XRPUSDT.SIM",)}, "the catalog holds BTCUSDT.SIM, ETHUSDT.SIM, LTCUSDT.SIM"),
        ({"instruments": ("BTCUSDT.SIM",), "bar": "5m"}, "no 5m bars of BTCUSDT.SIM; bar types held: 1-HOUR"),
        ({"start": "tomorrow-ish"}, "--start 'tomorrow-ish' is no date"),
        ({"start": "2024-02-01", "end": "2024-01-01"}, "lies after"),
    ],
)
def test_what_is_asked_of_the_catalog_is_checked_before_a_model_is_looked_for(
    catalog: Path, tmp_path: Path, values: dict[str, object], said: str
) -> None:
    config = dataclasses.replace(on(catalog, model="nowhere", out=tmp_path / "out"), **values)  # type: ignore[arg-type]
    with pytest.raises((CatalogError, OptionError), match=said):
        evaluate(config)
    assert not (tmp_path / "out").exists()


def test_finished_instruments_survive_an_interruption_and_are_used_again(catalog: Path, tmp_path: Path) -> None:
    config = on(catalog, bar="1h", instruments=("BTCUSDT.SIM", "ETHUSDT.SIM"), out=tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        evaluate(config, Interrupting("ETHUSDT.SIM 1h"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["BTCUSDT.SIM-1h.json"]
    again = evaluate(config)
    assert again.reused == 1
    whole = evaluate(dataclasses.replace(config, out=None))
    for mine, theirs in zip(again.results, whole.results, strict=True):
        assert dataclasses_equal(mine, theirs)
    assert evaluate(config).reused == 2


def dataclasses_equal(first: InstrumentResult, second: InstrumentResult) -> bool:
    """Equal but for the time it took."""
    return msgspec.structs.replace(first, seconds=0.0) == msgspec.structs.replace(second, seconds=0.0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 8}, r"--seed 7 \(now 8\)"),
        ({"horizon_bars": 5, "refit_bars": 400}, r"--horizon 4 \(now 5\), --refit 500 \(now 400\)"),
        ({"instruments": ("ETHUSDT.SIM",), "forecasts": 50}, r"--forecasts 2000 \(now 50\)"),
        ({"end": "2024-01-30"}, r"900 bars with sha256 \w+ \(now \d+ with \w+, by --start, --end or --catalog"),
    ],
)
def test_results_of_other_settings_or_bars_are_not_replaced(
    catalog: Path, tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    config = on(catalog, bar="1h", instruments=("BTCUSDT.SIM",), out=tmp_path)
    evaluate(config)
    before = (tmp_path / "BTCUSDT.SIM-1h.json").read_bytes()
    with pytest.raises(OptionError, match=rf"result of BTCUSDT.SIM 1h there was made with {said}.*another --out"):
        evaluate(dataclasses.replace(config, **changed))  # type: ignore[arg-type]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"BTCUSDT.SIM-1h.json": before}


def test_results_of_another_checkpoint_are_not_replaced(catalog: Path, tmp_path: Path) -> None:
    config = on(catalog, bar="1h", instruments=("BTCUSDT.SIM",), out=tmp_path / "out")
    evaluate(config)
    other = write_random_checkpoint(ARCHITECTURES["compact"], 5, tmp_path / "other")
    shas = [find_checkpoint(name).sha256 for name in ("embedded", str(other))]
    with pytest.raises(OptionError, match=rf"checkpoint {shas[0]} \(now {shas[1]}\)"):
        evaluate(dataclasses.replace(config, model=str(other)))


def test_more_instruments_join_those_that_are_finished(catalog: Path, tmp_path: Path) -> None:
    config = on(catalog, bar="1h", instruments=("BTCUSDT.SIM",), out=tmp_path)
    evaluate(config)
    both = evaluate(dataclasses.replace(config, instruments=("ETHUSDT.SIM", " BTCUSDT.SIM ")))
    assert ([result.name for result in both.results], both.reused) == (["ETHUSDT.SIM 1h", "BTCUSDT.SIM 1h"], 1)


@pytest.mark.parametrize("content", [b"", b"{"])
def test_a_damaged_result_is_made_again(catalog: Path, tmp_path: Path, content: bytes) -> None:
    config = on(catalog, bar="1h", instruments=("BTCUSDT.SIM",), out=tmp_path)
    first = evaluate(config).results[0]
    (tmp_path / "BTCUSDT.SIM-1h.json").write_bytes(content)
    again = evaluate(config)
    assert again.reused == 0 and dataclasses_equal(again.results[0], first)
    assert evaluate(config).reused == 1


def test_what_is_no_result_is_not_written_over(catalog: Path, tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT.SIM-1h.json").write_bytes(b'{"key": 3}')
    with pytest.raises(OptionError, match=r"BTCUSDT.SIM-1h.json is no result of this version; give another --out"):
        evaluate(on(catalog, bar="1h", instruments=("BTCUSDT.SIM",), out=tmp_path))
    assert (tmp_path / "BTCUSDT.SIM-1h.json").read_bytes() == b'{"key": 3}'


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"horizon_bars": 0}, "--horizon"),
        ({"context_bars": 8}, "--context"),
        ({"forecasts": 39}, "--forecasts must be at least 40"),
        ({"warm_up_bars": 100}, "--warm-up"),
        ({"window_bars": 100}, "--window"),
        ({"refit_bars": 0}, "--refit"),
        ({"seed": -1}, "--seed"),
        ({"source": "moon"}, "--data moon"),
        ({"instruments": ("BTCUSDT.SIM",)}, "--instrument goes with --catalog"),
        ({"start": "2024-01-01"}, "--start goes with --catalog"),
    ],
)
def test_options_that_make_no_sense_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        evaluate(dataclasses.replace(SMALL, **values))  # type: ignore[arg-type]


def result_of(
    difference: float = -0.01, error: float = 0.002, coverage: float = 0.8, broken: bool = False
) -> InstrumentResult:
    """A result with the same figures at both tasks."""
    score = Score(pinball=1e-3, crps=2e-3, coverage=coverage, qlike=-9.0)
    compared = Comparison(difference, error, p_value=0.5, qlike_p_value=0.5, broken=broken)
    model = Forecaster(dict.fromkeys(TASKS, score), {}, [1e-3], [0.5] * 9)
    baseline = msgspec.structs.replace(model, comparisons=dict.fromkeys(TASKS, compared), refits=2)
    return InstrumentResult(
        settings={}, instrument="BTCUSDT.SIM", bar="1h", description="", bars=9, bars_sha256="", always_open=True,
        forecasts=9, left_out=0, first_ts_ns=0, last_ts_ns=1, block_bars=dict.fromkeys(TASKS, 2),
        model=model, baselines={GJR: baseline},
        so_far_ts_ns=[0], so_far={task: [0.0] for task in TASKS}, seconds=1.0,
    )  # fmt: skip


def test_the_verdict_is_met_where_all_targets_are() -> None:
    verdict = judge([result_of(-0.01), result_of(0.004)])
    assert verdict.met
    assert verdict.mean_difference[GJR] == {task: pytest.approx(-0.003) for task in TASKS}
    assert all(line.startswith("met") for line in verdict_lines(verdict, 2))


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (result_of(difference=0.001), "beside GJR-GARCH-t next bar +0.10%, whole horizon +0.10% on average"),
        (result_of(coverage=0.835), "BTCUSDT.SIM 1h, one step: 83.5%"),
        (result_of(coverage=0.765), "BTCUSDT.SIM 1h, horizon: 76.5%"),
        (result_of(broken=True), "whole horizon –"),
    ],
)
def test_a_target_that_is_missed_is_named(result: InstrumentResult, said: str) -> None:
    verdict = judge([result])
    assert not verdict.met
    missed = [line for line in verdict_lines(verdict, 1) if line.startswith("MISSED")]
    assert len(missed) == 1 and said in missed[0]


def test_an_excess_counts_from_two_standard_errors_above_half_a_percent() -> None:
    better = [result_of(-0.02)] * 3
    assert judge([*better, result_of(0.0089, error=0.002)]).met
    verdict = judge([*better, result_of(0.0091, error=0.002)])
    assert not verdict.met and verdict.mean_met
    assert verdict.excesses == {
        GJR: ["BTCUSDT.SIM 1h, one step: +0.91% ± 0.20%", "BTCUSDT.SIM 1h, horizon: +0.91% ± 0.20%"]
    }


def test_a_broken_baseline_does_not_count() -> None:
    verdict = judge([result_of(-0.5, broken=True), result_of(0.002)])
    assert verdict.mean_difference[GJR] == {task: pytest.approx(0.002) for task in TASKS}
    assert verdict.broken == [f"{GJR} on BTCUSDT.SIM 1h, {task}" for task in ("one step", "horizon")]
    assert not judge([result_of(0.5, broken=True), result_of(-0.1)]).excesses


def test_the_page_needs_no_network(catalog: Path) -> None:
    evaluation = evaluate(on(catalog, instruments=("BTCUSDT.SIM",)))
    html = as_html(evaluation)
    ours = html[: html.index("<script>")] + html[html.rindex("</script>", 0, html.index("<body>")) :]
    assert "http" not in ours
    assert html.count("Plotly.newPlot") >= 1 and 'id="chart4"' in html
    assert "BTCUSDT.SIM 1h" in html and "diurnal GJR-GARCH-t" in html
    assert evaluation.checkpoint.id in html
    assert "1 instrument ·" in html
    # 900 bars less the first, the warm-up of 600, and the horizon but for one.
    assert "296 forecasts (all there are, fewer than 2,000)" in html


def test_no_error_bar_hides_another() -> None:
    one, two = result_of(), msgspec.structs.replace(result_of(), instrument="ETHUSDT.SIM")
    figure = report._differences([one, two])
    heights = sorted(height for trace in figure.data for height in trace.y)
    assert len(set(heights)) == 4
    # Each pair lies around its own name.
    assert [round(height) for height in heights] == [0, 0, 1, 1]
    assert list(figure.layout.yaxis.ticktext) == ["BTCUSDT.SIM 1h", "ETHUSDT.SIM 1h"]


@pytest.mark.parametrize(
    ("forecasts", "told"),
    [(1, "1 forecast (all there are, fewer than 2,000)"), (2_000, "2,000 forecasts")],
)
def test_the_true_number_of_forecasts_is_told(forecasts: int, told: str) -> None:
    assert forecasts_told(forecasts, 2_000) == told


def test_a_symbol_with_a_slash_has_one_file(tmp_path: Path) -> None:
    result = msgspec.structs.replace(result_of(), instrument="EUR/USD.FX")
    results.write_result(tmp_path, result)
    assert [path.name for path in tmp_path.iterdir()] == ["EUR%2FUSD.FX-1h.json"]
    assert results.read_results(tmp_path) == {("EUR/USD.FX", "1h"): result}
