"""A sweep for machines and for people."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from sage.performance import Interval
from sage.studies.page import COLOURS, LIMIT, Said, Section, as_html, styled
from sage.sweep.deflation import OBSERVATIONS_MIN, SIGNIFICANCE, Deflated
from sage.sweep.judged import Judged
from sage.sweep.sweep import Swept
from sage.sweep.table import SET

HTML_FILE, JSON_FILE = "report.html", "results.json"
BEST_SHOWN = 20
FAILED_SHOWN = 20
OVERFITTED, SOUND = 0.5, 0.2
_ALIKE_SHOWN = 10
_TOLD_APART_BY = ("instrument", "period", "window", "determinism_hash", "total_return")


def findings(swept: Swept) -> list[Said]:
    """What the best of all trials is worth, in sentences."""
    judged = swept.judged
    found: list[Said] = []
    if swept.failed:
        found.append(
            Said(False, f"{len(swept.failed):,} of {len(swept.rows):,} runs failed; their trials are not judged")
        )
    if judged.unfinished_trials:
        found.append(
            Said(None, f"{judged.unfinished_trials:,} of {judged.trials:,} trials were not finished and are not judged")
        )
    if judged.winner is None:
        found.append(Said(None, "nothing to judge: no trial has returns on any day"))
        return found
    best = f"best of {len(judged.by_trial) + judged.failed_trials:,} trials: {_named(judged)}"
    found.append(Said(None, f"{best}, Sharpe {_number(judged.winner_sharpe)}"
                            f"{_interval(judged.winner_interval)}, deepest drawdown {_percent(judged.winner_drawdown)}"
                            f"{_interval(judged.winner_drawdown_interval, percent=True)}"))  # fmt: skip
    deflated = judged.deflated
    if deflated is None and judged.days >= OBSERVATIONS_MIN:
        found.append(Said(None, "nothing to deflate: what the trials earn never moves; did any of them trade?"))
    elif deflated is None:
        found.append(Said(None, f"{judged.days:,} days are too few to deflate its Sharpe ratio"))
    else:
        found.append(
            Said(
                deflated.is_significant,
                f"deflated Sharpe ratio {deflated.probability:.3f} ({_more_than(deflated)}): the best "
                f"of {judged.trials_ever:,} trials ever made here, in {_groups(deflated.clusters)}, "
                f"would have reached {_number(judged.luck_sharpe)} by luck; had it been the only trial it would be "
                f"{deflated.naive_probability:.3f}",
            )
        )
    overfitting = judged.overfitting
    if overfitting is not None:
        found.append(
            Said(
                _good_below(overfitting.probability, SOUND, OVERFITTED),
                f"probability of overfitting {overfitting.probability:.1%}: how often the best of one half of the "
                f"{judged.shared_days:,} days of all trials is in the lower half of trials on the other, over "
                f"{overfitting.splits:,} splits",
            )
        )
    elif judged.shared_days < judged.days:
        found.append(
            Said(None, f"no probability of overfitting: all trials were there on {judged.shared_days:,} of "
                       f"{judged.days:,} days only")
        )  # fmt: skip
    alike = _alike(swept)
    if alike:
        told = ", ".join(map(str, alike[:_ALIKE_SHOWN])) + (", ..." if len(alike) > _ALIKE_SHOWN else "")
        found.append(
            Said(None, f"{len(alike):,} trials did in every run what an earlier one did, and count all the same "
                       f"({told}): what tells them apart has no say here")
        )  # fmt: skip
    several = len({task.instrument for task in swept.plan.tasks}) > 1
    for walked in judged.walks:
        where = f" on {walked.instrument}" if several else ""
        found.append(
            Said(
                None if walked.sharpe is None else walked.sharpe > 0,
                f"chosen anew before each of {len(walked.windows)} windows{where} by all windows before: Sharpe "
                f"{_number(walked.sharpe)}{_interval(walked.interval)}, return {walked.total_return:+.1%}, deepest "
                f"drawdown {_percent(walked.max_drawdown)}{_interval(walked.drawdown_interval, percent=True)}",
            )
        )
    shuffled = judged.shuffled
    if shuffled is not None:
        found.append(
            Said(
                shuffled.p_value <= SIGNIFICANCE,
                f"with positions moved in time the best trial reaches {np.median(shuffled.best_moved):.2f} (median of "
                f"{len(shuffled.best_moved)} moves), at the true times {shuffled.best:.2f}: "
                f"p = {shuffled.p_value:.3f}",
            )
        )
    if swept.stale:
        found.append(
            Said(None, f"{swept.stale:,} runs were there, made from other bars, weights or code, and were made again")
        )
    found += [Said(None, note) for note in swept.notes]
    return found


def _alike(swept: Swept) -> list[int]:
    """Trials whose runs all have the hashes of those of a trial before them."""
    seen: set[tuple[tuple[object, ...], ...]] = set()
    found = []
    for trial, rows in sorted(_by_trial(swept).items()):
        if all(row["determinism_hash"] for row in rows):
            runs = tuple(tuple(row[name] for name in _TOLD_APART_BY) for row in rows)
            if runs in seen:
                found.append(trial)
            seen.add(runs)
    return found


def _by_trial(swept: Swept) -> dict[int, list[dict[str, Any]]]:
    """The rows of each trial's runs, in the order of the plan."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row in swept.rows:
        found.setdefault(int(row["trial"]), []).append(row)
    return found


