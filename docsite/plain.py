"""Plain English, checked: `python -m docsite.plain` fails on long sentences and on words that hide who does what.

It reads the README, the changelog and all documents. Code, tables' headings, links' targets and comments are no sentences;
an item of a list and a cell of a table are.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
WORDS_MAX: Final = 40
MEDIAN_MAX: Final = 18
INSTEAD: Final = {
    "utilize": "use",
    "utilise": "use",
    "leverage": "use",
    "facilitate": "help",
    "in order to": "to",
    "prior to": "before",
    "in the event that": "if",
    "due to the fact that": "because",
    "simply": "(leave it out)",
    "basically": "(leave it out)",
    "obviously": "(leave it out)",
    "seamless": "(say what happens)",
    "seamlessly": "(say what happens)",
    "robust": "(say against what)",
    "blazing": "(give the figure)",
    "cutting-edge": "(leave it out)",
    "state-of-the-art": "(leave it out)",
}
_FENCE: Final = re.compile(r"^( *)```.*?^\1```$", re.M | re.S)
_COMMENT: Final = re.compile(r"<!--.*?-->", re.S)
_TARGET: Final = re.compile(r"\]\([^)]*\)")
_CODE: Final = re.compile(r"`[^`]*`")
_NEW_PARAGRAPH: Final = re.compile(r"^\s*(?:[-*+] |\d+\. |#+ |> ?|\|)")
_ENDS: Final = re.compile(r"(?<=[.!?])[)*\"_]*\s+(?=[\W_]*[A-Z0-9])")
_WORD: Final = re.compile(r"[A-Za-z0-9][\w'’.,/-]*")


@dataclass(frozen=True, slots=True)
class Sentence:
    text: str
    line: int

    @property
    def words(self) -> int:
        return len(_WORD.findall(self.text))


def sentences(document: str) -> Iterator[Sentence]:
    for line, paragraph in _paragraphs(document):
        at = 0
        for text in _ENDS.split(paragraph):
            at = paragraph.index(text, at)
            yield Sentence(text, line + paragraph[:at].count("\n"))
            at += len(text)


def _paragraphs(document: str) -> Iterator[tuple[int, str]]:
    """Each with the number of its first line."""
    begun, lines = 1, list[str]()
    for number, line in enumerate(_prose(document).splitlines(), 1):
        if not line.strip() or _NEW_PARAGRAPH.match(line):
            yield begun, "\n".join(lines)
            lines = []
        if line.startswith("#"):
            yield number, line
        elif line.lstrip().startswith("|"):
            yield from ((number, cell) for cell in line.split("|"))
        elif line.strip():
            begun = begun if lines else number
            lines.append(line)
    yield begun, "\n".join(lines)


def _prose(document: str) -> str:
    """What is no prose becomes blank, and each line stays where it was. A piece of code counts as one word."""
    for what in (_FENCE, _COMMENT):
        document = what.sub(lambda found: "\n" * found[0].count("\n"), document)
    return _CODE.sub("Code", _TARGET.sub("]", document))


def faults(document: str) -> Iterator[str]:
    for sentence in sentences(document):
        if sentence.words > WORDS_MAX:
            yield f"{sentence.line}: {sentence.words} words: {' '.join(sentence.text.split())}"
        for word, better in INSTEAD.items():
            if re.search(rf"\b{word}\b", sentence.text, re.I):
                yield f"{sentence.line}: instead of {word!r} write: {better}"


def median(documents: Iterator[str]) -> float:
    """Of the sentences in paragraphs and lists: of three words and more, since a cell may hold one."""
    counts = [s.words for text in documents for s in sentences(text) if s.words > 3]
    return statistics.median(counts)


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> int:
    found = [
        f"{path.relative_to(ROOT)}:{fault}"
        for path in documents()
        for fault in faults(path.read_text())
    ]
    middle = median(path.read_text() for path in documents())
    for fault in found:
        print(fault)
    print(f"{len(found)} faults; the median sentence has {middle:g} words (at most {MEDIAN_MAX})")
    return int(bool(found) or middle > MEDIAN_MAX)


if __name__ == "__main__":
    sys.exit(main())
