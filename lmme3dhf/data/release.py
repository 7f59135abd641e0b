"""The label files of the release, `MOS.json` and `distortion_label.json`, read tolerantly: their
inner form is not published.

What is plain is accepted in any of its spellings; what could mean two things is refused with a
sentence. Our own files (`datasets/README.md`) are one of these spellings.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmme3dhf.annotations import other_scale
from lmme3dhf.annotations.descriptions import parse_distortions
from lmme3dhf.aspects import GEN3DHF, Aspect, Aspects
from lmme3dhf.data.samples import DataError
from lmme3dhf.vocabulary import DISTORTIONS, NO_DISTORTION

# In a list of records, the keys under which the video may stand, as letters.
_NAME_KEYS = (
    "video",
    "videoid",
    "videoname",
    "videopath",
    "videos",
    "name",
    "filename",
    "file",
    "path",
    "image",
    "imagename",
    "id",
    "seed",
)
_LABEL_KEYS = (
    "labels",
    "label",
    "distortions",
    "distortion",
    "distortionlabels",
    "distortionlabel",
    "categories",
    "category",
)
_BESIDE_ASPECT = "(?:mos|mean|scores?)*"  # in a key, before or after the aspect's name
_MEDIA_SUFFIX = re.compile(r"\.(?:mp4|avi|mov|mkv|webm|gif|png|jpe?g|npz)$", re.IGNORECASE)
_SEED = re.compile(r"(?:seed[_-]?)?([0-9]+)", re.IGNORECASE)


@dataclass
class Labels:
    """What a label file holds, and everything that is wrong with it.

    Attributes:
        known: Names of clips, which stay as they are though they be numbers.
        by_video: Video -> its labels; only entries without a fault.
        faults: (entry, sentence) in the order of the file.
    """

    known: Container[str] = ()
    by_video: dict[str, Any] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)


def read_mos(
    path: Path, aspects: Aspects = GEN3DHF, known: Container[str] = ()
) -> dict[str, dict[str, float]]:
    """Reads mean opinion scores: video -> aspect -> score on its scale, all aspects for each video.

    Accepted are {"seed0000": {"quality": 51.2, "authenticity": 49.9}}, {"quality": {"seed0000":
    51.2}, "authenticity": {...}}, and a list of records with the video under "video", "name" or the
    like. A video may be named by its path, with a suffix, or by its number alone; an aspect in
    capitals or as "MOS_quality"; a score as text. Other keys of an entry are passed over. A pair
    [51.2, 49.9] is refused, for it does not say which score is which. A name among `known` is
    that of a clip, also where it is a number.

    Raises:
        DataError: Not JSON (with line and column), or with the entry: an aspect missing, a score
            that is no finite number on its scale, a video or key twice, another form.
        FileNotFoundError: No such file.
    """
    return _without_faults(path, scan_mos(path, aspects, known))


def read_distortion_labels(path: Path, known: Container[str] = ()) -> dict[str, tuple[str, ...]]:
    """Reads distortion categories: video -> some of the nine, in vocabulary order, at least one.

    Accepted for a video are a list of names, text with commas, {"labels": either}, and {"Eye
    Distortions": 1, ...} with 0 or 1 for each name; and a list of records with the video under
    "video", "name" or the like. Names are read as by `parse_distortions`; "No Distortion" beside
    another is dropped. No names at all is refused: it could mean a clean video or one that nobody
    looked at.

    Raises:
        DataError: Not JSON (with line and column), or with the entry: a name that is none of the
            nine, no names, a video or key twice, another form.
        FileNotFoundError: No such file.
    """
    return _without_faults(path, scan_distortion_labels(path, known))


def scan_mos(path: Path, aspects: Aspects = GEN3DHF, known: Container[str] = ()) -> Labels:
    """As `read_mos`, but goes on after a fault and gives them all.

    Raises:
        DataError: Not JSON, or of a form from which no entry can be read.
        FileNotFoundError: No such file.
    """
    content, labels = _opened(path, known)
    if isinstance(content, dict) and any(_aspect(key, aspects) for key in content):
        _mos_by_aspect(content, labels, aspects)
    else:
        for name, entry in _entries(path, content, labels, "a score for each aspect"):
            scores, fault = _scores(entry, aspects)
            _keep(labels, name, scores, fault)
    for name, aspect in aspects.items():
        other = other_scale([scores[name] for scores in labels.by_video.values()], aspect.scale)
        if other:
            labels.faults.append((name, f"the scores {other}"))
    return labels


def scan_distortion_labels(path: Path, known: Container[str] = ()) -> Labels:
    """As `read_distortion_labels`, but goes on after a fault and gives them all.

    Raises:
        DataError: Not JSON, or of a form from which no entry can be read.
        FileNotFoundError: No such file.
    """
    content, labels = _opened(path, known)
    if isinstance(content, dict) and content and all(_is_category(key) for key in content):
        raise DataError(
            f"{path}: the keys are categories; expected videos with their categories, like "
            '{"seed0000": ["Eye Distortions"]}'
        )
    for name, entry in _entries(path, content, labels, "its categories"):
        categories, fault = _categories(entry)
        _keep(labels, name, categories, fault)
    return labels


def read_json(path: Path) -> tuple[object, list[str]]:
    """The content of a JSON file, and the keys that an object holds more than once (its last value
    is in the content).

    Raises:
        DataError: Not UTF-8 or not JSON, with line and column.
        FileNotFoundError: No such file.
    """
    twice: list[str] = []

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        twice.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return dict(pairs)

    try:
        # utf-8-sig: editors on Windows put a byte order mark before the text.
        text = Path(path).read_bytes().decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=unique), twice
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}:{error.colno}: not JSON ({error.msg}); correct the file there "
            "or fetch it again"
        ) from error
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise DataError(
            f"{path}: cannot be read as JSON ({error}); correct the file or fetch it again"
        ) from error


def video_id(name: object, known: Container[str] = ()) -> str | None:
    """The identifier of a clip from its name, path or number: "/a/seed0042.mp4", "Seed_42", "42"
    and 42 are "seed0042"; other names, and those that are known, stay as they are, without a media
    suffix. None where there is no name.
    """
    if isinstance(name, bool) or not isinstance(name, int | str):
        return None
    stem = _MEDIA_SUFFIX.sub("", re.split(r"[/\\]", str(name).strip())[-1])
    seed = _SEED.fullmatch(stem)
    if seed and stem not in known and not stem.startswith(f"seed{seed[1]}"):
        return f"seed{int(seed[1]):04d}"
    return stem or None


def _without_faults(path: Path, labels: Labels) -> dict[str, Any]:
    if labels.faults:
        entry, sentence = labels.faults[0]
        more = f" (and {len(labels.faults) - 1} more faults)" if len(labels.faults) > 1 else ""
        raise DataError(f"{path}: {entry}: {sentence}{more}")
    return labels.by_video


def _opened(path: Path, known: Container[str]) -> tuple[object, Labels]:
    """The content of a label file, and its keys that occur twice as the first faults."""
    content, twice = read_json(path)
    return content, Labels(
        known=known,
        faults=[(repr(key), "this key is there more than once; keep one") for key in twice],
    )


def _entries(
    path: Path, content: object, labels: Labels, what: str
) -> Iterator[tuple[object, object]]:
    """(name, entry) of an object of videos or of a list of records."""
    if not isinstance(content, dict | list) or not content:
        raise DataError(
            f"{path}: expected an object of videos, each with {what}, or a list of records, with "
            "at least one video"
        )
    if isinstance(content, dict):
        yield from content.items()
        return
    for number, record in enumerate(content, start=1):
        if not isinstance(record, dict):
            labels.faults.append(
                (f"record {number}", f"{_shown(record)}, expected an object with a video's name")
            )
            continue
        keys = {_letters(key): key for key in record}
        name = next((keys[known] for known in _NAME_KEYS if known in keys), None)
        if name is None:
            labels.faults.append(
                (f"record {number}", f'keys {sorted(record)}, expected the video under "video"')
            )
            continue
        yield record[name], {key: value for key, value in record.items() if key != name}


def _keep(labels: Labels, name: object, value: object, fault: str | None) -> None:
    """Adds an entry, or its fault."""
    video = video_id(name, labels.known)
    if video is None:
        labels.faults.append((_shown(name), "this names no video; expected one like seed0042"))
    elif fault is not None:
        labels.faults.append((str(name), fault))
    elif video in labels.by_video:
        labels.faults.append((str(name), f"{video} is there already; keep one of the two entries"))
    else:
        labels.by_video[video] = value


def _mos_by_aspect(content: dict[str, object], labels: Labels, aspects: Aspects) -> None:
    """{"quality": {video: score}, "authenticity": {...}}."""
    found: dict[str, Labels] = {}
    for key, scores in content.items():
        aspect = _aspect(key, aspects)
        if aspect is None:
            continue
        if aspect.name in found or not isinstance(scores, dict):
            cause = (
                f"the {aspect.name} is there already; keep one of the two"
                if aspect.name in found
                else f"{_shown(scores)}, expected an object of videos with their scores"
            )
            labels.faults.append((repr(key), cause))
            continue
        found[aspect.name] = Labels(known=labels.known)
        for name, score in scores.items():
            value, fault = _score(score, aspect)
            _keep(found[aspect.name], name, value, fault)
    faulty = set()
    for one in found.values():
        faulty |= {video_id(entry, labels.known) for entry, _ in one.faults}
        labels.faults += one.faults
    videos = dict.fromkeys(video for one in found.values() for video in one.by_video)
    for video in videos:
        missing = [a for a in aspects if a not in found or video not in found[a].by_video]
        if not missing:
            labels.by_video[video] = {name: found[name].by_video[video] for name in aspects}
        elif video not in faulty:
            labels.faults.append((video, f"no score of {' and '.join(missing)}; add it"))


def _scores(entry: object, aspects: Aspects) -> tuple[dict[str, float] | None, str | None]:
    """(aspect -> score, fault), one of them None."""
    if not isinstance(entry, dict):
        named = ", ".join(f'"{name}": 51.2' for name in aspects)
        return None, f"{_shown(entry)} does not say which score is which; expected {{{named}}}"
    scores: dict[str, float] = {}
    for key, value in entry.items():
        aspect = _aspect(key, aspects)
        if aspect is None:
            continue
        if aspect.name in scores:
            return None, f"two scores of {aspect.name}; keep one"
        score, fault = _score(value, aspect)
        if fault is not None:
            return None, fault
        scores[aspect.name] = score
    missing = [name for name in aspects if name not in scores]
    if missing:
        return None, f"no score of {' and '.join(missing)} under the keys {sorted(entry)}; add it"
    return {name: scores[name] for name in aspects}, None


def _score(value: object, aspect: Aspect) -> tuple[float | None, str | None]:
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not aspect.scale.holds(score):
        return None, (
            f"{aspect.name} is {_shown(value)}, expected a finite number in "
            f"{aspect.scale.minimum:g}..{aspect.scale.maximum:g}"
        )
    return score, None


def _categories(entry: object) -> tuple[tuple[str, ...] | None, str | None]:
    """(categories, fault), one of them None."""
    if isinstance(entry, dict) and entry and all(_is_category(key) for key in entry):
        if not all(value in (0, 1) for value in entry.values()):
            return None, f"{_shown(entry)}, expected 0 or 1 for each category"
        entry = [key for key, value in entry.items() if value]
    elif isinstance(entry, dict):
        keys = [key for key in entry if _letters(key) in _LABEL_KEYS]
        if len(keys) != 1:
            return None, f'keys {sorted(entry)}, expected the categories once, under "labels"'
        entry = entry[keys[0]]
    if isinstance(entry, str):
        entry = [entry]
    if not isinstance(entry, list) or not all(isinstance(name, str) for name in entry):
        return None, f"{_shown(entry)}, expected a list of category names, or text with commas"
    answer = parse_distortions(", ".join(entry))
    if answer.unknown:
        return None, (
            f"{', '.join(map(repr, answer.unknown))} is none of the nine categories: "
            f"{', '.join(DISTORTIONS)}"
        )
    if not answer.categories:
        return None, (
            f'no categories; write "{NO_DISTORTION}" where a video is clean, and take out one '
            "that was not looked at"
        )
    return answer.categories, None


def _is_category(key: str) -> bool:
    answer = parse_distortions(key)
    return len(answer.categories) == 1 and not answer.unknown


def _aspect(key: str, aspects: Aspects) -> Aspect | None:
    """The aspect that a key names."""
    if key in aspects:
        return aspects[key]
    pattern = f"{_BESIDE_ASPECT}({'|'.join(map(_letters, aspects))}){_BESIDE_ASPECT}"
    match = re.fullmatch(pattern, _letters(key))
    return next(a for name, a in aspects.items() if _letters(name) == match[1]) if match else None


def _letters(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "", key.casefold())


def _shown(value: object) -> str:
    """A value as it stands in the file, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
