"""The released scripts, under their names: train_LLM.sh, merge_lora.sh, inference_text.py and the
others, in the root and in `evaluate/`.

Each becomes an ordinary `lmme3dhf train`, `merge` or `predict`; there is no other way to run. What
used to be edited into the files is found in the folder, or told.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmme3dhf.cli import main
from lmme3dhf.cli.habits import (
    INFERENCE,
    MERGING,
    TRAINING,
    Old,
    OldHabitError,
    translated_words,
)
from lmme3dhf.distributed import is_main

RUNS = Path("output")  # where the stage scripts write, in the folder that they are started from
# Where a data set may lie, the released lists' own place last.
_DATA = ("Gen3DHF", "datasets/Gen3DHF", "datasets")
_WRONG_ARGUMENTS = 2


@dataclass(frozen=True)
class Script:
    """One of the released scripts.

    Attributes:
        verb: The words that it stands for.
        options: Old option -> what became of it.
        ready: Makes the words complete, from what lies in the folder.
        stage: Of training: text, score or saliency.
        result: Name of the folder or file that it leaves below `output/`.
    """

    verb: tuple[str, ...]
    options: Mapping[str, Old]
    ready: Callable[[str, list[str]], list[str]]
    stage: str = ""
    result: str = ""


def started(name: str, words: Sequence[str]) -> int:
    """Runs one of the scripts; returns the exit status (see `lmme3dhf.cli`).

    Args:
        name: Its file name.
        words: What it was given.
    """
    script = SCRIPTS[name]
    try:
        translated, notes = translated_words(
            words, script.options, stage=script.stage, result=script.result
        )
        translated = script.ready(name, translated)
    except OldHabitError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return _WRONG_ARGUMENTS
    for note in notes if is_main() else ():
        print(f"{name}: {note}", file=sys.stderr)
    return main([*script.verb, *translated])


def finished_runs(folder: Path) -> list[tuple[Path, str]]:
    """Runs below a folder that seem finished, the newest first, each with its stage."""
    runs = []
    for manifest in folder.glob("*/manifest.json"):
        record = manifest.with_name("run.json")
        try:
            stage = json.loads(record.read_text(encoding="utf-8"))["stage"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        runs.append((manifest.stat().st_mtime_ns, manifest.parent, stage))
    return [(run, stage) for _, run, stage in sorted(runs, reverse=True)]


def _run_of(path: str) -> str:
    """The run folder that a path names, or that it lies in: its adapter, a checkpoint, what was
    merged.
    """
    for folder in (Path(path), *Path(path).absolute().parents[:2]):
        if (folder / "run.json").is_file():
            return str(folder)
    return path


def _merged(path: str) -> str:
    """The model that was merged from a run folder; any other path stays."""
    run = Path(path)
    if run.name == "merged" and not run.exists():
        run = run.parent
    if not (run / "run.json").is_file():
        return path
    if not (run / "merged" / "config.json").is_file():
        raise OldHabitError(f"{run} is not merged yet: ./merge_lora.sh --adapter {run}")
    return str(run / "merged")


def _ready_to_train(name: str, words: list[str]) -> list[str]:
    """`--model` of a run becomes what was merged from it."""
    return _with_merged_models(words)


def _with_merged_models(words: list[str]) -> list[str]:
    found = list(words)
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option == "--model" and equals:
            found[place] = f"--model={_merged(value)}"
        elif word == "--model" and place + 1 < len(words):
            found[place + 1] = _merged(words[place + 1])
    return found


def _ready_to_merge(name: str, words: list[str]) -> list[str]:
    """The run in place of one of its folders; where none is named, the newest one that waits."""
    if {"-h", "--help"} & set(words):
        return words
    place = next((i for i, word in enumerate(words) if _is_argument(words, i)), None)
    if place is not None:
        return [*words[:place], _run_of(words[place]), *words[place + 1 :]]
    heads = name == "merge_mlp.py"
    runs = [run for run, stage in finished_runs(RUNS) if stage == "score" or not heads]
    if not runs:
        raise OldHabitError(
            f"no finished run in {RUNS.absolute()}; train first "
            f"({'./train_MLP.sh' if heads else './train_LLM.sh'}), or name a run: "
            f"{_called(name)} --adapter RUN"
        )
    waiting = [run for run in runs if not (run / "merged" / "manifest.json").is_file()]
    return [str((waiting or runs)[0]), *words]


def _is_argument(words: list[str], place: int) -> bool:
    """Whether a word of `merge`, whose options take one value each, stands for itself."""
    before = words[place - 1] if place else ""
    return not words[place].startswith("-") and not (before.startswith("--") and "=" not in before)


def _ready_to_predict(name: str, words: list[str]) -> list[str]:
    """`--model` of a run becomes its merged folder; what is not given is told by an example."""
    if {"-h", "--help"} & set(words):
        return words
    given = {word.partition("=")[0] for word in words}
    missing = [option for option in ("--model", "--data") if option not in given]
    if missing:
        raise OldHabitError(
            f"nothing is edited here any more; {' and '.join(missing)} to be given: "
            f"{_example(name)}"
        )
    if "--out" not in given:
        words = [*words, "--out", str(RUNS / SCRIPTS[name].result)]
    return _with_merged_models(words)


def _example(name: str) -> str:
    """The whole command, with a merged run and a data set that are there where they are."""
    here = [folder for folder in (RUNS, Path("..") / RUNS) if folder.is_dir()]
    wanted = {"inference_text.py": ("text", "score"), "inference_precise.sh": ("score",)}
    merged = [
        run / "merged"
        for folder in here
        for run, stage in finished_runs(folder)
        if stage in wanted.get(name, ("saliency",)) and (run / "merged").is_dir()
    ]
    data = "numerical/eval_quality.json" if name.endswith(".sh") else "text/eval_quality.json"
    roots = [Path(up, root) for up in (".", "..") for root in _DATA]
    root = next((root for root in roots if (root / data).is_file()), Path("..", "Gen3DHF"))
    model = merged[0] if merged else Path("..", RUNS, "stage2", "merged")
    return (
        f"{_called(name)} --model {model} --data {root / data} --video_root {root / 'video_RGB'} "
        f"--out {RUNS / SCRIPTS[name].result}"
    )


def _called(name: str) -> str:
    return f"./{name}" if name.endswith(".sh") else f"python {name}"


def _train(stage: str, result: str) -> Script:
    return Script(("train", stage), TRAINING, _ready_to_train, stage, result)


def _predict(result: str, *words: str) -> Script:
    verb = ("predict", *words, "--evaluate", "true")
    return Script(verb, INFERENCE, _ready_to_predict, result=result)


SCRIPTS = {
    "train_LLM.sh": _train("text", "stage1"),
    "train_MLP.sh": _train("score", "stage2"),
    "train_saliency.sh": _train("saliency", "stage3"),
    "merge_lora.sh": Script(("merge",), MERGING, _ready_to_merge),
    "merge_mlp.py": Script(("merge",), MERGING, _ready_to_merge),
    "inference_text.py": _predict(
        "inference_text.jsonl", "--scores", "false", "--write_text", "true", "--maps", "false"
    ),
    "inference_precise.sh": _predict("inference_precise.jsonl", "--maps", "false"),
    "inference_saliency.py": _predict(
        "inference_saliency.jsonl", "--ratings", "false", "--answers", "none", "--maps", "true"
    ),
}

if __name__ == "__main__":
    sys.exit(started(sys.argv[1], sys.argv[2:]))
