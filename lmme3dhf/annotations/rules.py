"""The table of phrases by which remarks are read (Section 3.3), and its extension by a user's file.

`remark_rules.yaml` beside this module is the built-in table and says what its keys mean. A user's
file has the same keys: what it lists is added, what it lists below `remove` is taken out first.
Nothing in it is passed over: an unknown key, a category that is not one of the nine or a phrase
with two meanings is an error with its line.
"""

import difflib
import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.vocabulary import DISTORTIONS

BUILT_IN = Path(__file__).with_name("remark_rules.yaml")

CATEGORIES = DISTORTIONS[:-1]
_BY_CATEGORY = ("categories", "places")
_WORD_LISTS = ("faults", "faulty", "good", "nothing")
_SPELLING_LISTS = ("correct_to", "never_correct")
_KEYS = (*_BY_CATEGORY, *_WORD_LISTS, *_SPELLING_LISTS, "misspellings", "remove")
# Keys among which a phrase has one meaning only. A fault, though, may well name a category.
_GROUP_OF = {
    key: keys
    for keys in (_BY_CATEGORY, _WORD_LISTS, _SPELLING_LISTS, ("misspellings",))
    for key in keys
}

_PHRASE = re.compile(r"[\w']+(?:[ /][\w']+)*\*?")
_WORD = re.compile(r"[^\W\d_]+")
_SHORTEST_BEFORE_STAR = 3
SHORTEST_CORRECTED = 4


@dataclass(frozen=True, eq=False)
class Rules:
    """A table of phrases, and the patterns made of it.

    Attributes:
        categories: Category -> phrases that name it, in vocabulary order.
        places: Category -> phrases that name it where nothing else is named.
        faults: Defects that can be denied from afar.
        faulty: Defects that are denied by a verb, or by "no" at once.
        good: Words that call something free of defects.
        nothing: Words of a remark that finds nothing.
        correct_to: Words that a misspelt word may be read as.
        never_correct: Words that are left as they are.
        misspellings: Word -> what it is read as in any case.
        category_matcher: A pattern with a group per phrase of `categories`, longest first, and the
            category of each group.
        place_matcher: The same for `places`.
    """

    categories: dict[str, tuple[str, ...]]
    places: dict[str, tuple[str, ...]]
    faults: tuple[str, ...]
    faulty: tuple[str, ...]
    good: tuple[str, ...]
    nothing: tuple[str, ...]
    correct_to: tuple[str, ...]
    never_correct: frozenset[str]
    misspellings: dict[str, str]
    category_matcher: tuple[re.Pattern, tuple[str, ...]]
    place_matcher: tuple[re.Pattern, tuple[str, ...]]


@dataclass(frozen=True)
class _Entry:
    """One item of a file: `key` and `category` say where it stands ("" where there is none), `to`
    is what a misspelling is read as.
    """

    key: str
    category: str
    phrase: str
    where: str
    to: str = ""

    @property
    def place(self) -> str:
        return f"{self.key}, {self.category}" if self.category else self.key

    @property
    def letters(self) -> str:
        """What two ways of writing the same phrase have in common."""
        return re.sub(r"[ *]", "", self.phrase)


def plain(text: str) -> str:
    """Lower case, one form of every letter, straight apostrophes: how phrases and remarks meet."""
    return (
        unicodedata.normalize("NFKC", text)
        .casefold()
        .replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    )


def load_rules(path: Path | None = None) -> Rules:
    """The built-in table, extended by a user's file where one is given.

    Args:
        path: YAML file with the keys of `remark_rules.yaml`; None for the built-in table alone.

    Raises:
        AnnotationError: With path and line: not YAML or not UTF-8, an empty file, an unknown key or
            category (with the nearest one), a value of the wrong kind, an empty or unusable phrase,
            a phrase with two meanings, or a phrase to remove that is not there.
        FileNotFoundError: No such file.
    """
    return _built_in() if path is None else _rules(_extended(_entries(BUILT_IN), _entries(path)))


@functools.cache
def _built_in() -> Rules:
    return _rules(_extended([], _entries(BUILT_IN)))


