"""What a free reply of a language model says about the nine distortion categories (paper, Section
5.2: models "are required to select from predefined distortion categories").

Models answer in lists, JSON, verdicts per category and prose. Where a reply uses the names of the
categories, the names that it does not deny are its answer, and its explanations are not read;
where it uses none, it is read like a marker's remark (`annotations.remarks`). The question's own
list, repeated as a whole, is no answer.

What is known to go wrong: sentences are not parsed. "No Eye Distortions and Mouth Distortions are
visible" denies both; what a reply merely supposes counts as named; so does a part that prose only
describes, but for the commonest wordings ("a man with brown hair"); letters alone ("A, C") are not
read, for nobody knows the order in which they were offered.
"""

import functools
import re

from lmme3dhf.annotations.remarks import read_remark
from lmme3dhf.annotations.rules import Rules, any_of, load_rules, plain
from lmme3dhf.vocabulary import DISTORTIONS, NO_DISTORTION

# Every mention of a category becomes one character of Unicode's private use area, which no rule
# knows; the reply is then a text in which mentions cannot be cut.
_FIRST_MARK = 0xE000
_MARKS = {category: chr(_FIRST_MARK + i) for i, category in enumerate(DISTORTIONS)}
_CATEGORY_OF = {mark: category for category, mark in _MARKS.items()}
_MARK = f"[{''.join(_CATEGORY_OF)}]"


def _name_pattern(category: str) -> str:
    words = re.findall("[a-z]+", category.casefold())
    return r"\b" + r"[^a-z\n]{1,3}".join(words).removesuffix("s") + r"s?\b"


_NAMES = [(mark, re.compile(_name_pattern(name))) for name, mark in _MARKS.items()]
# Ticks and boxes are verdicts.
_SIGNS = [
    (
        re.compile(r"\[ \]|[\N{CROSS MARK}\N{BALLOT X}\N{HEAVY BALLOT X}\N{BALLOT BOX}]"),
        " no ",
    ),
    (re.compile(r"\[x\]|[\N{CHECK MARK}\N{HEAVY CHECK MARK}\N{WHITE HEAVY CHECK MARK}]"), " yes "),
]
# Models get caught in loops: "no eye no eye no eye ...".
_LOOP = re.compile(r"\b((?:[\w']+[\s,]+){1,8}?)\1{2,}")
_MARK_UP = re.compile(rf"</?\w+>|[*`#\"_{{}}\[\]]|{_MARK}")

# "1." or "b)" before an item. A digit alone is none: {"Eye Distortions": 1}.
_NUMBERING = r"(?<![\w.])(?:\d{1,2}|[a-i])[.)](?!\w)"
_JOINT = rf"{_NUMBERING}|\b(?:and|or|nor)\b"
_RUN = re.compile(rf"{_MARK}(?:(?:{_JOINT}|[ \t,;/|&()])*{_MARK})*")
_RUN_OF_LINES = re.compile(rf"{_MARK}(?:(?:{_JOINT}|[\s,;/|&():.'\-])*{_MARK})*")
_PIECE_END = re.compile(rf"({_JOINT}|[,;|&\n])")

_CLAUSE_START = re.compile(
    r".*(?:[.,;:!?\n]|\b(?:but|however|while|although|though|except|only)\b)", re.DOTALL
)
_HALF_DENIAL = re.compile(r"\b(?:not\s+(?:only|just|merely|limited|without)|no\s+doubt)\b")
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:no|not|without|neither|nor|never|cannot|hardly|zero|free\s+(?:of|from)|"
    r"(?:absence|lack)\s+of|rather\s+than|instead\s+of)\b|n't\b)(?:\s+[\w'-]+){0,6}\s*$"
)
_SEEN = r"(?:present|visible|found|seen|observed|detected|applicable|evident|noticeable|apparent)"
_AFTER = r"^[\s:=()\-\N{EN DASH}\N{EM DASH}]*"
_AFFIRMED_AFTER = re.compile(rf"{_AFTER}(?:yes|true|1|{_SEEN})\b")
_DENIED_AFTER = re.compile(
    rf"{_AFTER}(?:(?:no|none|nil|n/a|false|0|absent)\s*(?:[.,;)\n]|$)|not\s+{_SEEN}\b|"
    rf"(?:(?:is|are|was|were|do|does|can|could)\s*(?:not|n't)|cannot)\s+(?:be\s+)?(?:\w+ly\s+)?"
    rf"(?:{_SEEN}|there|exist|appear|occur)\b|(?:is|are|was|were)\s+(?:\w+ly\s+)?absent\b|"
    r"(?:is|are)\s*(?:not|n't)\s*(?:[.,;\n]|$))"
)
# "Eyes: no": a short name that a verdict follows.
_LABEL = re.compile(rf"(?:^|(?<=[\n.,;]))((?:\s*\(?{_NUMBERING})?)([^\n.,;:=]{{1,40}})(?=[:=])")
# Said of a face rather than of its faults.
_DESCRIBED = re.compile(
    r"\b(?:wear(?:s|ing)?|dressed|(?:video|clip|image)\s+(?:shows|features|depicts)|"
    r"(?:brown|black|blond\w*|dark|long|short|blue|green|red|gr[ae]y|curly|straight)\s+(?:\w+\s+)?"
    r"(?:hair|eyes?|beard))\b"
)
_SENTENCE_END = re.compile(r"(?<=[.!?\n])\s+")
_VERDICT_FOLLOWS = re.compile(r"^\s*[:\-\N{EN DASH}\N{EM DASH}]")


