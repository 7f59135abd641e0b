"""From raw annotations to labels (paper, Section 3.3): opinion scores, levels, saliency maps and
distortion categories.

Here stands what the readers of annotations share: their error, the walk over a CSV file with line
numbers, JSON, and the refusal of a choice that does not exist.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from lmme3dhf.errors import UserError
from lmme3dhf.files import csv_cells


class AnnotationError(UserError, ValueError):
    """A raw annotation or a label that cannot be used; the message says where it stands, what was
    expected and what to do.
    """


def require_known(what: str, chosen: str, known: Iterable[str]) -> None:
    """Refuses a choice that is not one of those known.

    Raises:
        AnnotationError: It is not.
    """
    if chosen not in known:
        raise AnnotationError(f"{what} {chosen!r} is not one of {', '.join(known)}")


def csv_text(path: Path) -> str:
    """The text of a table, without the byte order mark that spreadsheets put before it.

    Raises:
        AnnotationError: With the line: not UTF-8, or no text at all.
        FileNotFoundError: No such file.
    """
    content = path.read_bytes()
    at, reason = content.find(b"\0"), "a zero byte"
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at, reason = error.start, error.reason
    if at >= 0:
        line = content.count(b"\n", 0, at) + 1
        raise AnnotationError(f"{path}:{line}: not UTF-8 ({reason}); save the table as UTF-8")
    return text


def json_content(path: Path) -> object:
    """The content of a JSON file.

    Raises:
        AnnotationError: Not UTF-8, or not JSON; with line and column where there is one.
        FileNotFoundError: No such file.
    """
    try:
        # utf-8-sig: editors on Windows put a byte order mark before the text.
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{path}:{error.lineno}:{error.colno}: not JSON ({error.msg}); correct the file there"
        ) from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: cannot be read as JSON ({error}); correct it") from error


def csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yields (line number, cells) for the rows of a UTF-8 CSV file whose header is exactly
    `columns`.

    Cells come without surrounding blanks and without the apostrophe before a formula
    (`files.csv_lines`); empty lines and a byte order mark are passed over. In a
    row whose last cell spans several lines, the number is that of the row's last line.

    Raises:
        AnnotationError: Wrong header, wrong number of cells, not UTF-8, or not CSV.
        FileNotFoundError: No such file.
    """
    expected = ",".join(columns)
    reader = csv.reader(io.StringIO(csv_text(path), newline=""), strict=True)
    begins = 1
    try:
        header = tuple(cell.strip() for cell in csv_cells(next(reader, [])))
        if header != columns:
            raise AnnotationError(
                f"{path}:1: header is {','.join(header)[:80]!r}, expected {expected!r}; correct "
                "the first line"
            )
        begins = reader.line_num + 1
        for row in reader:
            begins = reader.line_num + 1  # the next row, should it be broken
            if not row:
                continue
            if len(row) != len(columns):
                raise AnnotationError(
                    f"{path}:{reader.line_num}: {len(row)} cells, expected {len(columns)} "
                    f"({expected}); put text that contains a comma in double quotes"
                )
            yield reader.line_num, tuple(cell.strip() for cell in csv_cells(row))
    except csv.Error as error:
        raise AnnotationError(
            f"{path}:{begins}: not a CSV row ({error}); correct the quotes in this line"
        ) from error