def _extended(table: list[_Entry], addition: list[_Entry]) -> list[_Entry]:
    """The table without what the addition removes, then what it adds.

    An entry that is there already, with the same meaning, is not added again.
    """
    for entry in addition:
        if not entry.key.startswith("remove "):
            continue
        key = entry.key.removeprefix("remove ")
        here = [e for e in table if (e.key, e.category) == (key, entry.category)]
        if entry.phrase not in [e.phrase for e in here]:
            raise AnnotationError(
                f"{entry.where}: {entry.phrase!r} is not in the built-in table under {key}"
                f"{', ' + entry.category if entry.category else ''}, so it cannot be removed"
                f"{_nearest(entry.phrase, [e.phrase for e in here])}"
            )
        table = [e for e in table if e not in here or e.phrase != entry.phrase]
    table = list(table)
    standing = {(_GROUP_OF[e.key], e.letters): e for e in table}
    for entry in addition:
        if entry.key.startswith("remove "):
            continue
        other = standing.setdefault((_GROUP_OF[entry.key], entry.letters), entry)
        if other is entry:
            table.append(entry)
        elif (other.key, other.category, other.to) != (entry.key, entry.category, entry.to):
            meaning = f"{other.place} (read as {other.to!r})" if other.to else other.place
            raise AnnotationError(
                f"{entry.where}: {entry.phrase!r} already stands under {meaning} "
                f"({other.where}); keep one meaning, or remove the built-in one under `remove`"
            )
        elif other.phrase != entry.phrase:
            # The same letters, written otherwise ("eye brow" and "eyebrow*"): both are matched.
            table.append(entry)
    return table


def _rules(entries: list[_Entry]) -> Rules:
    def listed(key: str, category: str = "") -> tuple[str, ...]:
        return tuple(e.phrase for e in entries if (e.key, e.category) == (key, category))

    categories, places = (
        {category: found for category in CATEGORIES if (found := listed(key, category))}
        for key in _BY_CATEGORY
    )
    return Rules(
        categories=categories,
        places=places,
        faults=listed("faults"),
        faulty=listed("faulty"),
        good=listed("good"),
        nothing=listed("nothing"),
        correct_to=listed("correct_to"),
        never_correct=frozenset(listed("never_correct")),
        misspellings={e.phrase: e.to for e in entries if e.key == "misspellings"},
        category_matcher=_matcher(categories),
        place_matcher=_matcher(places),
    )


def _matcher(table: dict[str, tuple[str, ...]]) -> tuple[re.Pattern, tuple[str, ...]]:
    category_of = {phrase: category for category, listed in table.items() for phrase in listed}
    pattern, order = _alternatives(tuple(category_of), "(")
    return re.compile(pattern), tuple(category_of[phrase] for phrase in order)


def any_of(phrases: tuple[str, ...]) -> str:
    """The regular expression of any of the phrases, longest first, without groups; of none, what
    never matches.
    """
    return _alternatives(phrases, "(?:")[0]


def _alternatives(phrases: tuple[str, ...], bracket: str) -> tuple[str, list[str]]:
    """An expression with one bracket per phrase, and the phrases in the order of their brackets.

    Phrases are gathered by their first letter, which lets the matcher skip most of them at once;
    only phrases with the same one compete for the same letters.
    """
    by_letter: dict[str, list[str]] = defaultdict(list)
    for phrase in sorted(phrases, key=len, reverse=True):
        by_letter[phrase[0]].append(phrase)
    gathered = [
        _border(letter)
        + re.escape(letter)
        + f"(?:{'|'.join(bracket + _after_first(phrase) + ')' for phrase in same)})"
        for letter, same in by_letter.items()
    ]
    order = [phrase for same in by_letter.values() for phrase in same]
    return (f"(?:{'|'.join(gathered)})" if gathered else r"(?!)"), order


def _after_first(phrase: str) -> str:
    stem = phrase.removesuffix("*")
    words = re.escape(stem[1:]).replace(r"\ ", r"[\s-]?")
    return words if phrase.endswith("*") else words + _border(stem[-1])


def _border(letter: str) -> str:
    # Scripts without blanks between words have no borders to look for.
    return r"\b" if ord(letter) < 0x2E80 else ""


# Reading the file: a walk over YAML's nodes, which know their lines; no object is constructed.


