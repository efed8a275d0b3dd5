"""One HTML page of findings, tables and pictures, for any study; it needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

INK, GRID, LIMIT = "#1d2733", "#e8ebef", "#c8473c"
COLOURS = (
    "#2456a6", "#e0a63a", "#2f8f6b", "#8a4fa3", "#c8473c", "#66717f", "#4aa3c8", "#a37f4f",
    "#0b2a5b", "#8f6100", "#79c9a4", "#d59be6", "#7a1f17", "#b5bec9", "#0f6f94", "#e8c9a0",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A figure beside its target: ``met`` is None where there is no target, or it cannot be told."""

    met: bool | None
    text: str

    @property
    def told(self) -> str:
        """For people: the verdict first."""
        return f"{ {True: 'met', False: 'MISSED', None: 'no target'}[self.met] }: {self.text}"


class Said(Finding):
    """A finding as a sentence; ``met`` is its colour."""

    @property
    def told(self) -> str:
        """The sentence."""
        return self.text


@dataclass(frozen=True)
class Section:
    """A heading, what it is about, and a table or a picture or both. The first column is text, the others figures."""

    heading: str
    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    chart: go.Figure | None = None


def as_html(title: str, subtitle: str, findings: Sequence[Finding], sections: Sequence[Section]) -> str:
    """The page as text."""
    template = jinja2.Environment(autoescape=True).from_string(
        Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    )
    charts = [section.chart.to_json() for section in sections if section.chart is not None]
    return template.render(
        plotly=get_plotlyjs(), title=title, subtitle=subtitle, findings=findings, sections=sections, charts=charts
    )


def styled(figure: go.Figure, height: int = 360, left: int = 60) -> go.Figure:
    """The figure in the look of the page."""
    # Long names of what is compared need more room than any fixed margin.
    figure.update_xaxes(gridcolor=GRID, automargin=True)
    figure.update_yaxes(gridcolor=GRID, automargin=True)
    figure.update_layout(
        template="none", height=height, margin={"l": left, "r": 20, "t": 20, "b": 50}, colorway=COLOURS,
        font={"color": INK, "size": 12}, legend={"x": 1.02, "y": 1.0}, showlegend=True, paper_bgcolor="#fff",
    )  # fmt: skip
    return figure
