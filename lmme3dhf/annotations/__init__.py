"""From raw annotations to labels (paper, Section 3.3): opinion scores, levels, saliency maps and
distortion categories.

Here stands what every reader of a raw annotation table shares: its error and the walk over a CSV
file with line numbers.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from lmme3dhf.errors import UserError


class AnnotationError(UserError, ValueError):
    """A raw annotation or a label that cannot be used; the message says where it stands, what was
    expected and what to do.
    """


def csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yields (line number, cells) for the rows of a UTF-8 CSV file whose header is exactly
    `columns`.

    Cells come without surrounding blanks; empty lines and a byte order mark are passed over. In a
    row whose last cell spans several lines, the number is that of the row's last line.

    Raises:
        AnnotationError: Wrong header, wrong number of cells, not UTF-8, or not CSV.
        FileNotFoundError: No such file.
    """
    expected = ",".join(columns)
    content = path.read_bytes()
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the header.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise AnnotationError(
            f"{path}:{line}: not UTF-8 ({error.reason}); save the table as UTF-8"
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = tuple(cell.strip() for cell in next(reader, []))
        if header != columns:
            raise AnnotationError(
                f"{path}:1: header is {','.join(header)!r}, expected {expected!r}; correct the "
                "first line"
            )
        for row in reader:
            if not row:
                continue
            if len(row) != len(columns):
                raise AnnotationError(
                    f"{path}:{reader.line_num}: {len(row)} cells, expected {len(columns)} "
                    f"({expected}); put text that contains a comma in double quotes"
                )
            yield reader.line_num, tuple(cell.strip() for cell in row)
    except csv.Error as error:
        raise AnnotationError(
            f"{path}:{reader.line_num}: not a CSV row ({error}); correct the quotes in this line"
        ) from error
