"""Who made which video, read off its path.

A pattern says where in a path the generator stands: `{generator}_*` in the file's name,
`{generator}/*` in its folder. It is matched with the end of the path.
"""

import os
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import PurePath

from lmme3dhf.errors import UserError

PLACE = "{generator}"
ONE_GROUP = "all videos"
LONGEST_NAME = 120  # characters that are shown of a path


class PatternError(UserError, ValueError):
    """A pattern that cannot be used, or that no file matches; the message shows one that can."""


def generators_of(files: Sequence[str], pattern: str | None) -> list[str | None]:
    """The generator of every file; None for a file that does not match.

    Without a pattern it is the folder, below the folder that all of them share; where all files lie
    in one folder, they are one group.

    Args:
        files: Paths as in the table.
        pattern: `{generator}`, text, `*` for any text within a name, and `**/` for any folders in
            between. Each stands for as little text as fits. Where `{generator}` ends the pattern,
            the file's suffix does not belong to it.

    Raises:
        PatternError: Without `{generator}`, with it twice, with another name in braces, or no file
            matches.
    """
    paths = [file.replace(os.sep, "/") for file in files]
    if pattern is None:
        return _folders(paths)
    expression = _expression(pattern, paths)
    found = [expression.fullmatch(_without_suffix(path, pattern)) for path in paths]
    if not any(found):
        raise PatternError(
            f"--group-by {pattern!r}: none of the {len(files)} files matches, the first of which "
            f"is {files[0]!r}; {_example(paths[0])}"
        )
    return [match and match["generator"] for match in found]


def _folders(paths: Sequence[str]) -> list[str | None]:
    parents = [path.rpartition("/")[0].split("/") for path in paths]
    same = takewhile(lambda steps: len(set(steps)) == 1, zip(*parents, strict=False))
    shared = [steps[0] for steps in same]
    if all(parent == shared for parent in parents):
        return [ONE_GROUP] * len(paths)
    rest = ["/".join(parent[len(shared) :]) for parent in parents]
    # Files that lie in the shared folder itself, beside the others' folders.
    itself = f"{shared[-1] if shared else ''}/" if any(shared) else "."
    return [folder or itself for folder in rest]


def _without_suffix(path: str, pattern: str) -> str:
    if not pattern.endswith(PLACE):
        return path
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{PurePath(name).stem}"


def _expression(pattern: str, paths: Sequence[str]) -> re.Pattern:
    """What a whole path is matched with.

    Raises:
        PatternError: As `generators_of`.
    """
    example = _example(paths[0]) if paths else ""
    places = pattern.count(PLACE)
    braces = re.findall(r"\{[^}]*\}?|\}", pattern.replace(PLACE, ""))
    if braces or places != 1:
        what = (
            f"{braces[0]} is unknown"
            if braces
            else f"{PLACE} stands in it {places} times, expected once"
        )
        raise PatternError(f"--group-by {pattern!r}: {what}; {example}")
    steps = pattern.replace(os.sep, "/").removeprefix("./").split("/")
    from_root = steps[0] == ""
    if "" in steps[1:] or steps[-1] == "**":
        raise PatternError(f"--group-by {pattern!r}: it has to end with the file; {example}")
    before = steps[: next(at for at, step in enumerate(steps) if PLACE in step)]
    if "**" in steps and not any(step.strip("*") for step in before) and not from_root:
        raise PatternError(
            f"--group-by {pattern!r}: with **, a folder has to be named before {PLACE}, such as "
            f"clips/{PLACE}/**/*; {example}"
        )
    within = "".join(
        "(?:[^/]+/)*?" if step == "**" else _step(step) + "/" * (at < len(steps) - 1)
        for at, step in enumerate(steps)
    )
    return re.compile(("" if from_root else "(?:.*/)?") + within, re.DOTALL)


def _step(step: str) -> str:
    """A name between slashes as an expression."""
    parts = re.split(r"(\{generator\}|\*+)", step)
    known = {PLACE: "(?P<generator>[^/]+?)"}
    return "".join(
        known.get(part) or ("[^/]*?" if part.startswith("*") else re.escape(part)) for part in parts
    )


def _example(path: str) -> str:
    """A pattern that the path matches, and what it gives."""
    *folders, name = path.split("/")
    by_name = re.match(r"([^_\-. ]+)([_\-])", name)
    if by_name:
        return f'"{PLACE}{by_name[2]}*" would give {by_name[1]!r} for that file'
    if folders and folders[-1]:
        return f'"{PLACE}/*" would give {folders[-1]!r} for that file, its folder'
    stem = PurePath(name).stem
    return f'"{PLACE}" would give {stem!r} for that file, its whole name'
