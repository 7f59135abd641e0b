"""How one remark is read: what it names, what it denies, and what no rule matched (paper, Section
3.3: raw descriptions are sorted into the nine categories).

Misspelt words are put right (`annotations.spelling`) and the remark is cut into statements; a
statement that calls things fine, or denies a defect, names nothing; every other one is matched
against the table of phrases (`annotations.rules`).

What is known to go wrong: the rules do not parse sentences. What is only mentioned is named
("without glasses the eyes are hollow" names the glasses, "blurry except the eyes" the eyes), what
two subjects share may be lost ("no distortion in the left eye but in the right"), and a word that
was typed or heard as another real word ("moth" for "mouth", "knows" for "nose") is not put right
unless a user's rules list it under `misspellings`.
"""

import functools
import re
from dataclasses import dataclass
from typing import NamedTuple

from lmme3dhf.annotations.rules import Rules, any_of, load_rules, plain
from lmme3dhf.annotations.spelling import corrected
from lmme3dhf.vocabulary import DISTORTIONS, NO_DISTORTION

# Sounds and phrases that say nothing, and an "ok" that opens a dictated sentence.
_FILLERS = re.compile(r"\b(?:u+[hm]+|e+r+m?|h+m+|you know|i mean|i guess|kind of|kinda|sort of)\b")
_OPENING = re.compile(
    r"^\s*(?:(?:ok|okay|alright|well|right|so)\s+)+(?=(?:so|the|there|i|this|here|it)\b)"
)
_DASH = re.compile(r"\s*[-\N{EN DASH}\N{EM DASH}]+\s*")

_CLAUSE_END = re.compile(
    r"([.,;!?\n\N{IDEOGRAPHIC FULL STOP}\N{IDEOGRAPHIC COMMA}]+|"
    r"\b(?:but|however|although|though|except(?:\sfor)?|apart\sfrom|other\sthan|besides|while|only)\b)"
)
# Where a statement may end within a clause: at "and", before another denial, before the next
# subject and its verb where somebody dictates without stops; for the same reason after a word of
# praise or blame ("hair fine eyes crossed"), unless the next word goes on.
_VERB = (
    r"(?:is|are|was|were|has|have|looks?|seems?|appears?|(?:is|are|was|were|does|do|has|have)n'?t)"
)
_JOINT = (
    r"\s+(?:and|&|\+|[-\N{EN DASH}\N{EM DASH}]+)\s+|\s+(?=(?:no|without|nothing)\b)|"
    rf"\s+(?=(?:the|his|her|its|their|left|right|both)\s+(?:[\w']+\s+){{1,3}}?{_VERB}\b)"
)
_JOINTS_AHEAD = 3
_GOES_ON = r"(?:and|or|nor|of|on|in|at|with|around|for|to|like|than|as|from)"
_HAS_VERB = re.compile(rf"\b{_VERB}\b")
_PLURAL_VERB = re.compile(r"\b(?:are|look|seem|appear|were|all|both|aren'?t|weren'?t|don'?t)\b")
_LINKS = re.compile(
    r"\b(?:the|a|an|any|his|her|left|right|both|and|or|nor|on|in|at|of|with|around|also)\b"
)
_ALTERNATIVE = re.compile(r"\b(?:or|nor)\b")

_NOT = r"(?:(?:is|are|do|does|did|was|were|ca|could|would|wo|has|have)n'?t|cannot|not|never|hardly)"
_THINK = r"(?:think|believe|feel|find|say)"
# Not across "and": in "without pupils and blurry hair" the hair is not denied.
_UP_TO_FOUR_WORDS = r"(?:(?!and\b)[\w'-]+\s+){0,4}?"
_ON = r".{1,80}?"  # somewhat later in the same clause


class _Grammar(NamedTuple):
    """What is looked for in a statement, for one table of words."""

    denied_defect: re.Pattern
    denied_good: re.Pattern
    nothing: re.Pattern
    called_good: re.Pattern
    defect: re.Pattern
    fault: re.Pattern
    faulty: re.Pattern
    joint: re.Pattern
    all_but: re.Pattern


