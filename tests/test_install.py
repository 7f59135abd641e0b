"""The ways to install: the lock against pyproject.toml, env.yml, and what scripts/install.sh asks
pip for (a stand-in writes that down; nothing is installed).
"""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
LINUX = {"platform_machine": "x86_64", "sys_platform": "linux", "platform_system": "Linux"}


def declared(python: str) -> list[Requirement]:
    """What `.[test]` asks for on a Python; read from the text, since Python 3.10 has no tomllib."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = []
    for name in ("dependencies", "test"):
        (block,) = re.findall(rf"^{name} = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
        found += [Requirement(line) for line in re.findall(r'^    "(.+?)"', block, re.MULTILINE)]
    environment = LINUX | {"python_version": python}
    return [one for one in found if one.marker is None or one.marker.evaluate(environment)]


def locked(python: str) -> dict[str, str]:
    """Version by package on a Python."""
    text = LOCK.read_text(encoding="utf-8")
    versions: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        one = Requirement(line)
        if one.marker is not None and not one.marker.evaluate({"python_version": python}):
            continue
        (pin,) = one.specifier
        assert pin.operator == "==", line
        assert "*" not in pin.version, line
        name = canonicalize_name(one.name)
        assert name not in versions, f"{name} twice for Python {python}"
        versions[name] = pin.version
    return versions


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_is_within_the_declared_ranges(python):
    """Catches a bound that was raised, or a dependency that was added, without a new lock."""
    wanted, versions = declared(python), locked(python)
    assert len(wanted) > 25
    for one in wanted:
        version = versions.get(canonicalize_name(one.name))
        assert version is not None, f"{one.name} is not in {LOCK.name}"
        assert one.specifier.contains(version), f"{one} and {version}"


@pytest.mark.parametrize("python", PYTHONS)
def test_torch_and_torchvision_are_a_pair(python):
    """torchvision's minor releases are 15 ahead of torch's (0.25 for 2.10, 0.29 for 2.14)."""
    torch, vision = (locked(python)[name].split(".") for name in ("torch", "torchvision"))
    assert (torch[0], vision[0]) == ("2", "0")
    assert int(vision[1]) == int(torch[1]) + 15


def test_conda_takes_the_lock():
    """There is no conda here: its pip part has to be lines of a requirements file beside env.yml.
    Catches a name of the lock that is no file, and extras that install.sh does not install.
    """
    content = yaml.safe_load((ROOT / "env.yml").read_text(encoding="utf-8"))
    (pip,) = [part["pip"] for part in content["dependencies"] if isinstance(part, dict)]
    assert pip == [f"--constraint {LOCK.name}", "--editable .[test]"]
    (python,) = [part for part in content["dependencies"] if "python=" in part]
    assert python.removeprefix("python=") in PYTHONS


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the files that installing reads, and a python3 that only writes down how it was
    called, also as the .venv's.
    """
    for name in ("pyproject.toml", LOCK.name, "scripts/install.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    stand_in = tmp_path / "bin" / "python3"
    stand_in.parent.mkdir()
    stand_in.write_text(
        '#!/bin/sh\necho "$@" >> calls.txt\n'
        '[ "$2" = venv ] && mkdir -p .venv/bin && cp bin/python3 .venv/bin/python\n'
        '[ ! -e refuse.txt ] || [ "$2" = venv ]\n'
    )
    stand_in.chmod(0o755)
    return tmp_path


def install(checkout: Path, mode: str | None = None) -> tuple[int, list[str], str]:
    """Runs install.sh; its status, pip's arguments in this run, and standard error."""
    calls = checkout / "calls.txt"
    calls.write_text("")
    done = subprocess.run(
        ["bash", str(checkout / "scripts" / "install.sh")],
        env={"PATH": f"{checkout / 'bin'}:/usr/bin:/bin"}
        | ({"LMME3DHF_INSTALL": mode} if mode else {}),
        cwd=checkout,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = calls.read_text().splitlines()
    return done.returncode, [line for line in lines if " pip " in line], done.stderr


def test_installing_takes_the_lock_unless_it_is_open(checkout):
    """Catches a mode that is not passed on, and an environment of the other mode that is kept:
    locked, then open, then locked again install three times.
    """
    for mode in (None, "open", "locked"):
        status, calls, _ = install(checkout, mode)
        assert status == 0
        assert len(calls) == 2  # pip, and the project
        assert all(("--constraint requirements.lock" in call) == (mode != "open") for call in calls)
        assert calls[-1].endswith("--editable .[test]")
        assert install(checkout, mode) == (0, [], "")


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock"])
def test_a_change_installs_again(checkout, name):
    """Catches a stamp that does not depend on the lock."""
    install(checkout)
    with (checkout / name).open("a") as file:
        file.write("# changed\n")
    assert install(checkout)[1]


def test_an_install_that_failed_is_tried_again(checkout):
    """Catches a stamp from before that outlives a failure, and a failure without a way out."""
    install(checkout)
    (checkout / "refuse.txt").touch()
    assert install(checkout, "open")[0] != 0
    (checkout / "refuse.txt").unlink()
    assert install(checkout)[1]


def test_an_unknown_mode_is_refused(checkout):
    """Catches a misspelt `open` that silently installs the lock."""
    status, calls, error = install(checkout, "opne")
    assert (status, calls) == (2, [])
    assert "LMME3DHF_INSTALL" in error
    assert "locked or open" in error


def test_lines_of_a_lock():
    """By hand: one version, one that changes at 3.12, one in the middle, one that only 3.10 has."""
    spec = importlib.util.spec_from_file_location("lock", ROOT / "scripts" / "lock.py")
    lock = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lock)
    assert lock.lines(
        {
            "3.10": {"a": "1", "b": "1", "c": "1", "d": "1"},
            "3.11": {"a": "1", "b": "1", "c": "2"},
            "3.12": {"a": "1", "b": "2", "c": "3", "lmme3dhf": "0"},
        }
    ) == [
        "a==1",
        "b==1; python_version < '3.12'",
        "b==2; python_version >= '3.12'",
        "c==1; python_version < '3.11'",
        "c==2; python_version >= '3.11' and python_version < '3.12'",
        "c==3; python_version >= '3.12'",
        "d==1",
    ]
