"""The lists of Gen3DHF and of data sets like it: one JSON row per question, labels inside the
answer sentence (paper, Sections 3.3 and 4.2).

`text/` lists say "The quality of the human face in this video is good.", `numerical/` lists add the
opinion score as "(51.2)", `distortion/` lists say "Distortions found: A, B". A row is {"messages":
[user, assistant], "videos": [path]}; the release has the path alone. For other aspects the sentence
begins with the aspect's prefix; without level words the score follows at once.
"""

import functools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from string import Formatter

from lmme3dhf.annotations.descriptions import REPLY_PREFIX, parse_distortions
from lmme3dhf.aspects import DISTORTION, GEN3DHF, Aspect, Aspects
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.files import is_inside, replace_file

DISTORTION_PROMPT = "Please examine and output any distortion you found."
PROMPTS = {name: aspect.question() for name, aspect in GEN3DHF.items()} | {
    DISTORTION: DISTORTION_PROMPT
}
# One question a category, for models that were not tuned on answer lists; not in the release.
CATEGORY_PROMPT = "Does the human face in this video show {category}? Please answer yes or no."
SALIENCY_PROMPT = "What is the saliency region of distortions in this video?"

VIDEO_FOLDER = "video_RGB"
PLACEHOLDER = "<video>"
UNNAMED_LEVEL = "None"  # what the release calls the level of its lowest scores

_ASKED_FOR_DISTORTIONS = re.compile(r"\boutput any distortions?\b")
_SPECIAL = re.compile(r"<\|[^<>|]*\|>|<(?:video|image|audio)>")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|(?:file|data):", re.IGNORECASE)


def level_reply(
    aspect: Aspect,
    level: str | None,
    score: float | None = None,
    slots: Mapping[str, str] | None = None,
) -> str:
    """The answer sentence of the `text/` lists, or with an opinion score that of the `numerical/`
    lists.

    Args:
        aspect: What is rated.
        level: One of its level words; None for an aspect without, whose score follows the prefix.
        score: In the units of its scale.
        slots: The sample's slots.

    Raises:
        DataError: Unknown level, no score for an aspect without levels, or a score that is not on
            the scale.
        AspectError: A slot is missing.
    """
    where, words = f"reply for {aspect.name!r}, {level!r}", aspect.scale.levels
    if level not in (words or (None,)) or (level is None and score is None):
        raise DataError(f"{where}: expected one of {', '.join(words) or 'no level, but a score'}")
    said = [aspect.prefix(slots)]
    if level is not None:
        said.append(f"{level}.")
    if score is not None:
        said.append(f"({_checked_score(score, aspect, where)})")
    return " ".join(said)


def read_list(
    path: Path,
    video_root: Path | None = None,
    *,
    aspects: Aspects = GEN3DHF,
    labels: str = "require",
    allow_outside: bool = False,
) -> list[Sample]:
    """Reads a list, a JSON array or JSON lines (recognised by the content), in the order of the
    file.

    The released lists hold somebody's absolute paths, of which only the file name counts once
    `video_root` is given. Without it a relative path starts at `video_RGB` beside the list's own
    folder, as the data set's layout has it, and an absolute one stays as it is. A clip need not
    exist, but no path leads out of that folder: a list from a stranger opens nothing else. The
    folder itself may be a symbolic link (clips on another disk); a link in it that leads out is
    refused like any other path. The released level "None" (the lowest score, lost by a strict
    comparison) reads as the lowest level, in the reply too.

    Args:
        path: The list.
        video_root: Folder of the clips.
        aspects: What may be asked for, beside distortions.
        labels: "require" reads the labels from the replies. "ignore" does not look at the replies
            at all, whatever they hold: the task comes from the question, and reply and labels are
            not known.
        allow_outside: Take clips wherever they are: for lists of one's own, and for those who read
            labels and open no clip.

    Raises:
        DataError: With the file and the place in it: not JSON, no rows, a row of another form, an
            unknown question or reply, a score that is not on its scale, a special token or a second
            placeholder in a message, a URL, or a path out of the clips' folder.
        FileNotFoundError: No such list.
    """
    if labels not in ("require", "ignore"):
        raise ValueError(f"labels={labels!r}, expected 'require' or 'ignore'")
    path, samples = Path(path), []
    for _, _, sample in scan_list(path, video_root, aspects, with_labels=labels == "require"):
        if isinstance(sample, DataError):
            raise sample
        if not allow_outside:
            require_inside(sample, path, video_root)
        samples.append(sample)
    return samples