@functools.lru_cache(maxsize=16)
def _grammar(rules: Rules) -> _Grammar:
    fault, faulty, good = any_of(rules.faults), any_of(rules.faulty), any_of(rules.good)
    whole_fault = rf"{fault}[\w]*"
    # Not across a defect: "no distortion, looks good" may come without its comma.
    to_good = rf"(?:(?!and\b|{fault}|{faulty})[\w'-]+\s+){{0,4}}?"
    return _Grammar(
        denied_defect=re.compile(
            rf"\b(?:no|without|zero|0|absence\s+of|free\s+(?:of|from)|{_NOT})\s+{_UP_TO_FOUR_WORDS}{fault}|"
            rf"\b{_NOT}\s+{_UP_TO_FOUR_WORDS}{faulty}|"
            rf"\b(?:no|without)\s+(?:(?:any|visible|obvious|very|\w+ly)\s+)*{faulty}|"
            rf"\b{_NOT}\s+{_THINK}\b{_ON}(?:{fault}|{faulty})|"
            rf"\bneither\b{_ON}\bnor\b{_ON}(?:{fault}|{faulty})|"
            rf"{whole_fault}[\s-]free\b"
        ),
        denied_good=re.compile(
            rf"\b(?:no|nothing|none|{_NOT})\s+{to_good}{good}|"
            rf"\b{_NOT}\s+{_THINK}\b{_ON}{good}|"
            rf"\bneither\b{_ON}\bnor\b{_ON}{good}|"
            rf"\b(?:less|far\s+from|lacks?|(?:could|should|need\s+to)\s+(?:be|look))\s+{to_good}{good}|"
            rf"\b{_NOT}\s+(?:\w+ly\s+)?(?:without|free)\b"
        ),
        nothing=re.compile(rf"{any_of(rules.nothing)}|^\s*no\s*$"),
        called_good=re.compile(good),
        defect=re.compile(rf"{fault}|{faulty}"),
        fault=re.compile(whole_fault),
        faulty=re.compile(faulty),
        joint=re.compile(rf"{_JOINT}|(?:{whole_fault}|{faulty}|{good})(\s+)(?!{_GOES_ON}\b)"),
        all_but=re.compile(
            r"\b(?:everything|all)\s+(?:but|except(?:\s+for)?|apart\s+from|other\s+than|besides)\s+"
            rf"([\w\s']+?)\s+{_VERB}\s+(?=(?:\w+\s+)?{good})"
        ),
    )


def _matches(statement: str, matcher: tuple[re.Pattern, tuple[str, ...]]) -> set[str]:
    pattern, category_of_group = matcher
    return {category_of_group[match.lastindex - 1] for match in pattern.finditer(statement)}


def _names(statement: str, rules: Rules) -> set[str]:
    return _matches(statement, rules.category_matcher) or _matches(statement, rules.place_matcher)


def _says_clean(statement: str, grammar: _Grammar) -> bool:
    if grammar.denied_good.search(statement):
        return False
    if grammar.denied_defect.search(statement) or grammar.nothing.search(statement):
        return True
    return bool(grammar.called_good.search(statement)) and not grammar.defect.search(statement)


def _describes(statement: str, grammar: _Grammar) -> bool:
    """Whether a defect stands there as a property ("blurry", "crossed"), not a thing ("blur")."""
    return bool(grammar.faulty.search(statement)) or any(
        match[0].endswith(("ed", "y")) for match in grammar.fault.finditer(statement)
    )


def _finds_fault(statement: str, rules: Rules) -> bool:
    """Whether it can stand alone and names something."""
    grammar = _grammar(rules)
    return (
        bool(_HAS_VERB.search(statement) or _describes(statement, grammar))
        and not _says_clean(statement, grammar)
        and bool(_names(statement, rules))
    )


def _misses_part(head: str, tail: str, rules: Rules) -> bool:
    """ "No left ear" before "no distortion"; but "no eye" and "no mouth distortion" are one."""
    fault = _grammar(rules).fault
    return (
        head.startswith(("no ", "without "))
        and bool(_names(fault.sub(" ", head), rules))
        and not _names(fault.sub(" ", tail), rules)
    )


def _statements(clause: str, rules: Rules) -> list[str]:
    """A clause, cut where one half calls things fine and the other finds a fault.

    After "not blurry" or "no crossed eyes", "and" goes on denying unless a verb follows; after "no
    blur" it does not: "no blur and crossed eyes" has a fault.
    """
    joints = [match.span(1 if match[1] else 0) for match in _grammar(rules).joint.finditer(clause)]
    starts = [start for start, _ in joints]
    statements, begin = [], 0
    for number, (end, following) in enumerate(joints, 1):
        head = clause[begin:end]
        # What follows, up to the end or to one of the next joints: the rest may deny again.
        for until in (len(clause), *starts[number : number + _JOINTS_AHEAD]):
            if _are_two(head, clause[following:until], rules):
                statements.append(head)
                begin = following
                break
    return [*statements, clause[begin:]]


def _are_two(head: str, tail: str, rules: Rules) -> bool:
    grammar = _grammar(rules)
    if _says_clean(head, grammar):
        may_end = bool(_HAS_VERB.search(tail)) or not _describes(head, grammar)
        return may_end and _finds_fault(tail, rules)
    return _says_clean(tail, grammar) and (
        _finds_fault(head, rules) or _misses_part(head, tail, rules)
    )


