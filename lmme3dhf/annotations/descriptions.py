"""From free remarks to the nine distortion categories, and the answer sentence that names them
(paper, Section 3.3).

Annotators describe what they marked in a few typed or dictated words. A remark is cut into clauses;
a clause that calls things fine, or denies a defect, names nothing; every other clause is matched
against a table of phrases per category. The categories of a video are the union over its
annotators, and "Distortions found: A, B" is how a model is asked to say them.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from lmme3dhf.annotations import AnnotationError, csv_rows
from lmme3dhf.vocabulary import DISTORTIONS, NO_DISTORTION

REMARK_COLUMNS = ("marker", "video", "remark")
REPLY_PREFIX = "Distortions found:"

# Phrases per category. A star lets the word go on ("blur*": blurry, blurred); a blank also stands
# for a hyphen or for nothing ("over expos*": overexposed). Where phrases compete for the same
# letters the longer one wins: "ear rings" are not ears.
PHRASES = {
    "Eye Distortions": (
        "eye, eyes, eye ball*, eye lid*, eye lash*, pupil*, iris, irises, gaze*, squint*, "
        "cross eyed"
    ),
    "Mouth Distortions": "mouth*, lip, lips, teeth, tooth*, tongue*, smil*, gum, gums",
    "Hair Distortions": (
        "hair*, bangs, fringe, ponytail*, beard*, mustache*, moustache*, bald*, wig, wigs"
    ),
    "Facial Feature Distortions": (
        "facial feature*, nose*, nostril*, ear, ears, cheek*, chin, eye brow*, brow, brows, jaw*, "
        "forehead*, wrinkle*"
    ),
    "Head Structure Distortions": (
        "head, heads, skull*, neck, second face, extra face, two faces, double face"
    ),
    "Overlap or Blending Issues": (
        "overlap*, blend*, merge*, merging, fuse*, fusing, fusion*, melt*, intersect*, ghost*, "
        "seam, seams, transparen*, see through"
    ),
    "Blurring / Exposure / Grain": (
        "blur*, fuzzy, out of focus, not sharp, unsharp*, grain*, noise*, noisy, exposure*, over "
        "expos*, under expos*, too bright, too dark, pixelat*, haze, hazy, smear*, low res*, "
        "glare*, washed out"
    ),
    "Accessories or Cloth Distortions": (
        "accessor*, cloth*, glasses, sun glass*, eye glass*, eye wear, hat, hats, cap, caps, ear "
        "ring*, necklace*, jewel*, scarf, scarves, shirt*, collar*, dress, suit, suits, tie, "
        "ties, hair band*, head band*, head phone*, helmet*, mask, masks, hood*, garment*, "
        "jacket*, coat, coats"
    ),
}
# Where a defect is rather than what it is: counts only in a clause that names no category otherwise
# ("the face is blurred").
PLACES = {"Facial Feature Distortions": "face, faces, facial"}

_DEFECT = (
    r"distort\w*|deform\w*|art[ie]fact\w*|problems?|issues?|defects?|flaw(?:s|ed)?|errors?|anomal\w*|abnormal\w*|glitch\w*|"
    r"imperfect\w*|blur\w*|nois[ey]\w*|grain\w*|overlap\w*|blend\w*|damag\w*"
)
_DEFECTIVE = r"broken|missing|lost|wrong|weird|strange|odd|bad|unnatural|unrealistic"
_GOOD = (
    r"fine|ok|okay|good|great|perfect|normal|natural|clean|clear|realistic|correct|nice|excellent|flawless|all\s?right|acceptable|"
    r"undistorted"
)
_NOT = r"(?:(?:is|are|do|does|did|was|were|ca|could|would|wo)n'?t|cannot|not|never|hardly)"
# Not across "and": in "without pupils and blurry" the hair is not denied.
_UP_TO_FOUR_WORDS = r"(?:(?!and\b)[\w'-]+\s+){0,4}?"

_CLAUSE_END = re.compile(
    r"[.,;:!?\n]+|\b(?:but|however|although|though|except(?:\sfor)?|apart\sfrom|other\sthan|besides|while|only)\b"
)
_DENIED_DEFECT = re.compile(
    rf"\b(?:no|without|zero|free\s+(?:of|from)|{_NOT})\s+{_UP_TO_FOUR_WORDS}(?:{_DEFECT})\b|"
    rf"\b{_NOT}\s+{_UP_TO_FOUR_WORDS}(?:{_DEFECTIVE})\b"
)
_DENIED_GOOD = re.compile(rf"\b(?:no|nothing|none|{_NOT})\s+{_UP_TO_FOUR_WORDS}(?:{_GOOD})\b")
_NOTHING = re.compile(r"\b(?:nothing|none|nil|nope)\b|^\s*no\s*$|\bn/a\b")
_CALLED_GOOD = re.compile(rf"\b(?:{_GOOD})\b")
_ANY_DEFECT = re.compile(rf"\b(?:{_DEFECT}|{_DEFECTIVE})\b")


def _matcher(table: dict[str, str]) -> tuple[re.Pattern, list[str]]:
    """One pattern with a group per phrase, longest first, and the category of each group."""
    phrases = [
        (phrase, category) for category, listed in table.items() for phrase in listed.split(", ")
    ]
    phrases.sort(key=lambda pair: -len(pair[0]))
    groups = [
        "("
        + phrase.removesuffix("*").replace(" ", r"[\s-]?")
        + ("" if phrase.endswith("*") else r"\b")
        + ")"
        for phrase, _ in phrases
    ]
    return re.compile(r"\b(?:" + "|".join(groups) + ")"), [category for _, category in phrases]


_PHRASE_MATCHER = _matcher(PHRASES)
_PLACE_MATCHER = _matcher(PLACES)


def _matches(clause: str, matcher: tuple[re.Pattern, list[str]]) -> set[str]:
    pattern, category_of_group = matcher
    return {category_of_group[match.lastindex - 1] for match in pattern.finditer(clause)}


def categories_of(remark: str) -> frozenset[str]:
    """The categories that a remark names; {NO_DISTORTION} where it only says that nothing is wrong.

    An empty set means that no rule matched (a blank remark included): the caller lists such
    remarks. A remark that denies one defect and names another gets the other. "No" before a part of
    the face is not a denial: "no left ear" is a distortion. Known limit: a denial reaches to the
    end of its clause, so "no blur and crossed eyes" counts as clean; a comma helps.
    """
    named: set[str] = set()
    clean = False
    for clause in _CLAUSE_END.split(
        remark.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    ):
        if _says_clean(clause):
            clean = True
            continue
        named |= _matches(clause, _PHRASE_MATCHER) or _matches(clause, _PLACE_MATCHER)
    if not named and clean:
        return frozenset({NO_DISTORTION})
    return frozenset(named)


def _says_clean(clause: str) -> bool:
    if _DENIED_GOOD.search(clause):
        return False
    if _DENIED_DEFECT.search(clause) or _NOTHING.search(clause):
        return True
    return bool(_CALLED_GOOD.search(clause)) and not _ANY_DEFECT.search(clause)


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
    """What an answer sentence names.

    Attributes:
        categories: The categories in vocabulary order; NO_DISTORTION only alone. Empty where the
            text names none.
        unknown: The pieces of the text that are no category, as written.
    """

    categories: tuple[str, ...]
    unknown: tuple[str, ...]


def parse_distortions(text: str) -> DistortionAnswer:
    """Reads "Distortions found: A, B" back, tolerantly.

    Case, spaces, punctuation inside a name, a plural s and the prefix do not matter; names are
    separated by comma, semicolon, line end or "and". NO_DISTORTION beside another category is
    dropped, as in `merge_markers`.
    """
    body = re.sub(r"^\s*distortions?\s+found\s*:?", "", text, flags=re.IGNORECASE)
    found, unknown = set(), []
    for piece in re.split(r"[,;\n]|\band\b", body, flags=re.IGNORECASE):
        key = _letters(piece)
        if key in _CATEGORY_OF_LETTERS:
            found.add(_CATEGORY_OF_LETTERS[key])
        elif key:
            unknown.append(piece.strip())
    return DistortionAnswer(_in_order(found), tuple(unknown))


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.casefold()).removesuffix("s")


_CATEGORY_OF_LETTERS = {_letters(category): category for category in DISTORTIONS}