def require_inside(sample: Sample, path: Path, video_root: Path | None) -> None:
    """Refuses a clip outside the folder that the clips of a list are in.

    Args:
        sample: A sample of the list.
        path: The list.
        video_root: As given to the reader of the list.

    Raises:
        DataError: The path, or a symbolic link in it, leads out.
    """
    root = path.parent.parent / VIDEO_FOLDER if video_root is None else Path(video_root)
    if not is_inside(sample.path, root):
        raise DataError(
            f"{sample.where}: {sample.path} leads out of {root}; put the clip itself into that "
            "folder, name the folder of the clips (--video_root DIR, of which the list gives the "
            "file name), or let predict and data check take clips from anywhere (--allow_outside)"
        )


def scan_list(
    path: Path,
    video_root: Path | None = None,
    aspects: Aspects = GEN3DHF,
    *,
    with_labels: bool = True,
) -> Iterator[tuple[str, object, Sample | DataError]]:
    """As `read_list`, but goes on after a row that cannot be read, and lets clips be anywhere (see
    `require_inside`): yields (place, row as it stands in the file, its sample or what is wrong
    with it).

    Raises:
        DataError: There are no rows to be read: not UTF-8, an array that is not JSON, no rows.
        FileNotFoundError: No such list.
    """
    path = Path(path)
    for where, row in _rows(path):
        try:
            yield where, row, _sample(row, where, path, video_root, aspects, with_labels)
        except DataError as error:
            yield where, row, error


def write_list(path: Path, samples: Iterable[Sample]) -> None:
    """Writes samples as a released list, replacing the file as a whole; `videos` holds one file
    name, to be found by a video root.

    Raises:
        DataError: No samples, or a message that `read_list` would refuse; the file stays as it was.
    """
    rows = []
    for number, sample in enumerate(samples, start=1):
        where = f"{path}: row {number}"
        texts = [("user", PLACEHOLDER + _checked_text(sample.prompt, where))]
        if sample.reply is not None:
            texts.append(("assistant", _checked_text(sample.reply, where)))
        messages = [{"role": role, "content": content} for role, content in texts]
        rows.append({"messages": messages, "videos": [sample.path.name]})
    if not rows:
        raise DataError(f"{path}: no samples to write; a list holds at least one")
    replace_file(Path(path), json.dumps(rows, ensure_ascii=False))


def write_ratings(folder: Path, part: str, aspect: Aspect, samples: Sequence[Sample]) -> None:
    """Writes a part's lists with the scores of an aspect: `numerical/PART_NAME.json`, and
    `text/PART_NAME.json` where it has levels; replies follow from the scores.

    Args:
        folder: The data set.
        part: The part's name.
        aspect: What is rated, its scale with edges.
        samples: Questions on the aspect, with their scores.
    """
    words = aspect.scale.levels
    for kind in ("numerical", "text") if words else ("numerical",):
        rows = []
        for sample in samples:
            level = aspect.scale.level(sample.mos) if words else None
            score = sample.mos if kind == "numerical" else None
            rows.append(replace(sample, reply=level_reply(aspect, level, score, sample.slots)))
        write_list(folder / kind / f"{part}_{aspect.name}.json", rows)