def _clauses(text: str, rules: Rules) -> tuple[list[str], bool]:
    """The clauses that stand for themselves, and whether others were calling a list of parts fine:
    "no distortion in the eyes, mouth or hair", "eyes, mouth and hair are fine".
    """
    pieces = _CLAUSE_END.split(text)
    clauses = [" ".join(piece.split()) for piece in pieces[::2]]
    after_comma = [False, *(end == "," for end in pieces[1::2])]
    if True not in after_comma:
        return clauses, False
    grammar = _grammar(rules)
    fine: set[int] = set()
    for i, clause in enumerate(clauses):
        if not _says_clean(clause, grammar):
            continue
        following = i + 1
        while (
            following < len(clauses)
            and after_comma[following]
            and _is_list(clauses[following], rules)
        ):
            following += 1
        listed = clauses[i + 1 : following]
        if grammar.denied_defect.search(clause) and (
            any(_ALTERNATIVE.search(item) for item in listed)
            or all(_ends_with_part(item, rules) for item in (clause, *listed))
        ):
            fine.update(range(i + 1, following))
        if _PLURAL_VERB.search(clause) and _names(clause, rules):
            before = i
            while before > 0 and after_comma[before] and _is_list(clauses[before - 1], rules):
                before -= 1
                fine.add(before)
    return [clause for i, clause in enumerate(clauses) if i not in fine], bool(fine)


def _is_list(clause: str, rules: Rules) -> bool:
    """Whether a clause is nothing but names of parts or defects."""
    rest = clause
    for pattern in (rules.category_matcher[0], rules.place_matcher[0], _grammar(rules).fault):
        rest = pattern.sub(" ", rest)
    return rest != clause and not _LINKS.sub(" ", rest).strip()


def _ends_with_part(clause: str, rules: Rules) -> bool:
    parts = [*rules.category_matcher[0].finditer(clause), *rules.place_matcher[0].finditer(clause)]
    return any(
        part.end() == len(clause) and not _grammar(rules).fault.match(part[0]) for part in parts
    )


@dataclass(frozen=True)
class Reading:
    """How one remark was read.

    Attributes:
        text: The remark as written.
        categories: What it names, in vocabulary order; NO_DISTORTION only alone. Empty where no
            rule matched.
        corrections: (word, what it was read as) of every misspelt word.
        unread: Statements in which no rule matched, in lower case and with their corrections.
        marker: Who wrote it.
        video: About what.
    """

    text: str
    categories: tuple[str, ...]
    corrections: tuple[tuple[str, str], ...]
    unread: tuple[str, ...]
    marker: str = ""
    video: str = ""

    @property
    def matched(self) -> bool:
        """Whether any rule matched; a blank remark matches none."""
        return bool(self.categories)


def read_remark(
    text: str, rules: Rules | None = None, marker: str = "", video: str = ""
) -> Reading:
    """Reads one remark.

    A remark that denies one defect and names another gets the other. "No" before a part of the face
    is not a denial: "no left ear" is a distortion. A defect of nothing that the table knows leaves
    the remark unmatched, also beside praise ("looks good but weird"). A dash alone says that
    nothing is wrong; a blank remark says nothing, for it may as well be a lost one.

    Args:
        text: What the marker typed or dictated.
        rules: The table of phrases; None for the built-in one.
        marker: Who wrote it; only noted.
        video: About what; only noted.
    """
    rules = rules or load_rules()
    grammar = _grammar(rules)
    words, corrections = corrected(plain(text), rules)
    if _DASH.fullmatch(words):
        return Reading(text, (NO_DISTORTION,), (), (), marker, video)
    words = _OPENING.sub(" ", _FILLERS.sub(" ", words))
    words = grammar.all_but.sub(r"\1, all are ", words)
    named: set[str] = set()
    unread: list[str] = []
    clauses, clean = _clauses(words, rules)
    for statement in (s for clause in clauses for s in _statements(clause, rules)):
        if _says_clean(statement, grammar):
            clean = True
            continue
        found = _names(statement, rules)
        named |= found
        if not found and re.search(r"[^\W\d_]", _LINKS.sub(" ", statement)):
            unread.append(statement)
    blamed = any(grammar.defect.search(s) or grammar.denied_good.search(s) for s in unread)
    if clean and not named and not blamed:
        named = {NO_DISTORTION}
    return Reading(
        text, tuple(c for c in DISTORTIONS if c in named), corrections, tuple(unread), marker, video
    )
