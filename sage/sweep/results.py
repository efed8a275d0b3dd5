"""What a sweep leaves beside its runs: tables, figures for machines, and the report."""

from __future__ import annotations

import json

from regime.files import write_durably
from sage.rundir import plain
from sage.sweep import report
from sage.sweep.places import is_remote, local_path, mirror_of
from sage.sweep.sweep import Swept
from sage.sweep.table import write_trials


def write_results(swept: Swept, place: str, heat: tuple[str, str] | None = None) -> None:
    """Write ``trials.parquet``, ``results.json`` and ``report.html``, each whole or not at all.

    Parameters
    ----------
    swept
        The sweep; its table of runs is there already.
    place
        Its place.
    heat
        Keys of the report's heat map.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    directory = local_path(place)
    write_trials(report.trial_rows(swept), directory)
    document = json.dumps(plain(report.as_document(swept)), indent=2, default=str)
    write_durably(directory / report.JSON_FILE, document + "\n")
    try:
        write_durably(directory / report.HTML_FILE, report.page(swept, heat))
    finally:
        # Whatever becomes of the picture, the figures are to be had.
        if is_remote(place):
            mirror_of(place).publish()