def read_reply(text: str, rules: Rules | None = None) -> tuple[str, ...]:
    """The categories that a free reply names, in the order of the text where it uses their names
    and in vocabulary order otherwise.

    NO_DISTORTION only alone, and only where the reply says so or all that it names it denies.
    Empty where nothing could be read: silence is not "no distortion".

    Args:
        text: The reply as the model gave it.
        rules: The table of phrases; None for the built-in one.
    """
    rules = rules or load_rules()
    reply = plain(text).replace("```json", " ")
    for sign, word in _SIGNS:
        reply = sign.sub(word, reply)
    reply = _LOOP.sub(r"\1", _MARK_UP.sub(" ", reply))
    for mark, pattern in _NAMES:
        reply = pattern.sub(mark, reply)
    reply = _RUN_OF_LINES.sub(
        lambda run: " . " if set(_CATEGORY_OF) <= set(run[0]) else run[0], reply
    )
    # From here on "no distortion" is a denial like others: it may go on ("... except the eyes").
    reply = reply.replace(_MARKS[NO_DISTORTION], NO_DISTORTION.casefold())
    reply = _LABEL.sub(lambda label: label[1] + _marked(label[2], rules), reply)
    if re.search(_MARK, reply):
        reply = _with_short_names(reply, rules)
    affirmed: list[str] = []
    rest, at = [], 0
    for run in _RUN.finditer(reply):
        if _denied(reply, run.start(), run.end(), rules):
            rest += [reply[at : run.start()], " . no distortion . "]
            at = _end_of_verdict(reply, run.end())
        else:
            affirmed += [_CATEGORY_OF[mark] for mark in re.findall(_MARK, run[0])]
    if affirmed:
        return tuple(dict.fromkeys(affirmed))
    return read_remark(_faults_only("".join([*rest, reply[at:]]), rules), rules).categories


def _faults_only(prose: str, rules: Rules) -> str:
    """Prose without the sentences that name no defect but describe the face ("a man with brown
    hair"); beside "There are no visible distortions." every sentence without a defect does.
    """
    part, fault, defect = _words(rules)
    sentences = _SENTENCE_END.split(prose)
    clean = [s for s in sentences if read_remark(s, rules).categories == (NO_DISTORTION,)]
    all_clean = any(not part.search(fault.sub(" ", sentence)) for sentence in clean)
    return " ".join(
        sentence
        for sentence in sentences
        if sentence in clean
        or defect.search(sentence)
        or not (all_clean or _DESCRIBED.search(sentence))
    )


def _marked(piece: str, rules: Rules) -> str:
    """A piece that only names a part or a defect ("Hair", "eye defect") as a mention; any other
    one as it is.
    """
    part, fault, _ = _words(rules)
    rest = part.sub(" ", piece)
    if rest == piece or fault.sub(" ", rest).strip(" .()"):
        return piece
    return "".join(_MARKS[category] for category in read_remark(piece, rules).categories) or piece


def _with_short_names(reply: str, rules: Rules) -> str:
    """Marks the short names that stand in a list with full ones ("2. Hair")."""
    pieces = _PIECE_END.split(reply)
    listed = True
    for i in range(0, len(pieces), 2):
        if listed or pieces[i - 1] == "\n":
            pieces[i] = _marked(pieces[i], rules)
        listed = not re.sub(_MARK, "", pieces[i]).strip(" .()")
    return "".join(pieces)


@functools.lru_cache(maxsize=16)
def _words(rules: Rules) -> tuple[re.Pattern, re.Pattern, re.Pattern]:
    """Parts, things that are defects and all defects, as whole words where the table's patterns
    stop at their star.
    """
    fault = rf"{any_of(rules.faults)}\w*"
    return (
        re.compile(rf"{rules.category_matcher[0].pattern}\w*"),
        re.compile(fault),
        re.compile(rf"{fault}|{any_of(rules.faulty)}"),
    )


def _denied(reply: str, start: int, end: int, rules: Rules) -> bool:
    """Whether the mentions between `start` and `end` are denied, before them or by a verdict."""
    before = _HALF_DENIAL.sub(" ", _CLAUSE_START.sub("", reply[:start]))
    if _DENIED_BEFORE.search(before):
        return True
    after = reply[end : _end_of_verdict(reply, end)]
    if _AFFIRMED_AFTER.match(after):
        return False
    if _DENIED_AFTER.match(after):
        return True
    return bool(_VERDICT_FOLLOWS.match(after)) and read_remark(after, rules).categories == (
        NO_DISTORTION,
    )


def _end_of_verdict(reply: str, end: int) -> int:
    """Where what follows a mention ends: at the next mention or the end of the line; without a
    colon or dash, at the end of the clause."""
    stop = rf"{_MARK}|\n" if _VERDICT_FOLLOWS.match(reply[end:]) else rf"{_MARK}|[.,;!?\n]"
    following = re.compile(stop).search(reply, end)
    return following.start() if following else len(reply)
