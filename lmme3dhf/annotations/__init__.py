"""From raw annotations to labels (paper, Section 3.3): opinion scores, levels, saliency maps and
distortion categories.

Here stands what the readers of annotations share: their error, the walk over a CSV file with line
numbers, JSON, and the refusal of a choice that does not exist.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lmme3dhf.aspects import Scale
from lmme3dhf.errors import UserError
from lmme3dhf.sheets import read_sheet

# Scales that people rate on, by their top; and what makes a scale out of values.
_SCALES = (1.0, 5.0, 10.0, 100.0)
_SOME, _MANY, _SHARE = 3, 5, 0.2


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


def other_scale(values: Sequence[float], scale: Scale) -> str | None:
    """What is wrong with numbers that lie on another scale as a whole, and how to convert them;
    None where they may well lie on this one. A few values outside are no other scale, and neither
    are a few low ones.

    Args:
        values: Ratings or opinion scores of one aspect.
        scale: The scale that is expected.
    """
    values = [value for value in values if math.isfinite(value)]
    low, high = scale.minimum, scale.maximum
    if not values or min(values) < min(low, 0):
        return None
    beyond, top = sum(value > high for value in values), max(values)
    above = beyond >= _SOME and beyond >= _SHARE * len(values)
    # Nobody gives every video the lowest tenth of a scale, or fifth of a slider, unless that is the
    # good end.
    lowest = low + max((high - low) / 10, min(1.0, (high - low) / 5))
    below = len(values) >= _MANY and min(values) < top <= lowest and scale.higher_is_better
    if not (above or below):
        return None
    found = f"lie in {min(values):g} to {top:g}, expected {low:g} to {high:g}"
    other = next((maximum for maximum in _SCALES if top <= maximum), None)
    if other is None or low != 0:
        return f"{found}; convert them to that scale"
    ratio = high / other
    how = f"multiply them by {ratio:g}" if ratio > 1 else f"divide them by {1 / ratio:g}"
    likert = ""
    if other == 5 and min(values) >= 1:
        likert = f", or subtract 1 and multiply by {high / 4:g} if the lowest mark is 1"
    return f"{found}; on a scale of 0 to {other:g}, {how}{likert}"


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
    """Yields (line number, cells) for the rows of a CSV file (`sheets.read_sheet`) whose header is
    exactly `columns`. In a row whose last cell spans several lines, the number is that of the row's
    last line.

    Raises:
        AnnotationError: Wrong header, wrong number of cells, not UTF-8, or not CSV.
        FileNotFoundError: No such file.
    """
    yield from read_sheet(
        path,
        AnnotationError,
        fits=lambda header: header == columns,
        advice=lambda header: header_advice(header, columns),
    ).rows


def header_advice(header: tuple[str, ...], columns: tuple[str, ...]) -> str:
    """What to do with a header that is not `columns`."""
    expected = f"expected {','.join(columns)!r}"
    missing = [name for name in columns if name not in header]
    more = [name for name in header if name not in columns]
    if more and not missing:
        columns_named = ", ".join(map(repr, more))
        return f"{expected}; remove the column{'s' * (len(more) > 1)} {columns_named}"
    return f"{expected}; correct the first line"
