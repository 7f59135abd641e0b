"""What a check found, with places, and how people read it."""

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from lmme3dhf.escaping import visible

SHOWN = 10  # of a kind


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: "error" for what a stage would stumble over or learn wrongly, "odd" for what a
            person should know.
        kind: What it is about, in a word or two, to group by.
        place: File, below the folder that was checked, and row, line or entry.
        sentence: What is wrong, and what was expected.
    """

    severity: str
    kind: str
    place: str
    sentence: str


@dataclass
class Report:
    """What a check looked at and found.

    Attributes:
        root: The folder or file that was checked.
        findings: In the order in which they were found.
        looked_at: What, in the plural -> how many of it were looked at.
        passed_over: Files and folders that the check does not know.
    """

    root: Path
    findings: list[Finding] = field(default_factory=list)
    looked_at: Counter = field(default_factory=Counter)
    passed_over: list[str] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """Number of errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def odd(self) -> int:
        """Number of odd things."""
        return len(self.findings) - self.errors

    def add_error(self, kind: str, place: str | Path, sentence: str) -> None:
        """Takes an error."""
        self._add("error", kind, place, sentence)

    def add_odd(self, kind: str, place: str | Path, sentence: str) -> None:
        """Takes an odd thing."""
        self._add("odd", kind, place, sentence)

    def add_message(self, kind: str, place: str | Path, message: str) -> None:
        """Takes the message of a reader's error, which may begin with the place or, more exactly,
        with a place in it ("list.json:3:14: not JSON").
        """
        place = str(place)
        more, colon, sentence = message.removeprefix(place).partition(": ")
        if message.startswith(place) and colon and " " not in more:
            self.add_error(kind, place + more, sentence)
        else:
            self.add_error(kind, place, message.removeprefix(place).lstrip(": "))

    def _add(self, severity: str, kind: str, place: str | Path, sentence: str) -> None:
        # Places and messages hold whole paths; people know the folder.
        folder = f"{self.root}{os.sep}"
        place, sentence = str(place).replace(folder, ""), sentence.replace(folder, "")
        self.findings.append(Finding(severity, kind, place, sentence))

    def text(self, shown: int = SHOWN) -> str:
        """The report for people: what was looked at, then the findings by kind, errors first, at
        most `shown` of a kind and the number of the rest; whatever names hold, it is harmless to a
        terminal.
        """
        looked_at = ", ".join(f"{what} {count}" for what, count in self.looked_at.items())
        lines = [f"{self.root}: looked at {looked_at or 'no file'}"]
        if self.passed_over:
            rest = len(self.passed_over) - shown
            more = f" and {rest} more" if rest > 0 else ""
            lines.append(f"passed over: {', '.join(self.passed_over[:shown])}{more}")
        groups: dict[tuple[str, str], list[Finding]] = defaultdict(list)
        for finding in sorted(self.findings, key=lambda finding: finding.severity == "odd"):
            groups[finding.severity, finding.kind].append(finding)
        for (severity, kind), findings in groups.items():
            lines.append(f"{severity}, {kind} ({len(findings)}):")
            lines += [f"  {finding.place}: {finding.sentence}" for finding in findings[:shown]]
            if len(findings) > shown:
                lines.append(f"  ... and {len(findings) - shown} more")
        lines.append(f"{_counted(self.errors, 'error')}, {_counted(self.odd, 'odd thing')}")
        return "\n".join(map(visible, lines))


def _counted(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"
