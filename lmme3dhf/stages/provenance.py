"""Where a model comes from: what a run records of its data and settings, for the model card.
Nothing of it names a machine, a path or a date.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import yaml

from lmme3dhf.aspects import Aspects, aspects_of
from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.data.readers import list_samples
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.splits import latent, read_split_file, split_hash
from lmme3dhf.files import file_hash
from lmme3dhf.models.card import read_card, read_metric
from lmme3dhf.predictions import read_predictions

SPLIT, TRUTH = "splits.json", "truth.json"
LEFT_OUT = "(left out)"
STAGES = ("text", "score", "saliency")
_SECRET = re.compile(r"(^|_)(token|secret|password|api_key)$", re.IGNORECASE)
_CACHED = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
_HOME = re.compile(r"(?:/(?:home|root|Users)/|[A-Za-z]:\\+Users\\+)|\bhf_[A-Za-z0-9]{10,}")
TINY_BASE = Path(__file__).resolve().parents[1] / "models" / "tiny_base"


def data_facts(
    root: Path, video_root: Path | None, lists: Sequence[str], aspects: Aspects | None = None
) -> dict[str, Any]:
    """What a stage is trained on.

    Args:
        root: Folder of the data set.
        video_root: Folder of the clips; None for `video_RGB` below `root`.
        lists: Relative to `root`.
        aspects: What is rated; None for what the data set declares.

    Returns:
        `name` of the data set, whether it is `synthetic`, the `lists`, their `questions`, `videos`
        and `faces` (None where names hold none), the `split` (`sha256`, `protocol`, `parts`: part
        -> videos; None without a file), and `scores`: dimension -> number, mean, deviation (n - 1)
        and percentiles 0 to 100 of the opinion scores in the lists.

    Raises:
        DataError: A list or the split is damaged.
        FileNotFoundError: A list is missing.
    """
    aspects = aspects_of(root, aspects)
    samples = list_samples(lists, folder=root, root=video_root, aspects=aspects, allow_outside=True)
    videos = {sample.video for sample in samples}
    scores = {
        dimension: {s.video: s.mos for s in samples if s.task == dimension and s.mos is not None}
        for dimension in aspects
    }
    return {
        "name": _data_name(root, video_root),
        "synthetic": (root / TRUTH).is_file(),
        "lists": [scrubbed(str(name)) for name in lists],
        "questions": len(samples),
        "videos": len(videos),
        "faces": _faces(videos),
        "split": _split(root),
        "scores": {d: _distribution(list(found.values())) for d, found in scores.items() if found},
    }


def stage_lists(settings: dict[str, Any], stage: str) -> list[str]:
    """The lists that a stage learns by the settings (as plain values of `config.yaml`)."""
    own, lora = settings[stage], settings["lora"]
    adapted = lora["language"] or lora["vision"]  # a head alone rehearses nothing
    rehearsed = own.get("rehearsal") if own.get("language_weight") and adapted else None
    return [*own["lists"], *(rehearsed or ())]


def shown_settings(settings: dict[str, Any], stage: str, data: str | None) -> dict[str, Any]:
    """The settings of a stage as they may be published: without the other stages' sections, folders
    and secrets.

    Args:
        settings: As plain values of `config.yaml`.
        stage: The stage.
        data: Name of the data set, in place of its folder.
    """
    shown = {
        key: value
        for key, value in settings.items()
        if key not in STAGES or key == stage or (key == "synthetic" and value.get("draw"))
    }
    if not (shown.get("synthetic") or {}).get("draw"):
        shown.pop("synthetic", None)
    shown["data"] = {
        key: data if key == "root" else value
        for key, value in (shown.get("data") or {}).items()
        if key not in ("video_root", "features")
    }
    # Which model it started from is told by the chain of stages.
    shown.pop("model", None)
    shown.pop("verify", None)
    return _without_places(shown)


def card_record(run: Path, record: dict[str, Any], base: Path) -> dict[str, Any]:
    """What the model card of a merged run keeps (see `models.card.write_card`): the base's record
    with this stage added.

    Args:
        run: Folder of a finished run.
        record: Its `run.json`.
        base: Folder of the model that the run started from.
    """
    stage, before = record["stage"], read_card(base)
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    data = record.get("data") or _recovered(settings, stage)
    shown = shown_settings(settings, stage, data and data["name"])
    speed = run / "speed.json"
    hardware = json.loads(speed.read_bytes()) if speed.is_file() else None
    entry = {
        "stage": stage,
        "settings": shown,
        "settings_sha256": hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest(),
        "data": data and {key: value for key, value in data.items() if key != "scores"},
        "versions": record.get("versions"),
        "hardware": hardware and {key: hardware.get(key) for key in ("device", "processes")},
        "merge": None,
    }
    known = {name: scale["training"] for name, scale in read_metric(base)["dimensions"].items()}
    training = {name: found for name, found in known.items() if found}
    plain = "metric" not in json.loads((base / "config.json").read_bytes())
    return {
        "base": before["base"] or (_described(base) if plain else None),
        "stages": [*before["stages"], entry],
        "training": training | ((data or {}).get("scores") or {}),
        "tests": [],
    }


def facts_of_test(
    predictions: Path, lists: Sequence[Path], video_root: Path | None = None
) -> dict[str, Any]:
    """What a test was, for the model card (see `models.card.add_test`), without its figures.

    Args:
        predictions: JSONL of one method.
        lists: Lists of the test videos, in a data set's folder.
        video_root: Folder of the clips; None for `video_RGB` in that folder.
    """
    root = Path(lists[0]).resolve().parent.parent
    videos = {
        s.video for path in lists for s in read_list(path, labels="ignore", allow_outside=True)
    }
    split = read_split_file(root / SPLIT) if (root / SPLIT).is_file() else None
    parts = split.parts if split else {}
    part = next((name for name, known in parts.items() if set(known) == videos), None)
    training = {video for name, known in parts.items() if name != part for video in known}
    faces = _faces(videos)
    return {
        "data": _data_name(root, video_root),
        "synthetic": (root / TRUTH).is_file(),
        "part": part or ", ".join(dict.fromkeys(Path(path).stem for path in lists)),
        "videos": len(videos),
        "faces": faces,
        "faces_in_training": (
            len({latent(v) for v in videos} & {latent(v) for v in training})
            if part and faces
            else None
        ),
        "protocol": split.protocol if split else None,
        "split_sha256": (_split(root) or {}).get("sha256"),
        "decoders": sorted({p.decoder for p in read_predictions(predictions) if p.decoder}),
        "predictions_sha256": file_hash(predictions),
    }


def _recovered(settings: dict[str, Any], stage: str) -> dict[str, Any] | None:
    """The data of a run that did not record it, where it is still there."""
    root, videos = Path(settings["data"]["root"]), settings["data"].get("video_root")
    try:
        return data_facts(root, videos and Path(videos), stage_lists(settings, stage))
    except (DataError, OSError, KeyError):
        return None


def _described(base: Path) -> dict[str, Any]:
    """A plain Qwen2.5-VL: its name and, where its own card tells it, its licence."""
    if base.resolve() == TINY_BASE:
        return {"name": "lmme3dhf tiny base", "hub": False, "license": "apache-2.0"}
    cached = next((m for part in base.parts if (m := _CACHED.fullmatch(part))), None)
    about: dict[str, Any] = {
        "name": f"{cached[1]}/{cached[2]}" if cached else base.resolve().name,
        "hub": cached is not None,
    }
    readme = base / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    try:
        told = yaml.safe_load(front[1]) if front else None
    except yaml.YAMLError:
        told = None
    for key in ("license", "license_name", "license_link"):
        if isinstance(told, dict) and isinstance(told.get(key), str):
            about[key] = told[key]
    return about


def _data_name(root: Path, video_root: Path | None) -> str:
    """Name of the data set: of the folder above its clips, unless they were drawn."""
    if (root / TRUTH).is_file():
        return "drawn faces"
    return (video_root or root / "video_RGB").resolve().parent.name or "data"


def _split(root: Path) -> dict[str, Any] | None:
    path = root / SPLIT
    if not path.is_file():
        return None
    try:
        split = read_split_file(path)
    except DataError as error:
        # Nothing is trained on it, so it does not keep anybody from training.
        print(f"{error}; the split is left out of the model card", flush=True)
        return None
    return {
        "sha256": split_hash(split.parts),
        "protocol": split.protocol,
        "parts": {part: len(videos) for part, videos in split.parts.items()},
    }


def _faces(videos: set[str]) -> int | None:
    try:
        return len({latent(video) for video in videos})
    except DataError:
        return None


def _distribution(scores: list[float]) -> dict[str, Any]:
    """Of at least one score; a single one has no deviation."""
    values = np.asarray(scores, dtype=float)
    return {
        "videos": len(values),
        "mean": float(values.mean()),
        "deviation": float(values.std(ddof=1)) if len(values) > 1 else None,
        "percentiles": np.percentile(values, np.arange(101)).tolist(),
    }


def _without_places(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _without_places(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_places(item, key) for item in value]
    if value is not None and _SECRET.search(key):
        return LEFT_OUT
    return scrubbed(value) if isinstance(value, str) else value


def scrubbed(text: str) -> str:
    """A text without somebody's folders: of an absolute path the last part, and nothing of a text
    that holds a home folder or a token elsewhere.
    """
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(text).is_absolute() or text.startswith("~"):
            text = kind(text).name or LEFT_OUT
    return LEFT_OUT if _HOME.search(text) else text
