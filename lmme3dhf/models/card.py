"""A model folder that explains itself: `metric.json` for programs (what is measured, on which
scales, over which training data) and the model card `README.md` for people.

Both are made from what the run recorded, without dates and paths, so that the same run gives the
same bytes. Runs without torch.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lmme3dhf.aspects import GEN3DHF, aspects_from
from lmme3dhf.errors import UserError
from lmme3dhf.escaping import markdown_code, markdown_table, markdown_text
from lmme3dhf.files import MANIFEST, file_hash, replace_file, write_json
from lmme3dhf.models.folder import current_section
from lmme3dhf.vocabulary import DISTORTIONS, LEVELS, VIEWS

METRIC, CARD, README = "metric.json", "card.json", "README.md"
FORMAT = 1
DECODER = "pyav2"  # the one of `data.container`; models do not know data


# What `card.json` keeps of a folder of which nothing is known; see `write_card`.
NO_RECORD: dict[str, Any] = {"base": None, "stages": [], "training": {}, "tests": []}


class CardError(UserError, ValueError):
    """What a model folder says about itself cannot be read, or is not fit to be published."""


def scales(
    section: dict[str, Any],
    *,
    stage: str | None = None,
    training: dict[str, dict[str, Any]] | None = None,
    decoder: str = DECODER,
) -> dict[str, Any]:
    """The content of `metric.json`.

    Args:
        section: The section `metric` of `config.json`; empty for a plain Qwen2.5-VL.
        stage: The stage that wrote the folder: "text", "score" or "saliency"; None where that is
            not recorded.
        training: Dimension -> distribution of the training scores (`videos`, `mean`, `deviation`,
            `percentiles` 0 to 100), where it is known.
        decoder: What decoded the clips; scores belong to it.
    """
    given = current_section(section).get("aspects")
    return {
        "format": FORMAT,
        "dimensions": {
            name: {
                "minimum": _short(aspect.scale.minimum),
                "maximum": _short(aspect.scale.maximum),
                "direction": aspect.scale.direction,
                "levels": list(aspect.scale.levels),
                "edges": aspect.scale.edges and list(aspect.scale.edges),
                "training": (training or {}).get(name),
            }
            for name, aspect in (aspects_from(given) if given else GEN3DHF).items()
        },
        "distortions": list(DISTORTIONS),
        "views": [{"yaw_deg": v.yaw_deg, "clip_fraction": v.clip_fraction} for v in VIEWS],
        "frames": section.get("frames"),
        "decoder": decoder,
        "stage": stage,
        "saliency": section.get("saliency") is not None,
    }


def _short(number: float) -> float:
    return int(number) if number == int(number) else number


def read_metric(folder: Path) -> dict[str, Any]:
    """What a model folder measures, as in its `metric.json` (see `scales`); for a plain base or an
    older folder, which have none, what `config.json` says of it.

    Raises:
        CardError: A file is damaged, or of a later format.
    """
    path = folder / METRIC
    if not path.is_file():
        return scales(_object(folder / "config.json").get("metric") or {})
    content = _object(path)
    known = scales({})
    if content.get("format") != FORMAT or not content.get("dimensions"):
        raise CardError(
            f"{path}: format {content.get('format')!r} with the dimensions "
            f"{sorted(content.get('dimensions') or ())}, expected format {FORMAT} with some; "
            "update lmme3dhf, or merge the run again"
        )
    return known | content


def write_card(folder: Path, record: dict[str, Any]) -> None:
    """Writes `card.json`, `metric.json` and `README.md` into a model folder.

    Args:
        folder: With its `config.json`.
        record: What `card.json` keeps, without paths, names of machines and dates:
            `base`: the model that the first stage started from: `name`, `hub` (whether that is a
            hub id), `license`, `license_name`, `license_link`; None where it is not recorded.
            `stages`: one entry a stage, in their order: `stage`, `settings`, `settings_sha256`,
            `data`, `versions`, `hardware`, `merge`, each of the last five None where it is not
            recorded.
            `training`: see `scales`.
            `tests`: see `add_test`.
    """
    config = _object(folder / "config.json")
    stage = record["stages"][-1]["stage"] if record["stages"] else None
    metric = scales(config.get("metric") or {}, stage=stage, training=record["training"])
    write_json(folder / CARD, {"format": FORMAT, **record})
    write_json(folder / METRIC, metric)
    replace_file(folder / README, _page(config, metric, record))


def merge_summary(report: dict[str, Any]) -> list[str]:
    """Sentences on a merged folder: its form, and how far its model is from the trained one.

    Args:
        report: See `models.merge.merge_adapter`.
    """
    samples = f"against the trained model on {report['samples']} samples"
    against = f"{samples}: {merge_figures(report)}"
    if report["folded"] is None:
        return ["the new part is added", against]
    limits = f"(limits: {merge_limits(report['limits'])})"
    if report["form"] == "merged":
        return ["form merged: the adapter is folded into the weights", f"{against} {limits}"]
    folded = f"folded in it would give: {merge_figures(report['folded'])} {limits}"
    return ["form adapter: the adapter is kept beside the weights", against, folded]


def merge_figures(found: dict[str, Any]) -> str:
    """Differences of a merge (see `models.rounding.differences`) in words."""
    parts = []
    if "scores" in found:
        parts.append(
            f"scores differ by at most {_two(found['score_points_max'])} points of MOS (mean "
            f"{_two(found['score_points_mean'])}) and {found['swapped_pairs']} of {found['pairs']} "
            "pairs change places"
        )
    if "level_reads" in found:
        parts.append(f"{found['level_changes']} of {found['level_reads']} levels change")
    return ", ".join([*parts, f"relative difference {_two(found['relative_difference'])}"])


def merge_limits(limits: dict[str, float]) -> str:
    """The limits of a merge (see `models.rounding.LIMITS`) in words."""
    units = {"score_points_max": "points of MOS", "level_changes": "changed levels"}
    return ", ".join(f"{limit:g} {units.get(name, 'relative')}" for name, limit in limits.items())


def read_card(folder: Path) -> dict[str, Any]:
    """What `write_card` recorded; nothing is known of a plain base or an older folder.

    Raises:
        CardError: The file is damaged, or of a later format.
    """
    path = folder / CARD
    if not path.is_file():
        return dict(NO_RECORD)
    content = _object(path)
    if content.pop("format", None) != FORMAT:
        raise CardError(f"{path}: not of format {FORMAT}; update lmme3dhf, or merge the run again")
    return content


def add_test(folder: Path, test: dict[str, Any]) -> None:
    """Adds the figures of a test to a finished model folder's card, in place of those of the same
    test. The manifest then lists the new card; weights and configuration, and so `hub.model_hash`,
    stay.

    Args:
        folder: A merged folder.
        test: `data`, `synthetic`, `part`, `videos`, `faces`, `faces_in_training`, `protocol`,
            `split_sha256`, `decoders`, `predictions_sha256`, and `figures`, what `evaluate` gives.

    Raises:
        CardError: The folder was not written by a merge.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise CardError(
            f"{folder}: no {MANIFEST}, so no folder that a merge wrote; figures are added to those "
            "alone"
        )
    record = read_card(folder)
    same = ("data", "part", "split_sha256")
    others = [old for old in record["tests"] if any(old[key] != test[key] for key in same)]
    write_card(folder, {**record, "tests": [*others, test]})
    # The weights are not read again: what was damaged since must not become right by this.
    listed = _object(manifest)["files"]
    for name in (CARD, METRIC, README):
        path = folder / name
        listed[name] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
    write_json(manifest, {"files": dict(sorted(listed.items()))})


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CardError(
            f"{path}: cannot be read ({type(error).__name__}); expected a model folder, as merging "
            "writes it"
        ) from error
    if not isinstance(content, dict):
        raise CardError(f"{path}: a JSON object is expected; merge the run again")
    return content


