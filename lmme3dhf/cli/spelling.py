"""The words of a command line: an option in either spelling (--video-root, --video_root), and the
nearest known word to one that is not known.
"""

import difflib
import re
from collections.abc import Iterable, Mapping

from jsonargparse import ArgumentParser

from lmme3dhf.cli.habits import in_our_words
from lmme3dhf.errors import UserError

_OPTION = re.compile(r"--?[A-Za-z]")


class UnknownWordError(UserError):
    """A verb, an action or an option that does not exist, with the nearest one that does."""


def options_of(parser: ArgumentParser) -> list[str]:
    """Every option of a parser, with its dashes."""
    return [option for action in parser._actions for option in action.option_strings]


def known_word(kind: str, word: str, known: Iterable[str]) -> str:
    """A word that has to be one of a few.

    Raises:
        UnknownWordError: It is none of them.
    """
    known = list(known)
    if word in known:
        return word
    raise UnknownWordError(f"unknown {kind} {word}; {_nearest(word, known) or _all(known)}")


def spelled(words: Iterable[str], parser: ArgumentParser) -> list[str]:
    """The same words with every option as the parser writes it.

    An option may be cut short where only one begins so. Keys below an option that takes a mapping
    (--text.trainer.optim) are left to the parser; words after a bare -- are no options.

    Raises:
        UnknownWordError: An option that the parser does not have.
    """
    known = {_plain(option): option for option in options_of(parser)}
    found, words = [], iter(words)
    for word in words:
        if word == "--":
            return [*found, word, *words]
        if not _OPTION.match(word):
            found.append(word)
            continue
        name, equals, value = word.partition("=")
        found.append(f"{_option(name, known)}{equals}{value}")
    return found


def _option(name: str, known: Mapping[str, str]) -> str:
    plain = _plain(name)
    if name in known.values():
        return name
    if plain in known:
        return known[plain]
    groups = {option.rpartition(".")[0] for option in known}
    if any(plain.startswith(f"{option}.") for option in known if option not in groups):
        return plain
    begun = [option for option in known if name.startswith("--") and option.startswith(plain)]
    if len(begun) == 1:
        return known[begun[0]]
    raise UnknownWordError(f"unknown option {name}; {_suggestion(name, known)}")


def _suggestion(name: str, known: Mapping[str, str]) -> str:
    if (ours := in_our_words(name, known.values())) is not None:
        return ours
    word = f"--{_plain(name).lstrip('-')}"
    # --rank is --lora.rank, where nothing else ends so.
    below = [option for option in known.values() if option.endswith(f".{word[2:]}")]
    if len(below) == 1:
        return f"did you mean {below[0]}?"
    nearest = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {known[nearest[0]]}?" if nearest else "--help lists the options"


def _plain(option: str) -> str:
    dashes = len(option) - len(option.lstrip("-"))
    return "-" * dashes + option[dashes:].replace("-", "_")


def _nearest(word: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {nearest[0]}?" if nearest else ""


def _all(known: list[str]) -> str:
    return f"expected one of {', '.join(known)}"
