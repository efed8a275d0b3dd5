"""A page of findings stands alone."""

from __future__ import annotations

import plotly.graph_objects as go

from sage.studies.page import Finding, Section, as_html, styled


def test_a_page_tells_its_findings_and_draws_each_picture_in_its_place() -> None:
    chart = styled(go.Figure().add_scatter(x=[1, 2], y=[3, 4]))
    page = as_html(
        "Are <regimes> right?",
        "200 seeds",
        [Finding(True, "fine"), Finding(False, "late"), Finding(None, "by the way")],
        [Section("One", "text", ("peer", "score"), [("hmm", "0.95")]), Section("Two", chart=chart)],
    )
    assert "met: fine" in page and "MISSED: late" in page and "no target: by the way" in page
    assert "Are &lt;regimes&gt; right?" in page
    assert page.count('<div id="chart') == 1
    assert "http://" not in page.split("</script>", 1)[1]