def as_document(swept: Swept) -> dict[str, Any]:
    """All figures for JSON."""
    judged = swept.judged
    overfitting, shuffled = judged.overfitting, judged.shuffled
    return {
        "runs": swept.rows,
        "trials": judged.trials,
        "trials_ever": judged.trials_ever,
        "failed_trials": judged.failed_trials,
        "unfinished_trials": judged.unfinished_trials,
        "days": judged.days,
        "shared_days": judged.shared_days,
        "days_per_year": judged.days_per_year,
        "forecasts": dataclasses.asdict(swept.forecasts),
        "reused": swept.reused,
        "stale": swept.stale,
        "seconds": swept.seconds,
        "overhead_s": swept.overhead_s,
        "interrupted": swept.interrupted,
        "winner": None if judged.winner is None else {
            "trial": judged.winner.trial, "values": judged.winner.values, "instrument": judged.winner.instrument,
            "sharpe": judged.winner_sharpe, "sharpe_interval": _plain(judged.winner_interval),
            "max_drawdown": judged.winner_drawdown, "drawdown_interval": _plain(judged.winner_drawdown_interval),
        },
        "deflated_sharpe": _plain(judged.deflated),
        "luck_sharpe": judged.luck_sharpe,
        "overfitting": None if overfitting is None else {
            "probability": overfitting.probability, "splits": overfitting.splits, "blocks": overfitting.blocks,
        },
        "walk_forward": [dataclasses.asdict(walked) for walked in judged.walks],
        "shuffled": None if shuffled is None else {
            "winner": shuffled.winner, "best": shuffled.best, "p_value": shuffled.p_value,
            "best_moved": shuffled.best_moved.tolist(),
        },
        "by_trial": trial_rows(swept),
        "findings": [{"met": finding.met, "text": finding.text} for finding in findings(swept)],
    }  # fmt: skip


