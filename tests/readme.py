"""What the README and the pages that it links say: their commands, in order, and their links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"

_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Command:
    """One command as a page has it. ``words`` are those that a shell would pass on."""

    page: str
    text: str
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        """What is called: ``sage``, ``make``, ..."""
        return self.words[0]


def pages() -> list[Path]:
    """The README, and the pages that it links, in the order in which a reader comes upon them."""
    linked = [(README.parent / link.partition("#")[0]) for link in links(README)]
    return [README, *dict.fromkeys(page for page in linked if page.suffix == ".md" and page.is_file())]


def links(page: Path) -> list[str]:
    """Where a page's links lead, but for those out of the project."""
    return [link for link in _LINK.findall(page.read_text()) if "://" not in link]


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as links call them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> list[Command]:
    """Every command of the pages' shell blocks, without comments."""
    found = []
    for page in pages():
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.S | re.M):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    found.append(Command(page.name, " ".join(words), tuple(words)))
    return found


def mentions(program: str) -> set[str]:
    """What follows ``program`` in `inline code` and in commands: the names of its commands or targets."""
    inline = {name for page in pages() for name in re.findall(rf"`{program} ([a-z][a-z-]*)", page.read_text())}
    return inline | {command.words[1] for command in commands() if command.program == program}
