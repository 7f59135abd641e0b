"""Rules of the project that no single test file can hold: who imports whom, what is never written,
and what never lies in the repository. Each guard asserts that it looked at something.
"""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lmme3dhf"

# Imports go down only. The top of the package (`lmme3dhf`) is looked at separately.
FLOORS = {
    "vocabulary": 0,
    "errors": 0,
    "aspects": 0.5,
    "escaping": 0,
    "files": 0.5,
    "jsonl": 1,
    "sheets": 1,
    "progress": 0,
    "distributed": 0,
    "departures": 0,
    "models": 1,
    "assessment": 1,
    "annotations": 2,
    "config": 2,
    "predictions": 2,
    "scores": 2,
    "metrics": 2,
    "data": 3,
    "training": 3,
    "features": 3,
    "reports": 3,
    "baselines": 3.5,
    "stages": 4,
    "scorer": 4,
    "describe": 4,
    "doctor": 4,
    "comparison": 4,
    "generators": 4,
    "pipeline": 5,
    "reward": 5,
    "app": 5,
    "cli": 6,
}
# What the models and the data both know: how the backbone takes what it looks at.
SHARED = {"models.backbone"}
# The only imports along a floor: features are those of clips, and prediction drives the scorer.
SIDEWAYS = {("features", "data"), ("stages", "scorer")}

# Heavy library -> the modules (or packages, with a dot) that may import it.
_LANGUAGE_MODEL = ("models.", "training", "data.dialogue", "data.pixels", "features.", "scorer")
DOORS = {
    "transformers": (*_LANGUAGE_MODEL, "stages.", "doctor.probes"),
    "peft": ("models.", "training", "stages.", "doctor.probes"),
    "tokenizers": ("models.",),
    "matplotlib": ("reports.plots.",),
    "qwen_vl_utils": ("data.video",),
    "av": ("data.container", "data.synthetic.render", "doctor.probes"),
    "jinja2": ("reports.",),
    "jsonargparse": ("config", "cli."),
    "accelerate": ("distributed", "training"),
    "gradio": ("app.page",),
}
WITHOUT_TORCH = (
    "vocabulary",
    "aspects",
    "errors",
    "escaping",
    "files",
    "distributed",
    "config",
    "cli",
    "annotations",
    "assessment",
    "predictions",
    "scores",
    "metrics",
    "reports",
    "describe",
    "doctor",
    "baselines",
    "comparison",
    "generators",
    "app",
)
# Settings stop at the door: everything else takes plain keywords.
KNOWS_CONFIG = ("config", "stages", "pipeline", "cli")


def sources(*folders: str) -> list[Path]:
    """Python files below folders of the project, at least one in each."""
    found = []
    for folder in folders:
        below = sorted((ROOT / folder).rglob("*.py"))
        assert below, folder
        found += below
    return found


def name_of(path: Path) -> str:
    """ "data.synthetic.bust" for a file of the package; "" for its top."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[str]:
    """Everything that a file imports anywhere in it, as dotted names."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            # `from lmme3dhf.stages import run` imports the module `run`.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


PACKAGE_FILES = sources("lmme3dhf")
ALL_FILES = [*sources("lmme3dhf", "scripts", "evaluate", "tests"), *sorted(ROOT.glob("*.py"))]
MODULES = {name_of(path): path for path in PACKAGE_FILES}


def own_imports(path: Path) -> set[str]:
    """The package's modules that a file imports."""
    found = {name.removeprefix("lmme3dhf.") for name in imports(path)}
    return found & set(MODULES)


def test_imports_go_down_only():
    """Catches a metric that knows a model, a trainer that knows its stages, and a new module that
    nobody put on a floor.
    """
    looked_at, sideways = 0, set()
    for name, path in MODULES.items():
        if not name:
            continue
        here = name.split(".")[0]
        assert here in FLOORS, f"{path}: give it a floor"
        for other in own_imports(path):
            there = other.split(".")[0]
            if there == here:
                continue
            looked_at += 1
            if (here, there) in SIDEWAYS:
                sideways.add((here, there))
                continue
            assert FLOORS[there] < FLOORS[here], f"{path} imports {other}"
    assert looked_at > 50
    assert sideways == SIDEWAYS


