"""What an examination finds: one line, with what mends it."""

from dataclasses import dataclass

OK, WARNING, FAULT = "ok", "warning", "fault"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line.

    Attributes:
        check: What was looked at, in a word.
        status: `ok`; `warning` where something is slower, smaller or not there that a part needs;
            `fault` where something is broken that everything needs.
        message: What was found.
        fix: The one command or setting that mends it, or that adds what is optional; "" for none.
    """

    check: str
    status: str
    message: str
    fix: str = ""

    def line(self) -> str:
        """As it is printed."""
        fix = f" -> {self.fix}" if self.fix else ""
        return f"{self.status:<8} {self.check:<18} {self.message}{fix}"