# The page

_ABOUT = {
    "text": (
        "the first of three stages: it says a level in words and names distortions, and has no "
        "score head yet"
    ),
    "score": (
        "the first two of three stages: it gives scores, levels and distortions, and draws no "
        "saliency maps yet"
    ),
    "saliency": "all three stages: scores, levels, distortions and saliency maps",
}
_CITATION = """\
@article{yang2025lmme3dhf,
  title={LMME3DHF: Benchmarking and Evaluating Multimodal 3D Human Face Generation with LMMs},
  author={Yang, Woo Yi and Wang, Jiarui and Wu, Sijing and Duan, Huiyu and Zhu, Yuxin and Yang, Liu
          and Fu, Kang and Zhai, Guangtao and Min, Xiongkuo},
  journal={arXiv preprint arXiv:2504.20466},
  year={2025}
}"""
_FEW = 100  # test videos, below which figures are called rough
_SMALLEST = 2048  # hidden size of the smallest released Qwen2.5-VL
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_TASK = "video-classification"  # of the hub's list the nearest: a clip gets a level


def _page(config: dict[str, Any], metric: dict[str, Any], record: dict[str, Any]) -> str:
    stage = metric["stage"]
    lines = ["---", _front(record).rstrip(), "---", ""]
    lines += ["# LMME3DHF: quality of AI-generated 3D human faces", ""]
    what = _ABOUT.get(stage, "a stage that was not recorded")
    lines += [
        "A Qwen2.5-VL that watches a turntable clip of a 3D human face and rates its perceptual "
        f"quality and its authenticity. This folder holds {what}.",
        "",
    ]
    for warning in _warnings(config, record):
        lines += [f"> **{warning}**", ""]
    sections = {
        "What it gives": _measures(metric),
        "How to use it": _usage(stage),
        "Test figures": _tests(record["tests"]),
        "Training data": _data(record),
        "Training": _training(record),
        "Limits": _limits(config, metric),
        "Licence": _licence(record),
        "Citation": ["```bibtex", _CITATION, "```"],
    }
    for title, body in sections.items():
        lines += [f"## {title}", "", "\n".join(body).strip(), ""]
    return "\n".join(lines)