def _rows(path: Path) -> Iterator[tuple[str, object]]:
    """Yields (place for messages, decoded row); rows of an array count from 1, JSON lines by their
    line, and one that is not JSON comes as the error that says so.
    """
    try:
        # utf-8-sig: editors on Windows put a byte order mark before the text.
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 at byte {error.start}; save the list as UTF-8"
        ) from error
    if text.lstrip().startswith("{"):
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                try:
                    row = _decoded(line, path, number)
                except DataError as error:
                    row = error
                yield f"{path}:{number}", row
        return
    content = _decoded(text, path, 1)
    if not isinstance(content, list) or not content:
        raise DataError(
            f"{path}: expected a JSON array of rows, or JSON lines, with at least one row"
        )
    for number, row in enumerate(content, start=1):
        yield f"{path}: row {number}", row


def _decoded(text: str, path: Path, first_line: int) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}:{first_line + error.lineno - 1}:{error.colno}"
        raise DataError(
            f"{place}: not JSON ({error.msg}); correct the file there or fetch it again"
        ) from error
    except RecursionError as error:
        raise DataError(
            f"{path}:{first_line}: nested too deeply; expected rows of messages and videos"
        ) from error


def _sample(
    row: object,
    where: str,
    path: Path,
    video_root: Path | None,
    aspects: Aspects,
    with_labels: bool,
) -> Sample:
    if isinstance(row, DataError):
        raise row
    if not isinstance(row, dict) or set(row) != {"messages", "videos"}:
        found = f"keys {sorted(row)}" if isinstance(row, dict) else type(row).__name__
        raise DataError(f"{where}: {found}, expected an object with exactly messages and videos")
    clip = _clip_path(row["videos"], where, path, video_root)
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"{where}: messages is no list of messages; expected a user's and an assistant's"
        )
    question = _content(messages[0], "user", where)
    if not question.startswith(PLACEHOLDER):
        raise DataError(
            f"{where}: the user's message does not begin with {PLACEHOLDER}; put it before the "
            "question"
        )
    prompt = _checked_text(question.removeprefix(PLACEHOLDER), where)
    asked, slots = _asked(prompt, aspects)
    known = {"video": clip.stem, "path": clip, "prompt": prompt, "where": where}
    if not with_labels:
        if asked is None:
            prompts = [*(aspect.prompt for aspect in aspects.values()), DISTORTION_PROMPT]
            raise DataError(
                f"{where}: unknown question {prompt[:60]!r}; expected one like {prompts}"
            )
        return Sample(**known, task=asked, slots=slots)
    if len(messages) != 2:
        raise DataError(
            f"{where}: {len(messages)} messages, expected a question and its answer; to predict, "
            "labels may be ignored"
        )
    reply = _checked_text(_content(messages[1], "assistant", where), where)
    answer = _answer(reply, where, aspects)
    if asked not in (None, answer["task"]):
        raise DataError(
            f"{where}: the question is about {asked}, the reply about {answer['task']}; correct "
            "one of them"
        )
    return Sample(**known, **answer | {"slots": slots | answer.get("slots", {})})


def _asked(prompt: str, aspects: Aspects) -> tuple[str | None, dict[str, str]]:
    """The task that a question is about, None where it is not one of ours, and its slots."""
    for name, aspect in aspects.items():
        if match := re.fullmatch(_pattern(aspect.prompt, name), prompt, re.DOTALL):
            return name, match.groupdict()
    if match := re.search(rf"\brate the ({'|'.join(aspects)})\b", prompt):
        return match[1], {}
    return (DISTORTION if _ASKED_FOR_DISTORTIONS.search(prompt) else None), {}


@functools.cache
def _pattern(template: str, name: str) -> str:
    """A regular expression of a prompt or prefix, with a group for each of its slots."""
    pattern, slots = "", set()
    for text, slot, _, _ in Formatter().parse(template):
        pattern += re.escape(text)
        if slot == "aspect":
            pattern += re.escape(name)
        elif slot is not None:
            pattern += f"(?P={slot})" if slot in slots else f"(?P<{slot}>.+?)"
            slots.add(slot)
    return pattern