def best_rows(swept: Swept, count: int = BEST_SHOWN) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the best trials over all their runs."""
    judged = swept.judged
    keys = list(dict.fromkeys(key for task in swept.plan.tasks for key in task.values))
    tasks = {task.trial: task for task in reversed(swept.plan.tasks)}
    by_trial = _by_trial(swept)

    def rank(trial: int) -> float:
        value = judged.by_trial[trial].t_statistic
        return np.inf if value is None else -value

    ranked = sorted(judged.by_trial, key=rank)[:count]
    columns = ["trial", "instrument", *keys, "Sharpe", "return", "drawdown", "turnover / year", "coverage", "fills"]
    rows = []
    for trial in ranked:
        runs, task, pooled = by_trial[trial], tasks[trial], judged.by_trial[trial]
        coverage = [row["coverage"] for row in runs if row["coverage"] is not None]
        rows.append(
            [
                str(trial), task.instrument, *(_value(task.values.get(key)) for key in keys),
                _number(pooled.sharpe), f"{pooled.total_return:+.1%}", _percent(pooled.max_drawdown),
                f"{np.mean([row['turnover_per_year'] for row in runs]):.1f}",
                _percent(float(np.mean(coverage))) if coverage else "–", f"{sum(row['fills'] for row in runs):,}",
            ]
        )  # fmt: skip
    return columns, rows


def trial_rows(swept: Swept) -> list[dict[str, Any]]:
    """What is known of each trial over all its windows and periods, for the table of trials and for JSON."""
    judged = swept.judged
    tasks = {task.trial: task for task in reversed(swept.plan.tasks)}
    runs = Counter(int(row["trial"]) for row in swept.rows)
    failed = Counter(int(row["trial"]) for row in swept.failed)
    rows = []
    for trial, task in sorted(tasks.items()):
        pooled = judged.by_trial.get(trial)
        rows.append(
            {"trial": trial, "instrument": task.instrument,
             **{f"{SET}{key}": value for key, value in task.values.items()},
             "runs": runs[trial], "failed": failed[trial],
             **{name: None if pooled is None else getattr(pooled, name) for name in
                ("sharpe", "t_statistic", "total_return", "max_drawdown", "probabilistic_sharpe", "deflated_sharpe")}}
        )  # fmt: skip
    return rows


def page(swept: Swept, heat: tuple[str, str] | None = None) -> str:
    """The report as HTML; ``heat`` names the keys of the heat map."""
    judged = swept.judged
    columns, rows = best_rows(swept)
    sections: list[Section] = []
    chart = _heat(swept, heat)
    if chart is not None:
        text = "Sharpe ratio over all days, annualised; the best where other keys vary, too."
        sections.append(Section(f"{heat[0]} and {heat[1]}" if heat else "", text, chart=chart))
    if judged.shuffled is not None:
        sections.append(Section("Luck", _LUCK, chart=_luck(judged)))
    if rows:
        sections.append(Section(f"The best {len(rows)} trials", "Over all windows and periods.", columns, rows))
    if judged.walks:
        sections.append(
            Section(
                "Windows", "Each traded by the trial that had done best in all windows of its instrument before it.",
                ("window", "instrument", "trial", "values", "Sharpe before", "Sharpe", "return"),
                [[str(one.window), walked.instrument, str(one.trial), _values(one.values), f"{one.sharpe_before:.2f}",
                  _number(one.sharpe), f"{one.total_return:+.1%}"]
                 for walked in judged.walks for one in walked.windows],
            )
        )  # fmt: skip
    if swept.failed:
        shown = [[str(row["run"]), row["error"]] for row in swept.failed[:FAILED_SHOWN]]
        sections.append(Section("Failed", f"{len(swept.failed):,} runs.", ("run", "why"), shown))
    subtitle = (
        f"{len(swept.rows):,} of {len(swept.plan.tasks):,} runs of {judged.trials:,} trials, {judged.days:,} days, "
        f"{judged.trials_ever:,} trials ever made here"
    )
    return as_html("SAGE sweep", subtitle, findings(swept), sections)


_LUCK = (
    "Sharpe ratios of all trials at the true times, beside those with their positions moved in time by the same share "
    "of their window, so that they keep their sizes and turnover and lose what they know: every trial's, and the best "
    "trial's of each move. The line is the winner. All are reckoned alike, without the limits of an account."
)
_BINS = 60


def _luck(judged: Judged) -> go.Figure:
    shuffled = judged.shuffled
    assert shuffled is not None
    figure = go.Figure()
    every = np.concatenate([shuffled.true, shuffled.moved])
    edges = np.histogram_bin_edges(every, _BINS)
    middle = (edges[1:] + edges[:-1]) / 2.0
    # Counted here: the page need not hold hundreds of moves of each trial.
    for values, name, colour in (
        (shuffled.moved, "every trial, moved", COLOURS[5]),
        (shuffled.best_moved, "best, moved", COLOURS[0]),
        (shuffled.true, "every trial, at the true times", COLOURS[2]),
    ):
        density, _ = np.histogram(values, edges, density=True)
        figure.add_bar(x=middle, y=density, width=np.diff(edges), name=name, opacity=0.55, marker={"color": colour})
    if shuffled.winner is not None:
        figure.add_vline(x=shuffled.winner, line={"color": LIMIT, "width": 2}, annotation_text="winner")
    figure.update_layout(barmode="overlay", bargap=0)
    figure.update_xaxes(title_text="Sharpe ratio, annualised")
    figure.update_yaxes(title_text="density")
    return styled(figure, height=340)


def _heat(swept: Swept, keys: tuple[str, str] | None) -> go.Figure | None:
    if keys is None or not swept.judged.by_trial:
        return None
    tasks = {task.trial: task for task in swept.plan.tasks}
    best: dict[tuple[str, str], float] = {}
    # In the order of the plan, which is that of the axes.
    seen: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for trial, pooled in sorted(swept.judged.by_trial.items()):
        values, value = tasks[trial].values, pooled.sharpe
        if value is not None and keys[0] in values and keys[1] in values:
            place = (_value(values[keys[0]]), _value(values[keys[1]]))
            for axis in (0, 1):
                seen[axis][place[axis]] = values[keys[axis]]
            best[place] = max(value, best.get(place, -1e9))
    if not best:
        return None
    across, up = map(_ordered, seen)
    table = [[best.get((x, y)) for x in across] for y in up]
    reach = max(abs(value) for value in best.values())
    figure = go.Figure(
        go.Heatmap(
            x=across, y=up, z=table, colorscale="RdBu",
            zmin=-reach, zmax=reach, texttemplate="%{z:.2f}", colorbar={"title": "Sharpe"}, hoverongaps=False,
        )
    )  # fmt: skip
    figure.update_xaxes(title_text=keys[0], type="category")
    figure.update_yaxes(title_text=keys[1], type="category")
    styled(figure, height=max(260, 60 + 40 * len(up)), left=110)
    figure.update_layout(showlegend=False)
    return figure


def _ordered(told: dict[str, Any]) -> list[str]:
    """Values as people read them: numbers in their order, others as they come."""
    numbers = all(isinstance(value, (int, float)) for value in told.values())
    return sorted(told, key=lambda text: told[text]) if numbers else list(told)


def _named(judged: Judged) -> str:
    assert judged.winner is not None
    told = _values(judged.winner.values)
    return f"trial {judged.winner.trial} on {judged.winner.instrument}" + (f" ({told})" if told else "")


def _values(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_value(value)}" for key, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, default=str)
    return f"{value:.6g}" if isinstance(value, float) else "–" if value is None else str(value)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _interval(interval: Interval | None, *, percent: bool = False) -> str:
    if interval is None:
        return ""
    factor, unit = (100.0, " %") if percent else (1.0, "")
    return f" [{factor * interval.low:.2f}, {factor * interval.high:.2f}]{unit}"


def _groups(count: int) -> str:
    return "one group of alike ones" if count == 1 else f"{count:,} groups of alike ones"


def _good_below(value: float, good: float, bad: float) -> bool | None:
    """None between the two."""
    return True if value < good else False if value >= bad else None


def _more_than(deflated: Deflated) -> str:
    if deflated.moving < OBSERVATIONS_MIN:
        return f"of {deflated.moving:,} days on which anything came of it, which say nothing"
    return "more than luck" if deflated.is_significant else "luck alone may explain it"


def _plain(value: Any) -> Any:
    return None if value is None else dataclasses.asdict(value)


def heat_keys(swept_keys: Sequence[str], chosen: str | None) -> tuple[str, str] | None:
    """The keys of the heat map: as chosen, or the first two that vary."""
    if chosen is not None:
        one, _, other = chosen.partition(",")
        return one.strip(), other.strip()
    return (swept_keys[0], swept_keys[1]) if len(swept_keys) > 1 else None