def test_models_and_data_do_not_know_each_other():
    """They meet in the stages and the scorer. The floors alone would let data import models."""
    looked_at = 0
    for here, there in (("data", "models"), ("models", "data"), ("training", "data")):
        for name, path in MODULES.items():
            if name.split(".")[0] == here:
                known = {o for o in own_imports(path) if o.split(".")[0] == there}
                assert known <= SHARED, path
                looked_at += 1
    assert looked_at > 15


def test_there_is_no_circle():
    """Between modules, packages counted as one with their __init__."""
    graph = {name: own_imports(path) - {name} for name, path in MODULES.items() if name}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert len(order) >= len(graph) > 30


def test_the_lowest_floor_imports_nothing_of_ours():
    """Words, errors and the escaping of text are there for everybody, files included."""
    for name in ("vocabulary", "errors", "escaping"):
        assert FLOORS[name] == min(FLOORS.values())
        assert list(imports(MODULES[name])) or name == "errors"
        assert not own_imports(MODULES[name])


def test_heavy_libraries_come_in_by_their_doors():
    """Catches a library that spreads: the next change of its interface would be everywhere."""
    used = set()
    for name, path in MODULES.items():
        for library in {imported.split(".")[0] for imported in imports(path)} & set(DOORS):
            allowed = any(
                name == door or (door.endswith(".") and f"{name}.".startswith(door))
                for door in DOORS[library]
            )
            assert allowed, f"{path} imports {library}"
            used.add(library)
    assert used == set(DOORS)


def test_settings_stop_at_the_door():
    """Catches a function that takes the whole configuration in place of plain keywords."""
    knowing = {
        name.split(".")[0]
        for name, path in MODULES.items()
        if name != "config" and "config" in own_imports(path)
    }
    assert knowing
    assert knowing <= set(KNOWS_CONFIG)


def test_tables_are_remade_without_torch():
    """In a fresh interpreter, through everything that is imported on the way: metrics, annotations,
    predictions and reports run on a laptop, and help is quick.
    """
    names = [f"lmme3dhf.{name}" for name in MODULES if name.split(".")[0] in WITHOUT_TORCH]
    assert len(names) > 12
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_importing_the_package_imports_nothing_else_of_it():
    """`lmme3dhf.Scorer` is found on demand. Catches a package whose name alone costs seconds."""
    top = tree_of(MODULES[""])
    at_once = [node for node in top.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [alias.name for node in at_once for alias in node.names]
    names += [node.module for node in top.body if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.split(".")[0] in ("lmme3dhf", "torch")]
    assert "Scorer" in MODULES[""].read_text(encoding="utf-8")


def test_no_module_is_a_drawer():
    """Catches the first utils.py, which would not stay the last, and old copies beside the new."""
    drawer = re.compile(r"(^|_)(utils?|common|misc|helpers?|legacy|old|new|copy|v\d+)(_|$)")
    assert drawer.search("image_utils")
    assert drawer.search("common")
    assert not drawer.search("annotations")
    names = {part for path in ALL_FILES for part in path.relative_to(ROOT).with_suffix("").parts}
    assert len(names) > 50
    assert not sorted(name for name in names if drawer.search(name))


def test_data_folders_are_no_packages():
    """With an __init__.py the folder datasets/ would hide the library of that name, and Trainer
    crashes.
    """
    for folder in ("datasets", "evaluate", "scripts", "configs"):
        assert list((ROOT / folder).iterdir()), folder
        assert not list((ROOT / folder).rglob("__init__.py")), folder
    assert not list((ROOT / "datasets").rglob("*.py"))


def test_nothing_is_pickled():
    """Catches files that run code when somebody opens them."""
    forbidden = {
        "pickle",
        "cPickle",
        "_pickle",
        "dill",
        "cloudpickle",
        "joblib",
        "shelve",
        "marshal",
    }
    calls = 0
    for path in [*sources("lmme3dhf", "scripts", "evaluate"), *sorted(ROOT.glob("*.py"))]:
        assert not {name.split(".")[0] for name in imports(path)} & forbidden, path
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call):
                continue
            calls += 1
            given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            assert not given.get("allow_pickle"), f"{path}:{node.lineno}"
            if ast.unparse(node.func) == "torch.load":
                assert given.get("weights_only") is True, f"{path}:{node.lineno}"
            assert ast.unparse(node.func) != "torch.save", f"{path}:{node.lineno}"
    assert calls > 1000