def _entries(path: Path) -> list[_Entry]:
    content = path.read_bytes()
    try:
        root = yaml.compose(content.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise AnnotationError(
            f"{path}:{line}: not UTF-8 ({error.reason}); save the rules as UTF-8"
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise AnnotationError(
            f"{where}: not YAML ({error.problem or error.context}); correct this line"
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise AnnotationError(f"{path}: not YAML ({reason}); write it as plain text") from error
    if root is None:
        raise AnnotationError(f"{path}: no rules in it; expected some of {', '.join(_KEYS)}")
    return list(_of_table(path, root, ""))


def _of_table(path: Path, table: yaml.Node, prefix: str) -> Iterator[_Entry]:
    for key, _, value in _items(
        path, table, prefix or "the file", _KEYS if not prefix else _KEYS[:-1]
    ):
        name = prefix + key
        if key == "remove":
            yield from _of_table(path, value, "remove ")
        elif key in _BY_CATEGORY:
            for category, _, phrases in _items(path, value, name, CATEGORIES):
                for where, phrase in _phrases(path, phrases, f"{name}, {category}"):
                    yield _Entry(name, category, phrase, where)
        elif key == "misspellings" and not prefix:
            for typed, where, meant in _items(path, value, name, None):
                _check_word(where, typed)
                yield _Entry(name, "", plain(typed), where, _phrase(path, meant, name)[1])
        else:
            for where, phrase in _phrases(path, value, name):
                if key in (*_SPELLING_LISTS, "misspellings"):
                    _check_word(where, phrase)
                if key == "correct_to" and len(phrase) < SHORTEST_CORRECTED:
                    raise AnnotationError(
                        f"{where}: {phrase!r} is too short to be guessed at; expected a word of at "
                        f"least {SHORTEST_CORRECTED} letters (list its misspellings instead)"
                    )
                yield _Entry(name, "", phrase, where)


def _items(
    path: Path, node: yaml.Node, name: str, known: tuple[str, ...] | None
) -> Iterator[tuple[str, str, yaml.Node]]:
    """Key, its place and value of a mapping; the keys are those known, each once."""
    if node.tag != "tag:yaml.org,2002:map":
        raise AnnotationError(
            f"{_where(path, node)}: {name} is {_kind(node)}, expected keys with values"
            + (f" ({', '.join(known)})" if known else "")
        )
    seen = set()
    for key_node, value in node.value:
        where = _where(path, key_node)
        key = _text(path, key_node, f"a key of {name}")
        if known is not None and key not in known:
            raise AnnotationError(
                f"{where}: {key!r} is no key of {name}; expected one of {', '.join(known)}"
                f"{_nearest(key, known)}"
            )
        if key in seen:
            raise AnnotationError(f"{where}: {key!r} stands twice in {name}; join the two")
        seen.add(key)
        yield key, where, value


def _phrases(path: Path, node: yaml.Node, name: str) -> Iterator[tuple[str, str]]:
    if node.tag != "tag:yaml.org,2002:seq":
        raise AnnotationError(
            f"{_where(path, node)}: {name} is {_kind(node)}, expected a list: [one, two words]"
        )
    for item in node.value:
        yield _phrase(path, item, name)


def _phrase(path: Path, node: yaml.Node, name: str) -> tuple[str, str]:
    where = _where(path, node)
    phrase = " ".join(plain(_text(path, node, f"an item of {name}")).replace("-", " ").split())
    if not phrase:
        raise AnnotationError(f"{where}: an empty phrase under {name}; take it out")
    if not _PHRASE.fullmatch(phrase):
        raise AnnotationError(
            f"{where}: {phrase!r} under {name} is no phrase; expected words of letters with blanks "
            "between them, and a star only at the end"
        )
    if phrase.endswith("*") and len(phrase) <= _SHORTEST_BEFORE_STAR and phrase.isascii():
        raise AnnotationError(
            f"{where}: {phrase!r} under {name} would match too much; expected at least "
            f"{_SHORTEST_BEFORE_STAR} letters before the star"
        )
    return where, phrase


def _check_word(where: str, word: str) -> None:
    if not _WORD.fullmatch(word):
        raise AnnotationError(
            f"{where}: {word!r} is not a single word; expected letters only, without blank or star"
        )


def _text(path: Path, node: yaml.Node, name: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
        hint = "; put it in quotes" if isinstance(node, yaml.ScalarNode) and node.value else ""
        raise AnnotationError(f"{_where(path, node)}: {name} is {_kind(node)}, expected text{hint}")
    return node.value


def _kind(node: yaml.Node) -> str:
    kind = {
        "tag:yaml.org,2002:str": "text",
        "tag:yaml.org,2002:bool": "a truth value",
        "tag:yaml.org,2002:null": "nothing",
        "tag:yaml.org,2002:int": "a number",
        "tag:yaml.org,2002:float": "a number",
        "tag:yaml.org,2002:timestamp": "a date",
        "tag:yaml.org,2002:seq": "a list",
        "tag:yaml.org,2002:map": "keys with values",
    }.get(node.tag, f"of the kind {node.tag!r}")
    return f"{kind} ({node.value!r})" if isinstance(node, yaml.ScalarNode) and node.value else kind


def _where(path: Path, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; nearest is {near[0]!r}" if near else ""
