"""Reports of ingests, beside the bars: what was read, what was rejected, and where the bars came from."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from data.bars import BarSize

REPORTS_DIR = "ingest-reports"
_NAME_BYTES = 80
"""So much of a file's name is in its report's, which has an instrument, a size and endings too, and 255 in all."""


def report_stem(instrument_id: str, size: BarSize, files: list[Path]) -> str:
    """What the names of a report and of the rows that were rejected begin with."""
    # By their whole paths: files of the same name in two directories have two reports.
    key = hashlib.sha256("\n".join(str(path.resolve()) for path in files).encode()).hexdigest()[:8]
    name = files[0].name.partition(".")[0].encode()[:_NAME_BYTES].decode(errors="ignore")
    return f"{instrument_id}-{size}-{name}-{key}"


def write_report(path: Path, document: dict[str, object]) -> None:
    """Replace a report at once, and only where it says something else."""
    text = json.dumps(document, indent=2) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="")
    os.replace(temporary, path)


def tells(path: Path, facts: dict[str, object]) -> bool:
    """Whether a report says all this already."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return all(report.get(name) == fact for name, fact in facts.items())