def _front(record: dict[str, Any]) -> str:
    """The YAML that the hub reads (its model card specification)."""
    base = record["base"] or {}
    front: dict[str, Any] = {
        key: base[key] for key in ("license", "license_name", "license_link") if base.get(key)
    }
    front.setdefault("license", "other")
    if front["license"] == "other":
        front.setdefault("license_name", "that-of-the-base-model")
    if base.get("hub"):
        front["base_model"] = base["name"]
    front |= {
        "library_name": "lmme3dhf",
        "pipeline_tag": _TASK,
        "tags": [
            "video-quality-assessment",
            "face-quality-assessment",
            "3d-human-faces",
            "no-reference",
            "qwen2_5_vl",
            "lmme3dhf",
        ],
    }
    results = [result for test in record["tests"] if (result := _result(test))["metrics"]]
    if results:
        front["model-index"] = [{"name": "LMME3DHF", "results": results}]
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=100)


def _result(test: dict[str, Any]) -> dict[str, Any]:
    figures, metrics = test["figures"], []
    for dimension, found in _rated(figures):
        for key, kind in (("srcc", "spearmanr"), ("plcc", "pearsonr")):
            if _known(found.get(key)):
                name = f"{dimension} {key.upper()}"
                metrics.append({"type": kind, "name": name, "value": round(found[key], 4)})
    accuracy = (figures.get("level") or {}).get("accuracy")
    if _known(accuracy):
        name = "level accuracy"
        metrics.append({"type": "accuracy", "name": name, "value": round(accuracy, 4)})
    return {
        "task": {"type": _TASK, "name": "quality and authenticity of 3D human faces"},
        "dataset": {
            "name": test["data"],
            "type": "synthetic" if test["synthetic"] else test["data"].lower(),
            "split": test["part"],
        },
        "metrics": metrics,
    }