MACHINE_PATH = re.compile(
    r"(?<![\w.}$*])/(?:home|root|Users|work|mnt|data|opt|media|scratch|srv|tmp|private|workspace)/"
    r"|\b[A-Z]:\\\\?(?:Users|Program|home|data)"
)


def test_no_path_of_a_machine_is_written_down():
    """In code, settings and scripts. Catches somebody's home, which nobody else has."""
    for planted in ('"/home/me/x.mp4"', "root: /data/Gen3DHF", "C:\\Users\\me", "cd /work/main"):
        assert MACHINE_PATH.search(planted), planted
    for harmless in ("out/data/x", "../shared/data/x", "#!/usr/bin/env bash", "${HERE}/data/x"):
        assert not MACHINE_PATH.search(harmless), harmless
    folders = ("lmme3dhf", "configs", "scripts", "evaluate", ".ci")
    kinds = {".py", ".sh", ".yaml", ".yml", ".json", ".toml", ".md", ""}
    files = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.is_file()]
    files += [p for p in ROOT.iterdir() if p.is_file() and p.suffix in kinds - {""}]
    files = [p for p in files if p.suffix in kinds and "__pycache__" not in p.parts]
    assert len(files) > 40
    for path in files:
        found = MACHINE_PATH.search(path.read_text(encoding="utf-8"))
        assert not found, f"{path}: {found[0]}"


def public_definitions(node: ast.AST) -> Iterator[ast.AST]:
    """Public functions and classes, and the public methods of public classes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if child.name.startswith("_"):
                continue
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public_definitions(child)


def test_everything_public_is_documented():
    """Functions, classes and methods of the package and the scripts."""
    looked_at = 0
    for path in [*PACKAGE_FILES, *sources("scripts", "evaluate"), *sorted(ROOT.glob("*.py"))]:
        tree = tree_of(path)
        assert ast.get_docstring(tree) or not tree.body, f"{path}: what is this module?"
        for node in public_definitions(tree):
            looked_at += 1
            assert ast.get_docstring(node), f"{path}:{node.lineno}: {node.name}"
    assert looked_at > 150


def test_every_test_says_which_fault_it_catches():
    """Catches a test without a reason: nobody would know whether its failure matters."""
    looked_at = 0
    for path in sources("tests"):
        for node in tree_of(path).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                looked_at += 1
                assert ast.get_docstring(node), f"{path}:{node.lineno}: {node.name}"
    assert looked_at > 150


def test_no_exception_is_swallowed_whole():
    """Neither `except:` nor `except Exception`, unless it ends by raising again. Catches a sample
    that is lost without a word."""
    looked_at = 0
    for path in [*PACKAGE_FILES, *sources("scripts", "evaluate")]:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ExceptHandler):
                looked_at += 1
                caught = ast.unparse(node.type) if node.type else ""
                passed_on = isinstance(node.body[-1], ast.Raise)
                assert passed_on or caught not in ("", "Exception", "BaseException"), (
                    f"{path}:{node.lineno}"
                )
    assert looked_at > 10


def tracked_files() -> list[Path]:
    """What git holds; skips where the project is not a git checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(
        ["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    found = [ROOT / name for name in done.stdout.split("\0") if name]
    assert len(found) > 50
    return [path for path in found if path.exists()]


def test_nothing_large_or_foreign_is_in_the_repository():
    """Catches weights, clips, notebooks and compiled files that were added by mistake."""
    for path in tracked_files():
        assert path.suffix.lower() not in (".mp4", ".ipynb", ".pyc", ".pt", ".bin"), path
        assert path.stat().st_size <= 10_000_000, path
        folders = set(path.relative_to(ROOT).parts)
        assert not {"__pycache__", ".ipynb_checkpoints", ".venv", "runs"} & folders, path
