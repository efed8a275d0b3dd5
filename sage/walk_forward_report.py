"""A walk-forward for machines and for people: one JSON document, one table of equity, one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from data.bars import iso
from sage import rundir
from sage.config import as_dict
from sage.performance import COST_MULTIPLES
from sage.studies.page import GRID, Section, as_html, styled
from sage.walk_forward import FoldResult, WalkForward

COLUMNS = ("window", "bars", "return", "buy and hold", "Sharpe", "drawdown", "turnover", "coverage", "chosen")
MAX_POINTS = 4_000


def as_document(walked: WalkForward) -> dict[str, Any]:
    """All figures for JSON; fractions, and quote currency."""
    bars = walked.market.bars
    return {
        "instrument": str(walked.market.instrument.id),
        "bar": str(walked.market.size),
        "data": {
            "description": walked.market.description,
            "bars": len(bars),
            "first_close": iso(int(bars.ts_close_ns[0])),
            "last_close": iso(int(bars.ts_close_ns[-1])),
            "sha256": bars.sha256(),
        },
        "pooled": walked.pooled,
        "folds": [_fold_document(result, walked) for result in walked.folds],
        "notes": walked.notes,
        **rundir.provenance(walked.last_run),
        "config": as_dict(walked.config),
    }


def _fold_document(result: FoldResult, walked: WalkForward) -> dict[str, Any]:
    stamps, fold = walked.market.bars.ts_close_ns, result.fold
    return {
        "fold": fold.number,
        "bars_before": fold.start - fold.first,
        "bars": fold.stop - fold.start,
        "first_before": iso(int(stamps[fold.first])),
        "first_close": iso(int(stamps[fold.start])),
        "last_close": iso(int(stamps[fold.stop - 1])),
        "chosen": result.chosen,
        "candidates": [{"values": one.values, "score": one.score} for one in result.candidates],
        **result.figures,
    }


def write(walked: WalkForward, directory: Path) -> dict[str, Any]:
    """Write the directory, whole or not at all; returns the document."""
    document = as_document(walked)
    with rundir.whole(directory) as partial:
        rundir.write_json(partial / "walk_forward.json", document)
        walked.equity.to_parquet(partial / "equity.parquet", index=False)
        (partial / "report.html").write_text(page(walked, document), encoding="utf-8")
    return document


def fold_rows(document: dict[str, Any]) -> list[list[str]]:
    """A row of :data:`COLUMNS` for each window."""
    rows = []
    for fold in document["folds"]:
        chosen = ", ".join(f"{name} {value}" for name, value in fold["chosen"].items())
        rows.append(
            [
                f"{fold['first_close'][:10]} to {fold['last_close'][:10]}",
                f"{fold['bars']:,}",
                percent(fold["total_return"]),
                percent(fold["buy_and_hold_return"]),
                _number(fold["sharpe"]) + interval_told(fold["sharpe_interval"]),
                percent(fold["max_drawdown"]),
                f"{fold['turnover']:.1f}",
                percent(fold["coverage"]["realised"]),
                chosen or "–",
            ]
        )
    return rows


def pooled_rows(document: dict[str, Any]) -> list[tuple[str, str]]:
    """The windows together, for people."""
    pooled, walk = document["pooled"], document["config"]["walk_forward"]
    before = f"the last {walk['train_bars']:,} bars" if walk["rolling"] else "all earlier bars"
    multiples = pooled["at_cost_multiples"].items()
    return [
        ("data", f"{document['data']['description']}, {document['bar']} bars of {document['instrument']}"),
        ("windows", f"{len(document['folds'])}, each after {before}; {pooled['folds_with_a_gain']} with a gain"),
        ("total return", f"{percent(pooled['total_return'])}  (buy and hold {percent(pooled['buy_and_hold_return'])})"),
        (
            "Sharpe",
            f"{_number(pooled['sharpe'])}{interval_told(pooled['sharpe_interval'])}  "
            f"({pooled['sharpe_basis']}; buy and hold {_number(pooled['buy_and_hold_sharpe'])})",
        ),
        ("max drawdown", percent(pooled["max_drawdown"])),
        ("costs paid", f"{pooled['costs_paid']:,.2f}  (turnover {pooled['turnover_per_year']:.1f} x equity a year)"),
        ("not modelled", ", ".join(pooled["not_modelled"])),
        ("return at costs", ", ".join(f"{name} x: {percent(one['total_return'])}" for name, one in multiples)),
        ("break-even cost", pooled["break_even"]),
        ("coverage", f"{percent(pooled['coverage']['realised'])} of {percent(pooled['coverage']['nominal'])} nominal"),
        *(("note", note) for note in document["notes"]),
    ]


def page(walked: WalkForward, document: dict[str, Any]) -> str:
    """The report as HTML text."""
    data = document["data"]
    sections = [
        Section(
            "Equity of all windows",
            "One behind the other, each beginning with what the one before left and without a position; the same "
            "trades at 0, 1 and 2 times their costs. Lines part the windows.",
            chart=_equity_chart(walked.equity),
        ),
        Section("Windows together", columns=("", ""), rows=[list(row) for row in pooled_rows(document)]),
        Section(
            "Window by window",
            "Figures of the window alone; Sharpe with its 95 % block bootstrap interval. What was chosen did best on "
            "the bars before the window.",
            columns=COLUMNS,
            rows=fold_rows(document),
        ),
    ]
    return as_html(
        f"Walk-forward · {document['instrument']} {document['bar']}",
        f"{data['description']} · {data['first_close']} to {data['last_close']} · {data['bars']:,} bars",
        [],
        sections,
    )


def _equity_chart(equity: pd.DataFrame) -> go.Figure:
    thinned = equity.iloc[:: max(1, len(equity) // MAX_POINTS)]
    times = pd.to_datetime(thinned["ts_ns"], unit="ns", utc=True).dt.tz_localize(None)
    figure = go.Figure()
    for multiple in COST_MULTIPLES:
        figure.add_scatter(x=times, y=thinned[f"equity_{multiple:g}"], name=f"{multiple:g} × costs", mode="lines")
    for begun in equity.groupby("fold")["ts_ns"].first():
        figure.add_vline(x=pd.Timestamp(begun, unit="ns"), line={"color": GRID, "width": 2}, layer="below")
    figure.update_yaxes(title_text="equity, log scale", type="log")
    return styled(figure)


def percent(value: float | None) -> str:
    """A share for people."""
    return "–" if value is None else f"{100 * value:.2f} %"


def interval_told(interval: dict[str, Any] | None) -> str:
    """An interval in brackets, with a blank before it; nothing where there is none."""
    return "" if interval is None else f" [{interval['low']:.2f}, {interval['high']:.2f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
