"""Misspelt words of remarks, read as words of the rule table.

A word is corrected only where it is no word that the rules know, and where exactly one meaning is
a slip of the pen away: one letter missing, doubled, wrong or swapped with its neighbour; two such
slips in a word of nine letters or more. Its first letter must be right, or swapped with the second.
"""

import functools
import re
from collections import defaultdict

from lmme3dhf.annotations.rules import SHORTEST_CORRECTED, Rules, any_of

_LONG = 9  # letters from which two slips are allowed
_TOKEN = re.compile(r"([^\W\d_]+)('\w+)?")


def corrected(text: str, rules: Rules) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A text in lower case with its misspelt words replaced, and (word, read as) of each
    replacement.
    """
    corrections: list[tuple[str, str]] = []

    def replaced(match: re.Match) -> str:
        word, ending = match[1], match[2] or ""
        # "Doesn't" is "doesn" to nobody.
        meant = None if ending == "'t" else _meant(word, rules)
        if meant is None:
            return match[0]
        corrections.append((word, meant))
        return meant + ending

    return _TOKEN.sub(replaced, text), tuple(dict.fromkeys(corrections))


@functools.lru_cache(maxsize=65536)
def _meant(word: str, rules: Rules) -> str | None:
    """What a word is read as; None where it stays as it is."""
    if word in rules.misspellings:
        return rules.misspellings[word]
    patterns, known, by_shortened = _lexicon(rules)
    if len(word) < SHORTEST_CORRECTED or word in rules.never_correct or known.match(word):
        return None
    # No English word has a letter three times in a row; voice and mood do ("sooo blurrry").
    calmed = re.sub(r"(.)\1{2,}", r"\1\1", word)
    if calmed != word and known.match(calmed):
        return calmed
    if len(calmed) > max(map(len, rules.correct_to), default=0) + 2:
        return None
    slips: dict[str, int] = {}
    for target in {t for short in _shortened(calmed, 2) for t in by_shortened.get(short, ())}:
        first_right = target[0] == calmed[0] or target[:2] == calmed[1::-1]
        count = _slips(calmed, target)
        if first_right and count <= _allowed(target):
            slips[target] = count
    nearest = sorted(target for target, count in slips.items() if count == min(slips.values()))
    meanings = {tuple(bool(pattern.match(target)) for pattern in patterns) for target in nearest}
    return nearest[0] if len(meanings) == 1 else None


@functools.lru_cache(maxsize=16)
def _lexicon(rules: Rules) -> tuple[list[re.Pattern], re.Pattern, dict[str, list[str]]]:
    """A pattern per meaning; one of all words that are spelt right; and the words of `correct_to`
    by what is left of them without the allowed number of letters.
    """
    meanings = [*rules.categories.values(), *rules.places.values()]
    meanings += [rules.faults, rules.faulty, rules.good, rules.nothing]
    patterns = [re.compile(any_of(phrases)) for phrases in meanings]
    words = {
        word
        for phrases in meanings
        for phrase in phrases
        for word in (phrase, *phrase.split())
        if re.fullmatch(r"[^\W\d_]+\*?", word)
    }
    known = re.compile(any_of(tuple(sorted(words | set(rules.correct_to)))))
    by_shortened = defaultdict(list)
    for target in rules.correct_to:
        for short in _shortened(target, _allowed(target)):
            by_shortened[short].append(target)
    return patterns, known, dict(by_shortened)


def _allowed(target: str) -> int:
    return 2 if len(target) >= _LONG else 1


def _shortened(word: str, letters: int) -> set[str]:
    """The word without any 0 to `letters` of its letters."""
    found = {word}
    for _ in range(letters):
        found |= {short[:i] + short[i + 1 :] for short in found for i in range(len(short))}
    return found


def _slips(typed: str, meant: str) -> int:
    """Least number of letters inserted, left out, replaced or swapped with their neighbour, no
    letter touched twice (optimal string alignment distance).
    """
    before, last = [], list(range(len(meant) + 1))
    for i, letter in enumerate(typed, 1):
        row = [i]
        for j, wanted in enumerate(meant, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == meant[j - 2] and typed[i - 2] == wanted:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
