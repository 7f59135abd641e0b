"""Every command of the README and of three pages of docs/, and every piece of Python in them, runs:
read from the page, in a folder laid out as the page assumes, on the tiny model and a small data
set, one training step a stage.

Commands run as they are printed, but for what `REPLACED` and `NOT_RUN` declare. What stands in
neither and cannot run fails, so nothing is passed over.
"""

import contextlib
import io
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser

from lmme3dhf import cli
from lmme3dhf.files import replace_file

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/guide.md", "docs/own-data.md", "docs/paper.md")
# What the pages assume to lie in the folder.
CHECKOUT = (
    *("configs", "scripts", "evaluate", "lmme3dhf", "env.yml", "download_dataset.py"),
    *("train_LLM.sh", "train_MLP.sh", "train_saliency.sh", "merge_lora.sh", "merge_mlp.py"),
)
OTHER_LANGUAGES = {"", "bibtex"}  # of blocks that are no commands

# The demo's settings on 50 clips, a step a stage; the last `--config` wins.
SMALL = "--config small.yaml"
QUESTIONS = "Gen3DHF/{}/eval_quality.json --video_root Gen3DHF/video_RGB --out runs/{}.jsonl"
# Page (None: all), text in a command, what stands in its place, and why. Whole words, in order.
REPLACED = [
    (None, "bash scripts/demo.sh", f"lmme3dhf demo --out runs/demo {SMALL}", "without installing"),
    (
        "README.md",
        "--config configs/demo.yaml --out DIR",
        f"{SMALL} --synthetic.latents 3 --out drawn",
        "another set than that of the line before",
    ),
    (None, "--config configs/demo.yaml", SMALL, "small"),
    (None, "--config configs/paper.yaml", f"--config configs/paper.yaml {SMALL}", "no 7B, no GPU"),
    (None, "./train_LLM.sh", f"./train_LLM.sh {SMALL}", "no 7B, no GPU"),
    (None, "./train_MLP.sh", f"./train_MLP.sh {SMALL}", "no GPU"),
    (None, "./train_saliency.sh", f"./train_saliency.sh {SMALL}", "no GPU"),
    (
        None,
        "evaluate ablations",
        "evaluate ablations --only language default",
        "rows that train nothing",
    ),
    (None, "evaluate crossval", "evaluate crossval --only 0", "one fold"),
    (None, "lmme3dhf doctor", "lmme3dhf doctor --offline", "the hub may be out of reach"),
    (None, "datasets/splits/official.json", "Gen3DHF/splits.json", "2,000 clips are not here"),
    # Names that stand for something of the reader's.
    ("README.md", "--videos clips/", "--videos Gen3DHF/video_RGB", "clips that are rated"),
    ("README.md", "--model DIR", "--model runs/demo/model", "a placeholder"),
    ("README.md", "--video_root DIR", "--video_root Gen3DHF/video_RGB", "a placeholder"),
    ("README.md", "LIST.json", "Gen3DHF/numerical/eval_quality.json", "a placeholder"),
    ("README.md", "DIR_OR_FILE", "DIR", "a placeholder"),
    ("README.md", "text/eval_quality.json ...", QUESTIONS.format("text", "words"), "a placeholder"),
    (
        "README.md",
        "numerical/eval_quality.json ...",
        QUESTIONS.format("numerical", "scores"),
        "a placeholder",
    ),
]
# Beginning of a command, and why it does not run here. Its options are looked at all the same.
NOT_RUN = {
    "source .venv/bin/activate": "the tests run in an environment of their own",
    "conda": "needs conda",
    "bash scripts/test.sh": "runs this test",
    "python download_dataset.py": "a download; tests/data/test_download.py runs it on a fake hub",
    "lmme3dhf app": "serves until it is stopped; tests/app drives it in a browser",
    "accelerate launch": "starts four processes; tests/test_distributed.py starts two",
    "lmme3dhf evaluate crossval --only 0 --folds grouped --jobs 5": "needs five GPUs",
    "python -m lmme3dhf.stages.pretrain": "takes three hours",
    f"./train_LLM.sh {SMALL} --data.root Gen3DHF --config configs/presets": "needs a GPU",
    "python scripts/bench_metrics.py": "takes minutes; tests/metrics",
    "python -m lmme3dhf.metrics.agreement": "takes minutes; tests/metrics/test_agreement.py",
}
# Beginnings of commands that take long; without `-m slow` their options alone are looked at.
SLOW = (
    *("lmme3dhf evaluate ablations", "lmme3dhf evaluate crossval", "lmme3dhf report runs/"),
    *("python evaluate/figures.py", "lmme3dhf data stats my_data", "lmme3dhf data stats Gen3DHF"),
    *("lmme3dhf score clips/ --model output/", "lmme3dhf data synthesize", "lmme3dhf doctor"),
)
# Files of the reader's that a page names -> what they are here.
DATA = {
    "ratings.csv": "runs/demo/data/raw/ratings.csv",
    "remarks.csv": "runs/demo/data/raw/remarks.csv",
    "marks": "runs/demo/data/raw/marks",
    "clips": "runs/demo/data/video_RGB",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, its text."""

    line: int
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page."""
    found, opened = [], None
    for number, line in enumerate(page.splitlines(), 1):
        if not line.startswith("```"):
            if opened:
                opened[2].append(line)
        elif opened:
            found.append(Block(opened[0], opened[1], "\n".join(opened[2])))
            opened = None
        else:
            opened = (number, line.removeprefix("```"), [])
    assert opened is None, "a fence is left open"
    return found


def in_the_text(page: str) -> list[str]:
    """What is printed as code within the text of a page, in one line each."""
    text = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def commands(block: Block) -> Iterator[str]:
    """The commands of a block, without comments; lines that are continued are joined."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = re.sub(r"(^|\s)#.*", "", line).split()
        yield from filter(None, " ".join(words).split(" && "))


def replaced(page: str, command: str) -> str:
    """What runs in its place."""
    for where, old, new, _ in REPLACED:
        if where in (None, page):
            command = re.sub(rf"(?<!\S){re.escape(old)}(?!\S)", lambda _, new=new: new, command)
    return command


def runs(command: str, slow: bool) -> bool:
    """Whether it is more than looked at."""
    return not command.startswith(tuple(NOT_RUN) if slow else (*NOT_RUN, *SLOW))


# Running


@pytest.fixture
def started(monkeypatch):
    """Runs a command in this process, where importing torch costs nothing; returns its status."""

    def run(command: str) -> int:
        program, *words = shlex.split(command)
        if program == "lmme3dhf":
            return status(cli.main, words)
        if program == "python" and words[0] == "-m":
            return module(words[1], words[2:])
        if program == "python":
            monkeypatch.setattr(sys, "argv", words)
            monkeypatch.syspath_prepend(str((ROOT / words[0]).parent))  # as Python does
            return status(runpy.run_path, words[0], run_name="__main__")
        assert program.endswith(".sh"), f"neither run nor declared: {command}"
        return module(*of_script(Path(program), words))

    def module(name: str, words: list[str]) -> int:
        monkeypatch.setattr(sys, "argv", [name, *words])
        return status(runpy.run_module, name, run_name="__main__")

    return run


def status(function, *args, **options) -> int:
    """As the shell would have it."""
    try:
        result = function(*args, **options)
    except SystemExit as stop:
        return int(stop.code or 0) if isinstance(stop.code, int | None) else 1
    return result if isinstance(result, int) else 0


def of_script(script: Path, words: list[str]) -> tuple[str, list[str]]:
    """The module that one of our five-line scripts starts, and its words."""
    (last,) = [x for x in script.read_text().splitlines() if x.startswith("exec ")]
    last = last.replace("$here", str(script.parent))
    python, dash_m, name, *rest = shlex.split(last)[1:]
    assert python.endswith("scripts/python.sh")
    assert dash_m == "-m"
    assert rest[-1] == "$@"
    return name, [*rest[:-1], *words]


def look_at_options(command: str, run) -> None:
    """Of a command that does not run: the help of its program knows all of its options."""
    program, *words = shlex.split(command)
    options = {word.split("=")[0] for word in words if word.startswith("--")}
    if program in ("conda", "source", "bash"):
        assert program != "bash" or Path(words[0]).is_file(), command
        return
    if program == "accelerate":
        assert words.pop(0) == "launch"
        parsed = launch_command_parser().parse_args(words)
        assert Path(parsed.config_file).is_file(), command
        inner = [parsed.training_script, *parsed.training_script_args]
        assert run(shlex.join([*inner, "--print_config"])) == 0, command
        return
    # The words before the options, and the module or the verb's action.
    kept = words[: next((i for i, w in enumerate(words) if w.startswith("--")), len(words))]
    if program == "lmme3dhf" and words[0] == "evaluate":
        kept = words[:2]
    if program == "python" and words[0] == "-m":
        kept = words[:2]
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert run(shlex.join([program, *kept, "--help"])) == 0, command
    known = set(re.findall(r"--[\w.-]+", shown.getvalue()))
    assert options <= known | {"--config"}, (command, options - known)


# The folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run of the demo with the small settings, in a folder like a checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    lay_out(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(shlex.split(f"demo --out runs/demo {SMALL}")) == 0
    return folder


def lay_out(folder: Path) -> None:
    """What a checkout has, by links, and the small settings."""
    for name in CHECKOUT:
        (folder / name).symlink_to(ROOT / name)
    # Commands write here.
    shutil.copytree(ROOT / "datasets" / "splits", folder / "datasets" / "splits")
    settings = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    settings |= {"threads": 1, "data": {"workers": 0}}
    settings["synthetic"] |= {"latents": 5, "processes": 1}
    for stage in ("text", "score", "saliency"):
        settings[stage]["trainer"] |= {"max_steps": 1, "bf16": False, "optim": "adamw_torch"}
    replace_file(folder / "small.yaml", yaml.safe_dump(settings))


@pytest.fixture
def scratch(finished, tmp_path, monkeypatch) -> Path:
    """The folder that a page's commands run in, with a reader's files beside the checkout's."""
    lay_out(tmp_path)
    shutil.copytree(finished / "runs", tmp_path / "runs")
    data = tmp_path / "runs" / "demo" / "data"
    shutil.copytree(data, tmp_path / "Gen3DHF", ignore=shutil.ignore_patterns("raw", "features"))
    for name, source in DATA.items():
        (tmp_path / name).symlink_to(tmp_path / source)
    clip = min((data / "video_RGB").iterdir())
    (tmp_path / "more").mkdir()
    for name in ("face.mp4", "more/face.mp4"):
        shutil.copy(clip, tmp_path / name)
    rows = [f"{path.stem},{i},{i}" for i, path in enumerate(sorted(clip.parent.iterdir()))]
    (tmp_path / "niqe.csv").write_text("\n".join(["video,quality,authenticity", *rows]) + "\n")
    rows = [
        f"{rater},{path.stem},{1 + (i + rater) % 5},{(3 * i + rater) % 11}"
        for i, path in enumerate(sorted(clip.parent.iterdir()))
        for rater in range(3)
    ]
    table = "\n".join(["subject,video,natural,noise", *rows]) + "\n"
    (tmp_path / "natural_noise.csv").write_text(table)
    (tmp_path / "maps").symlink_to(data / "saliency_map")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of_two_generators(folder: Path) -> None:
    """Clips that are named after their generators."""
    clips = sorted((folder / "clips").resolve().iterdir())
    (folder / "clips").unlink()
    (folder / "clips").mkdir()
    for index, clip in enumerate(clips[:8]):
        shutil.copy(clip, folder / "clips" / f"{'ab'[index % 2]}_{index}.mp4")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # by runpy
@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs(page, slow, scratch, started, capfd):
    """In the order of the page, each once. Catches an option that was renamed, a file that is no
    longer written where the next line looks for it, and Python that was never tried.
    """
    if page in ("README.md", "docs/guide.md"):
        of_two_generators(scratch)
    if not slow:
        # What the commands leave that are not run.
        shutil.copytree(scratch / "runs" / "demo", scratch / "runs" / "paper")
    names: dict = {}
    ran: set[str] = set()
    for block in blocks((ROOT / page).read_text(encoding="utf-8")):
        if block.language == "python":
            exec(compile(block.text, f"{page}:{block.line}", "exec"), names)
            continue
        if block.language == "yaml":
            (scratch / "aspects.yaml").write_text(block.text)
            continue
        if block.language != "bash":
            assert block.language in OTHER_LANGUAGES, f"{page}:{block.line}"
            continue
        for command in map(lambda c: replaced(page, c), commands(block)):
            if command in ran:
                continue
            if not runs(command, slow):
                look_at_options(command, started)
                continue
            ended = started(command)
            said = capfd.readouterr()
            assert ended == 0, f"{page}:{block.line}: {command}\n{said.out}\n{said.err}"
            ran.add(command)
    assert len(ran) >= 4


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # by runpy
def test_commands_in_the_text_are_there(tmp_path, started, monkeypatch):
    """With their options; they do not run here. Catches an option that a sentence goes on praising
    after it was renamed, and a script that is gone.
    """
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    looked_at = 0
    for page in PAGES:
        for code in in_the_text((ROOT / page).read_text(encoding="utf-8")):
            if code.startswith(("lmme3dhf ", "python ")) and "<" not in code:
                look_at_options(replaced(page, code), started)
                looked_at += 1
            elif re.fullmatch(r"[\w./-]+/[\w-]+\.(py|sh|yaml)", code):
                assert (ROOT / code).is_file(), f"{page}: {code}"
                looked_at += 1
    assert looked_at > 10


def test_nothing_is_declared_that_is_not_there():
    """Catches a row that outlived its command, and would hide the next one."""
    printed = [
        (page, command)
        for page in PAGES
        for block in blocks((ROOT / page).read_text(encoding="utf-8"))
        if block.language == "bash"
        for command in commands(block)
    ]
    for start in (*NOT_RUN, *SLOW):
        assert any(replaced(p, c).startswith(start) for p, c in printed), start
    for where, old, *_ in REPLACED:
        assert any(old in c for p, c in printed if where in (None, p)), old
