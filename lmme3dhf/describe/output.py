"""The files of a description, and what it has to leave out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmme3dhf.files import write_csv


@dataclass
class Output:
    """The files of one description, and what it had to leave out.

    Attributes:
        folder: Where they are written.
        files: Name -> what it holds.
        left_out: What is not described -> what it would need.
        note: Small line in the corner of each picture, empty for none.
    """

    folder: Path
    note: str = ""
    files: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def table(self, name: str, what: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes rows as CSV; nested ones get names like quality_mean."""
        flat = [_flat(row) for row in rows]
        header = list(dict.fromkeys(key for row in flat for key in row))
        write_csv(self.folder / name, header, [[row.get(key) for key in header] for row in flat])
        self.files[name] = what

    def picture(self, name: str, what: str) -> Path:
        """The path of a picture, NAME.png, that will be drawn there with its NAME.svg."""
        self.files[name] = what
        self.files[str(Path(name).with_suffix(".svg"))] = f"{what} (vector)"
        return self.folder / name


def _flat(row: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}_")
        else:
            flat[f"{before}{key}"] = value
    return flat