def _rated(figures: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The aspects of a test with their figures."""
    for name, found in figures.items():
        if isinstance(found, dict) and "srcc" in found:
            yield name, found


def _warnings(config: dict[str, Any], record: dict[str, Any]) -> Iterator[str]:
    if any((entry.get("data") or {}).get("synthetic") for entry in record["stages"]):
        yield (
            "It was trained on synthetic faces, drawn by a renderer and rated by simulated raters. "
            "It judges drawn faces alone: do not use its scores for real generators."
        )
    width = (config.get("text_config") or config).get("hidden_size") or _SMALLEST
    if width < _SMALLEST:
        yield (
            f"It is a tiny model (hidden size {width}, the smallest released Qwen2.5-VL has "
            f"{_SMALLEST}), made to try the software with."
        )
    heads = current_section(config.get("metric") or {}).get("heads") or {}
    if any(head.get("read") == "label" for head in heads.values()):
        yield (
            "It reads the true level word: an ablation, which cannot score a clip whose label is "
            "not known."
        )


def _measures(metric: dict[str, Any]) -> Iterator[str]:
    scored = metric["stage"] != "text"
    rows = []
    for name, scale in metric["dimensions"].items():
        training, edges = scale["training"], scale["edges"]
        seen = "not recorded"
        if training:
            deviation = training["deviation"]
            spread = "" if deviation is None else f" &plusmn; {deviation:.1f}"
            low, high = training["percentiles"][0], training["percentiles"][-1]
            seen = f"{training['mean']:.1f}{spread}, from {low:.1f} to {high:.1f}"
        inner = ", ".join(f"{edge:.1f}" for edge in edges[1:-1]) if edges else "not recorded"
        range_ = f"{scale['minimum']} to {scale['maximum']}, {scale['direction']}"
        rows.append((name, range_ if scored else "no score", inner, seen))
    yield from markdown_table(
        ("", "score", "borders between the levels", "scores in training"), rows
    )
    yield ""
    yield (
        "Quality is how good the clip looks, authenticity how much the face looks like a real one. "
        f"Levels, from worst to best: {', '.join(LEVELS)}, each with its probability."
        + (
            " A score is a predicted mean opinion score. A regression may overshoot the ends of "
            "the scale: pages show the end, tables keep the raw score, and one that is farther "
            "from all training scores than their standard deviation has a flag."
            if scored
            else ""
        )
    )
    yield ""
    faults = ", ".join(metric["distortions"][:-1])
    yield f"Distortions, each with its probability: {faults}; or {metric['distortions'][-1]}."
    yield ""
    if metric["saliency"]:
        views = ", ".join(f"{view['yaw_deg']}&deg;" for view in metric["views"])
        fractions = ", ".join(f"{view['clip_fraction']:g}" for view in metric["views"])
        yield (
            f"Saliency of the distortions: a map of each of three views (yaw {views}, taken at the "
            f"fractions {fractions} of the clip)."
        )
        yield ""
    yield f"The same as data: `{METRIC}` (with the percentiles of the training scores)."


def _usage(stage: str | None) -> Iterator[str]:
    unscored = stage == "text"
    yield (
        "With the Python package `lmme3dhf` installed; `MODEL` is this folder, or its name on the "
        "hub. In Python:"
    )
    yield ""
    yield "```python"
    yield "from lmme3dhf import Scorer"
    yield ""
    if unscored:
        yield 'Scorer.from_pretrained("MODEL", scores=False).score("face.mp4").quality.level'
    else:
        yield 'Scorer.from_pretrained("MODEL").score("face.mp4").quality.score'
    yield "```"
    yield ""
    yield "A folder of clips into a table:" if not unscored else "The clips of a list:"
    yield ""
    yield "```bash"
    if unscored:
        yield "lmme3dhf predict --model MODEL --data LIST.json --scores false --out answers.jsonl"
    else:
        yield "lmme3dhf score clips/ --model MODEL --out scores.csv"
    yield "```"


def _tests(tests: list[dict[str, Any]]) -> Iterator[str]:
    if not tests:
        yield (
            "None yet. `lmme3dhf evaluate --predictions FILE --data LISTS --card MODEL` adds them."
        )
    for number, test in enumerate(tests):
        if number:
            yield ""
        yield from _test(test)


def _test(test: dict[str, Any]) -> Iterator[str]:
    faces = f" of {_shown(test['faces'])} faces" if test["faces"] else ""
    shared = {None: "", 0: ", none of them in training"}.get(
        test["faces_in_training"], f", {_shown(test['faces_in_training'])} of them also in training"
    )
    protocol = f", protocol {markdown_code(test['protocol'])}" if test["protocol"] else ""
    decoders = ", ".join(markdown_code(name) for name in test["decoders"]) or "not recorded"
    kind = ", synthetic" if test["synthetic"] else ""
    yield (
        f"{markdown_code(test['data'])}{kind}, part {markdown_code(test['part'])}: "
        f"{_shown(test['videos'])} videos{faces}{shared}{protocol}. Decoder: {decoders}."
    )
    yield ""
    yield from markdown_table(
        ("", "this model", "to compare with"), list(_figures(test["figures"]))
    )
    yield ""
    yield (
        "SRCC, PLCC and KRCC: Spearman's, Pearson's (no curve fitted) and Kendall's correlation of "
        "predicted and opinion scores. Jaccard: categories both named and true, divided by those "
        "named or true." + (" So few videos give rough figures." if test["videos"] < _FEW else "")
    )
    yield ""
    yield f"Predictions: SHA-256 {markdown_code(test['predictions_sha256'][:16])}."


def _figures(figures: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for dimension, found in _rated(figures):
        shown = " / ".join(_three(found.get(key)) for key in ("srcc", "plcc", "krcc"))
        ceiling = found.get("ceiling")
        beside = f"raters' noise allows {_three(ceiling)} (SRCC)" if _known(ceiling) else ""
        yield f"{dimension}: SRCC / PLCC / KRCC", shown, beside
    if found := figures.get("level"):
        majority = found.get("majority")
        beside = f"most frequent level {_three(majority)}" if _known(majority) else ""
        yield "level: accuracy", _three(found.get("accuracy")), beside
    if found := figures.get("distortion"):
        majority = found.get("majority")
        beside = f"majority answer {_three(majority)} (Jaccard)" if _known(majority) else ""
        shown = f"{_three(found.get('accuracy'))} / {_three(found.get('exact'))}"
        yield "distortions: Jaccard / whole answer right", shown, beside
    if found := figures.get("saliency"):
        keys = ("auc", "nss", "cc", "sim", "kld")
        shown = " / ".join(_three(found.get(key)) for key in keys)
        mean_map = [found.get(f"mean_map_{key}") for key in ("auc", "cc")]
        beside = ""
        if all(_known(value) for value in mean_map):
            beside = "mean training map: AUC {}, CC {}".format(*map(_three, mean_map))
        out = [f"{count} without any mark"] if (count := found.get("skipped")) else []
        absent = len(found.get("not_looked_at", ()))
        out += [f"{absent} that no marker looked at"] if absent else []
        on = f" ({found.get('n')} videos, {' and '.join(out)} left out)" if out else ""
        yield f"saliency: AUC / NSS / CC / SIM / KLD{on}", shown, beside


def _data(record: dict[str, Any]) -> Iterator[str]:
    known = [entry for entry in record["stages"] if entry["data"]]
    if not known:
        yield "Not recorded."
        return
    rows = []
    for entry in known:
        data = entry["data"]
        split = data["split"] or {}
        counts = (split.get("parts") or {}).items()
        parts = ", ".join(_shown(f"{part} {count}") for part, count in counts)
        faces = f" of {data['faces']} faces" if data["faces"] else ""
        rows.append(
            (
                _stage(entry),
                markdown_code(data["name"]) + (" (synthetic)" if data["synthetic"] else ""),
                _shown(f"{data['questions']} on {data['videos']} videos{faces}"),
                ", ".join(markdown_code(name) for name in data["lists"]),
                (f"{parts}; " if parts else "")
                + (f"SHA-256 {markdown_code(split['sha256'][:16])}" if split else "not recorded"),
            )
        )
    yield from markdown_table(("stage", "data set", "questions", "lists", "split (videos)"), rows)


def _training(record: dict[str, Any]) -> Iterator[str]:
    base = record["base"]
    if base:
        name = base["name"]
        is_linked = base["hub"] and _HUB_NAME.fullmatch(name)
        link = f"[{name}](https://huggingface.co/{name})"
        yield f"It started from {link if is_linked else markdown_code(base['name'])}."
        yield ""
    stages = record["stages"]
    if not stages or stages[0]["stage"] != "text":
        yield "What came before the stages below is not recorded." if stages else "Not recorded."
        yield ""
    rows = []
    for entry in stages:
        hardware, merge = entry["hardware"] or {}, entry["merge"] or {}
        device = hardware.get("device", "not recorded")
        count = hardware.get("processes", 1)
        rows.append(
            (
                _stage(entry),
                markdown_code(entry["settings_sha256"][:16]) if entry["settings_sha256"] else "",
                _shown(f"{count} x {device}" if count > 1 else device),
                _merge(merge),
            )
        )
    if rows:
        header = ("stage", "settings (SHA-256)", "trained on", "merged against trained")
        yield from markdown_table(header, rows)
        yield ""
    versions = stages[-1]["versions"] if stages else None
    if versions:
        listed = ", ".join(_shown(f"{name} {number}") for name, number in versions.items())
        yield f"Versions (last stage): {listed}."
        yield ""
    for entry in stages:
        if entry["settings"]:
            yield f"<details><summary>Settings of stage {_stage(entry)}</summary>"
            yield ""
            settings = yaml.safe_dump(entry["settings"], sort_keys=False, allow_unicode=True)
            # No line of the settings ends the block.
            fence = "~" * max(4, *(1 + len(run) for run in re.findall("~+", settings)), 0)
            yield f"{fence}yaml"
            yield settings.rstrip()
            yield fence
            yield ""
            yield "</details>"
            yield ""


def _merge(merge: dict[str, Any]) -> str:
    if not merge:
        return ""
    if "form" not in merge:  # of a version that knew one form and one figure
        return f"relative difference {merge['relative_difference']:.2g} (limit {merge['limit']:g})"
    kept = "adapter kept beside: " if merge["form"] == "adapter" else ""
    return kept + merge_figures(merge)


def _limits(config: dict[str, Any], metric: dict[str, Any]) -> Iterator[str]:
    frames = metric["frames"]
    if frames:
        count = frames.get("frames")
        taken = f"{count} frames of a clip" if count else f"{frames.get('fps')} frames a second"
        low, high = frames.get("min_pixels"), frames.get("max_pixels")
        area = f"{low} pixels each" if low == high else f"{low} to {high} pixels each"
        how = f" (here: {_shown(f'{taken}, {area}')})"
    else:
        how = ""
    yield (
        f"- Scores belong to a decoder (here: {metric['decoder']}) and to how frames are taken"
        f"{how}. Do not compare them with scores that were made otherwise."
    )
    yield (
        "- It expects turntable clips: one head that turns from -90&deg; to +90&deg;. Other clips "
        "get scores, too, but nobody tested what those mean."
    )
    yield (
        "- It rates how a face looks, for comparing generators. It is no face recognition, tells "
        "nothing about a person, and is no detector of forgeries."
    )
    yield (
        "- Opinions are those of the raters of its training data; other people may see it "
        "otherwise. Small differences between two clips mean little: compare means over many, with "
        "intervals."
    )
    yield "- Scores may be wrong for generators and distortions that were not in the training data."


def _licence(record: dict[str, Any]) -> Iterator[str]:
    base = record["base"] or {}
    name = base.get("license_name") or base.get("license")
    licence = f"the licence of the base is {markdown_code(name)}" if name else "its licence stands"
    yield "- Code (`lmme3dhf`): Apache-2.0."
    yield f"- Weights: derived from {markdown_code(base.get('name') or 'a Qwen2.5-VL')}; {licence}."
    synthetic = [(entry.get("data") or {}).get("synthetic") for entry in record["stages"]]
    if synthetic and all(synthetic):
        yield "- Training data: drawn by the renderer of `lmme3dhf`; no photograph of anybody."
    else:
        yield (
            "- Training data: Gen3DHF and other data sets have licences of their own; read them "
            "before you publish what was trained on them."
        )


def _stage(entry: dict[str, Any]) -> str:
    number = {"text": "1", "score": "2", "saliency": "3"}.get(entry["stage"], "?")
    return f"{number} ({_shown(entry['stage'])})"


def _shown(value: Any) -> str:
    """What a record says, as Markdown: records of other people's folders may say anything."""
    return markdown_text(str(value))


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and value == value


def _two(value: Any) -> str:
    return f"{value:.2g}" if _known(value) else "undefined"


def _three(value: Any) -> str:
    return f"{value:.3f}" if _known(value) else "undefined"