def _answer(reply: str, where: str, aspects: Aspects) -> dict[str, object]:
    """What a reply says of its clip, as fields of `Sample`."""
    for name, aspect in aspects.items():
        said = r" (\w+)\.(?: \(([^()]*)\))?" if aspect.scale.levels else r"() \(([^()]*)\)"
        match = re.fullmatch(_pattern(aspect.answer_prefix, name) + said, reply, re.DOTALL)
        if match:
            return _rating(reply, match, aspect, where)
    if reply.startswith(REPLY_PREFIX):
        answer = parse_distortions(reply)
        if answer.unknown or not answer.categories:
            named = ", ".join(answer.unknown) or "nothing"
            raise DataError(
                f"{where}: the reply names {named}, expected some of the nine distortion categories"
            )
        return {"task": DISTORTION, "reply": reply, "distortions": answer.categories}
    known = [
        f"{aspect.answer_prefix} {f'{levels[-1]}.' if (levels := aspect.scale.levels) else '(50)'}"
        for aspect in aspects.values()
    ]
    raise DataError(
        f"{where}: reply {reply[:80]!r}, expected one like {[*known, f'{REPLY_PREFIX} A, B']}, "
        "the former with or without a score such as ' (51.2)'"
    )


def _rating(reply: str, match: re.Match, aspect: Aspect, where: str) -> dict[str, object]:
    words, (level, score) = aspect.scale.levels, match.groups()[-2:]
    if words:
        start, end = match.span(match.re.groups - 1)
        level = words[0] if level == UNNAMED_LEVEL else level
        if level not in words:
            raise DataError(
                f"{where}: level {level!r}, expected one of {', '.join(words)} (or None, the "
                "released lowest)"
            )
        reply = reply[:start] + level + reply[end:]
    return {
        "task": aspect.name,
        "reply": reply,
        "levels": {aspect.name: level} if words else {},
        "values": {} if score is None else {aspect.name: _checked_score(score, aspect, where)},
        "slots": match.groupdict(),
    }


def _checked_score(score: str | float, aspect: Aspect, where: str) -> float:
    try:
        value = float(score)
    except ValueError:
        value = math.nan
    if not aspect.scale.holds(value):
        raise DataError(
            f"{where}: score {score}, expected a finite number in {aspect.scale.minimum:g}.."
            f"{aspect.scale.maximum:g}"
        )
    return value


def _content(message: object, role: str, where: str) -> str:
    fitting = (
        isinstance(message, dict)
        and message.get("role") == role
        and isinstance(message.get("content"), str)
    )
    if not fitting:
        raise DataError(
            f'{where}: expected {{"role": "{role}", "content": text}}, got {str(message)[:80]}'
        )
    return message["content"]


def _checked_text(text: str, where: str) -> str:
    special = _SPECIAL.search(text)
    if special:
        raise DataError(
            f"{where}: {special[0]} inside a message; the chat format puts such tokens in, remove "
            "it"
        )
    return text


def _clip_path(videos: object, where: str, path: Path, video_root: Path | None) -> Path:
    entry = videos[0] if isinstance(videos, list) and len(videos) == 1 else videos
    if not isinstance(entry, str):
        raise DataError(f"{where}: videos is {str(videos)[:80]}, expected the path of one clip")
    if _URL.match(entry):
        raise DataError(
            f"{where}: videos is {entry[:80]!r}; expected a file, nothing is fetched: download it "
            "and give its path"
        )
    name = re.split(r"[/\\]", entry)[-1]
    if name in ("", ".", "..") or "\0" in name:
        raise DataError(
            f"{where}: videos is {entry[:80]!r}, expected a path that ends in a file name"
        )
    if video_root is not None:
        return Path(video_root) / name
    if is_absolute(entry):
        return Path(entry)
    return path.parent.parent / VIDEO_FOLDER / entry.replace("\\", "/")


def is_absolute(entry: str) -> bool:
    """Whether a path in a list is absolute, on this machine or on Windows."""
    return PurePosixPath(entry).is_absolute() or PureWindowsPath(entry).is_absolute()
