"""The released lists of Gen3DHF: one JSON row per question, labels inside the answer sentence
(paper, Sections 3.3 and 4.2).

`text/` lists say "The quality of the human face in this video is good.", `numerical/` lists add the
opinion score as "(51.2)", `distortion/` lists say "Distortions found: A, B". A row is {"messages":
[user, assistant], "videos": [path]}; the release has the path alone.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from lmme3dhf.annotations.descriptions import REPLY_PREFIX, parse_distortions
from lmme3dhf.data.samples import DataError, Sample
from lmme3dhf.files import is_inside, replace_file
from lmme3dhf.vocabulary import DIMENSIONS, LEVELS

PROMPTS = {
    "quality": (
        "Please rate the quality of the human face in this video, considering factors such as "
        "resolution, clarity, smoothness, and overall visual quality."
    ),
    "authenticity": (
        "Please rate the authenticity of the human face in this video, considering factors such "
        "as natural facial movements, consistency, texture realism, and any signs of digital "
        "manipulation or artificial generation."
    ),
    "distortion": "Please examine and output any distortion you found.",
}
# One question a category, for models that were not tuned on answer lists; not in the release.
CATEGORY_PROMPT = "Does the human face in this video show {category}? Please answer yes or no."
SALIENCY_PROMPT = "What is the saliency region of distortions in this video?"

VIDEO_FOLDER = "video_RGB"
PLACEHOLDER = "<video>"

_RATING_REPLY = re.compile(
    r"The (quality|authenticity) of the human face in this video is (\w+)\.(?: \(([^()]*)\))?"
)
_QUESTION = re.compile(r"\brate the (quality|authenticity)\b|\boutput any (distortion)s?\b")
_SPECIAL = re.compile(r"<\|[^<>|]*\|>|<(?:video|image|audio)>")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|(?:file|data):", re.IGNORECASE)


def level_reply(dimension: str, level: str, mos: float | None = None) -> str:
    """The answer sentence of the `text/` lists, or with an opinion score (0..100) that of the
    `numerical/` lists.

    Raises:
        DataError: Unknown dimension or level, or a score that is not a finite number in 0..100.
    """
    if dimension not in DIMENSIONS or level not in LEVELS:
        raise DataError(
            f"reply for {dimension!r}, {level!r}: expected one of {', '.join(DIMENSIONS)} and of "
            f"{', '.join(LEVELS)}"
        )
    sentence = f"The {dimension} of the human face in this video is {level}."
    return (
        sentence if mos is None else f"{sentence} ({_checked_mos(mos, f'reply for {dimension}')})"
    )


def read_list(
    path: Path,
    video_root: Path | None = None,
    *,
    labels: str = "require",
    allow_outside: bool = False,
) -> list[Sample]:
    """Reads a list, a JSON array or JSON lines (told apart by the content), in the order of the
    file.

    The released lists hold somebody's absolute paths, of which only the file name counts once
    `video_root` is given. Without it a relative path starts at `video_RGB` beside the list's own
    folder, as the data set's layout has it, and an absolute one stays as it is. A clip need not
    exist, but no path leads out of that folder: a list from a stranger opens nothing else. The
    folder itself may be a symbolic link (clips on another disk); a link in it that leads out is
    refused like any other path. The released level "None" (the lowest score, lost by a strict
    comparison) reads as "bad", in the reply too.

    Args:
        path: The list.
        video_root: Folder of the clips.
        allow_outside: Take clips wherever they are: for lists of one's own, and for those who read
            labels and open no clip.
        labels: "require" reads the labels from the replies. "ignore" does not look at the replies
            at all, whatever they hold: the task comes from the question, and reply and labels are
                None.

    Raises:
        DataError: With the file and the place in it: not JSON, no rows, a row of another form, an
            unknown question or reply, a score outside 0..100, a special token or a second
            placeholder in a message, a URL, or a path out of the clips' folder.
        FileNotFoundError: No such list.
    """
    if labels not in ("require", "ignore"):
        raise ValueError(f"labels={labels!r}, expected 'require' or 'ignore'")
    path = Path(path)
    samples = []
    for where, row in _rows(path):
        sample = _sample(row, where, path, video_root, labels == "require")
        if not allow_outside:
            require_inside(sample.path, where, path, video_root)
        samples.append(sample)
    return samples


def require_inside(clip: Path, where: str, path: Path, video_root: Path | None) -> None:
    """Refuses a clip outside the folder that the clips of a list are in.

    Args:
        clip: Path of a sample's clip.
        where: The place of its row.
        path: The list.
        video_root: As given to the reader of the list.

    Raises:
        DataError: The path, or a symbolic link in it, leads out.
    """
    root = path.parent.parent / VIDEO_FOLDER if video_root is None else Path(video_root)
    if not is_inside(clip, root):
        raise DataError(
            f"{where}: {clip} leads out of {root}; put the clip itself into that folder, name the "
            "folder of the clips (--video_root DIR, of which the list gives the file name), or let "
            "predict and data check take clips from anywhere (--allow_outside)"
        )


def scan_list(
    path: Path, video_root: Path | None = None
) -> Iterator[tuple[str, object, Sample | DataError]]:
    """As `read_list`, but goes on after a row that cannot be read, and lets clips be anywhere (see
    `require_inside`): yields (place, row as it stands in the file, its sample or what is wrong with
    it).

    Raises:
        DataError: No row can be told from another: not UTF-8, an array that is not JSON, no rows.
        FileNotFoundError: No such list.
    """
    path = Path(path)
    for where, row in _rows(path):
        try:
            yield where, row, _sample(row, where, path, video_root, with_labels=True)
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
    row: object, where: str, path: Path, video_root: Path | None, with_labels: bool
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
    asked = _asked(prompt)
    if not with_labels:
        if asked is None:
            raise DataError(
                f"{where}: unknown question {prompt[:60]!r}; expected one like "
                f"{list(PROMPTS.values())}"
            )
        return Sample(video=clip.stem, path=clip, task=asked, prompt=prompt)
    if len(messages) != 2:
        raise DataError(
            f"{where}: {len(messages)} messages, expected a question and its answer; to predict, "
            "labels may be ignored"
        )
    reply = _checked_text(_content(messages[1], "assistant", where), where)
    sample = _labelled(clip, prompt, reply, where)
    if asked not in (None, sample.task):
        raise DataError(
            f"{where}: the question is about {asked}, the reply about {sample.task}; correct one "
            "of them"
        )
    return sample


def _asked(prompt: str) -> str | None:
    """The task that a question is about; None where it is not one of ours."""
    match = _QUESTION.search(prompt)
    return match[1] or match[2] if match else None


def _labelled(clip: Path, prompt: str, reply: str, where: str) -> Sample:
    rating = _RATING_REPLY.fullmatch(reply)
    if rating:
        level = "bad" if rating[2] == "None" else rating[2]
        if level not in LEVELS:
            raise DataError(
                f"{where}: level {level!r}, expected one of {', '.join(LEVELS)} (or None, the "
                "released lowest)"
            )
        mos = None if rating[3] is None else _checked_mos(rating[3], where)
        reply = reply[: rating.start(2)] + level + reply[rating.end(2) :]
        return Sample(
            video=clip.stem,
            path=clip,
            task=rating[1],
            prompt=prompt,
            reply=reply,
            mos=mos,
            level=level,
        )
    if reply.startswith(REPLY_PREFIX):
        answer = parse_distortions(reply)
        if answer.unknown or not answer.categories:
            named = ", ".join(answer.unknown) or "nothing"
            raise DataError(
                f"{where}: the reply names {named}, expected some of the nine distortion categories"
            )
        return Sample(
            video=clip.stem,
            path=clip,
            task="distortion",
            prompt=prompt,
            reply=reply,
            distortions=answer.categories,
        )
    raise DataError(
        f"{where}: reply {reply[:80]!r}, expected {level_reply('quality', 'good')!r}, the same "
        f"for authenticity, either with a score such as ' (51.2)', or '{REPLY_PREFIX} A, B'"
    )


def _checked_mos(mos: str | float, where: str) -> float:
    try:
        value = float(mos)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise DataError(f"{where}: score {mos}, expected a finite number in 0..100")
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
