"""From free remarks to the nine distortion categories, and the answer sentence that names them
(paper, Section 3.3).

Annotators describe what they marked in a few typed or dictated words; `annotations.remarks` reads
one remark. The categories of a video are the union over its annotators, and "Distortions found: A,
B" is how a model is asked to say them.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lmme3dhf.annotations import AnnotationError, csv_rows
from lmme3dhf.annotations.marker_agreement import MarkerAgreement, marker_agreement
from lmme3dhf.annotations.remarks import Reading, read_remark
from lmme3dhf.annotations.replies import read_reply
from lmme3dhf.annotations.rules import Rules, load_rules
from lmme3dhf.vocabulary import DISTORTIONS, NO_DISTORTION

REMARK_COLUMNS = ("marker", "video", "remark")
REPLY_PREFIX = "Distortions found:"


def categories_of(remark: str, rules: Rules | None = None) -> frozenset[str]:
    """The categories that a remark names; {NO_DISTORTION} where it only says that nothing is wrong,
    empty where no rule matched (see `read_remark`).
    """
    return frozenset(read_remark(remark, rules).categories)


def merge_markers(markers: Iterable[Collection[str]]) -> tuple[str, ...]:
    """Union of the markers' categories in vocabulary order; NO_DISTORTION only where no marker
    names another category.

    Empty when no marker's remark matched anything.

    Raises:
        AnnotationError: A category that is not one of the nine.
    """
    return _in_order({category for categories in markers for category in categories})


def _in_order(categories: Collection[str]) -> tuple[str, ...]:
    unknown = sorted(set(categories) - set(DISTORTIONS))
    if unknown:
        raise AnnotationError(
            f"category {unknown[0]!r} is not one of the nine: {', '.join(DISTORTIONS)}"
        )
    named = tuple(category for category in DISTORTIONS if category in categories)
    return tuple(category for category in named if category != NO_DISTORTION) or named


@dataclass(frozen=True)
class RemarkLabels:
    """What the remarks on a set of videos come to.

    Attributes:
        labels: Video -> union of its markers' categories in vocabulary order; NO_DISTORTION only
            alone. Without the undecided videos.
        undecided: Videos whose remarks name no distortion while one of them, at least, could not be
            read: it may be the one that does.
        readings: Every remark, in the order of the table; those without categories fit no rule.
        agreement: How far the markers agree.
    """

    labels: dict[str, tuple[str, ...]]
    undecided: tuple[str, ...]
    readings: tuple[Reading, ...]
    agreement: MarkerAgreement


def label_remarks(
    remarks: Mapping[str, Mapping[str, str]], rules: Rules | None = None
) -> RemarkLabels:
    """Reads all remarks and merges those of each video.

    Args:
        remarks: Video -> marker -> text, as `read_remarks` gives them.
        rules: The table of phrases; None for the built-in one.
    """
    rules = rules or load_rules()
    readings = tuple(
        read_remark(text, rules, marker, video)
        for video, of_video in remarks.items()
        for marker, text in of_video.items()
    )
    found: dict[str, dict[str, tuple[str, ...]]] = {video: {} for video in remarks}
    for reading in readings:
        found[reading.video][reading.marker] = reading.categories
    merged = {video: merge_markers(of_video.values()) for video, of_video in found.items()}
    undecided = tuple(
        video
        for video, categories in merged.items()
        if not categories or (categories == (NO_DISTORTION,) and not all(found[video].values()))
    )
    return RemarkLabels(
        labels={v: categories for v, categories in merged.items() if v not in set(undecided)},
        undecided=undecided,
        readings=readings,
        agreement=marker_agreement(found),
    )


def read_remarks(path: Path) -> dict[str, dict[str, str]]:
    """Reads the table `marker,video,remark` into video -> marker -> text, in the order of the file;
    a text may be blank.

    Raises:
        AnnotationError: With path and line: wrong header, empty marker or video, a second remark of
            a marker on a video, or a table without any row.
    """
    remarks: dict[str, dict[str, str]] = {}
    for line, (marker, video, text) in csv_rows(path, REMARK_COLUMNS):
        if not marker or not video:
            raise AnnotationError(f"{path}:{line}: marker or video is empty; name both")
        of_video = remarks.setdefault(video, {})
        if marker in of_video:
            raise AnnotationError(
                f"{path}:{line}: marker {marker!r} has already remarked on {video!r}; join the "
                "two texts in one row"
            )
        of_video[marker] = text
    if not remarks:
        raise AnnotationError(
            f"{path}: no remarks below the header; expected rows of {','.join(REMARK_COLUMNS)}"
        )
    return remarks


def distortion_reply(categories: Collection[str]) -> str:
    """The answer sentence "Distortions found: A, B", categories in vocabulary order.

    Raises:
        AnnotationError: No category, an unknown one, or NO_DISTORTION beside another.
    """
    if not categories or (NO_DISTORTION in categories and len(set(categories)) > 1):
        raise AnnotationError(
            f"distortion answer for {sorted(categories)}: expected at least one category, and "
            f"{NO_DISTORTION!r} only alone"
        )
    return f"{REPLY_PREFIX} {', '.join(_in_order(categories))}"


@dataclass(frozen=True)
class DistortionAnswer:
    """What an answer names.

    Attributes:
        categories: The categories in vocabulary order; NO_DISTORTION only alone. Empty where the
            text names none.
        unknown: The pieces of the text that are no category's name, as written. A label file with
            any is refused; a model's reply may have been understood all the same.
        named: The categories in the order of the text where it gives their names, else in
            vocabulary order.
    """

    categories: tuple[str, ...]
    unknown: tuple[str, ...]
    named: tuple[str, ...] = ()


def parse_distortions(text: str) -> DistortionAnswer:
    """Reads "Distortions found: A, B" back, tolerantly, and any other reply as well as it can be
    read.

    In a list, case, spaces, punctuation inside a name, a plural s and the prefix do not matter;
    names are separated by comma, semicolon, line end or "and". NO_DISTORTION beside another
    category is dropped, as in `merge_markers`. All nine names at once are the question's list, not
    an answer, and give none. A text with a colon, or a piece that is no name, is a free reply
    (`read_reply`).
    """
    body = re.sub(r"^\s*distortions?\s+found\s*:?", "", text, flags=re.IGNORECASE)
    found, unknown = [], []
    for piece in re.split(r"[,;\n]|\band\b", body, flags=re.IGNORECASE):
        key = _letters(piece)
        if key in _CATEGORY_OF_LETTERS:
            found.append(_CATEGORY_OF_LETTERS[key])
        elif key:
            unknown.append(piece.strip())
    if unknown or ":" in body:
        found = read_reply(body)
    elif set(found) == set(DISTORTIONS):
        found = []
    categories = _in_order(found)
    named = tuple(category for category in dict.fromkeys(found) if category in categories)
    return DistortionAnswer(categories, tuple(unknown), named)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.casefold()).removesuffix("s")


_CATEGORY_OF_LETTERS = {_letters(category): category for category in DISTORTIONS}
