"""What can be told of a machine without importing a heavy library: Python, versions, disk, memory,
cores.
"""

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from lmme3dhf.doctor.finding import FAULT, OK, WARNING, Finding

PROJECT = "lmme3dhf"
# Qwen2.5-VL-7B's files, and the same again merged.
_HUB_GB, _HERE_GB = 17, 20


def python() -> Finding:
    """The interpreter against what the project declares."""
    told = f"{platform.python_version()} ({sys.executable})"
    try:
        wanted = metadata.metadata(PROJECT).get("Requires-Python") or ""
    except metadata.PackageNotFoundError:
        return Finding(
            check="python",
            status=FAULT,
            message=f"{told}; {PROJECT} itself is not installed in it",
            fix="pip install -e . (in the checkout)",
        )
    from packaging.specifiers import SpecifierSet

    if not SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        return Finding(
            check="python",
            status=FAULT,
            message=f"{told}; expected {wanted}",
            fix="conda env create -f env.yml",
        )
    return Finding(check="python", status=OK, message=told)


def dependencies() -> Iterator[Finding]:
    """What is installed against the bounds that the installed project declares; one line for all
    that are right, one for each that is not. Extras: one line each.
    """
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(line) for line in metadata.requires(PROJECT) or ()]
        extras = metadata.metadata(PROJECT).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return  # `python` has told it
    right = 0
    for requirement in declared:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        wrong = _wrong(requirement)
        if wrong:
            yield wrong
        else:
            right += 1
    yield Finding(check="dependencies", status=OK, message=f"{right} are within their bounds")
    for extra in extras:
        of_extra = [r for r in declared if r.marker and r.marker.evaluate({"extra": extra})]
        yield _extra(extra, [r for r in of_extra if not r.marker.evaluate({"extra": ""})])


def _wrong(requirement: Any) -> Finding | None:
    """What is wrong with what is installed for a requirement; None for nothing."""
    from packaging.specifiers import SpecifierSet

    name = requirement.name
    fix = f"pip install '{name}{requirement.specifier}'"
    # Pinned to each other by build, so they are always installed together, unpinned.
    if name in ("torch", "torchvision"):
        fix = "pip install --force-reinstall torch torchvision"
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(check=name, status=FAULT, message="is not installed", fix=fix)
    if not requirement.specifier.contains(found, prereleases=True):
        message = f"{found} is installed, expected {requirement.specifier}"
        if name == "transformers" and found in SpecifierSet("<5.3"):
            message += " (before 5.3 a model's config.json can run code: CVE-2026-4372)"
        return Finding(check=name, status=FAULT, message=message, fix=fix)
    return None


def reinstalled(name: str) -> str:
    """The command that installs a dependency anew, as it is declared."""
    declared = re.compile(rf"{re.escape(name)}(?=[^\w.-])[^;]*")
    try:
        lines = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        lines = []
    bounds = next((found[0].strip() for line in lines if (found := declared.match(line))), name)
    return f"pip install --force-reinstall --no-deps '{bounds}'"


def _extra(extra: str, requirements: list[Any]) -> Finding:
    wrong = [found for found in map(_wrong, requirements) if found]
    check = f"extra {extra}"
    if wrong:
        # Of an extra that nobody installed, some may be there in any version.
        missing = [found for found in wrong if "not installed" in found.message]
        told = ", ".join(f"{found.check} {found.message}" for found in missing or wrong)
        return Finding(
            check=check,
            status=OK if missing else WARNING,
            message=f"{told}; optional",
            fix=f"pip install '{PROJECT}[{extra}]'",
        )
    versions = [f"{r.name} {metadata.version(r.name)}" for r in requirements]
    return Finding(check=check, status=OK, message=", ".join(versions))


def disks() -> Iterator[Finding]:
    """Room where the hub's cache is, and in the current folder."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()
    yield _disk("disk, hub cache", cache, _HUB_GB, "HF_HOME=A_LARGER_DISK")
    yield _disk("disk, here", Path.cwd(), _HERE_GB, "--out A_LARGER_DISK")


def _disk(check: str, folder: Path, wanted_gb: int, fix: str) -> Finding:
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    told = f"{free:.0f} GB free in {folder}"
    if not os.access(place, os.W_OK):
        return Finding(check=check, status=WARNING, message=f"{told}, not writable", fix=fix)
    if free < wanted_gb:
        lacking = f"{told}; the 7B model takes {wanted_gb} GB"
        return Finding(check=check, status=WARNING, message=lacking, fix=fix)
    return Finding(check=check, status=OK, message=told)


def memory() -> Finding:
    """RAM."""
    ram = psutil.virtual_memory()
    told = f"{ram.total / 1e9:.0f} GB, {ram.available / 1e9:.0f} GB free"
    if ram.available < 4e9:
        return Finding(
            check="memory",
            status=WARNING,
            message=f"{told}; a command needs about 3 GB, and the model where there is no GPU",
            fix="close other programs",
        )
    return Finding(check="memory", status=OK, message=told)


def cores() -> Finding:
    """CPU cores, and how many threads will compute."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS")
    told = f"{usable} usable of {os.cpu_count()}, OMP_NUM_THREADS {threads or 'not set'}"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if threads and threads.isdecimal() and int(threads) > (usable or 1):
        return Finding(
            check="cpu",
            status=WARNING,
            message=f"{told}: more threads than cores wait for each other",
            fix=f"OMP_NUM_THREADS={usable}",
        )
    if not threads and load > 0.5 * (usable or 1):
        return Finding(
            check="cpu",
            status=WARNING,
            message=f"{told}, load {load:.1f}: on shared cores a small model is many times faster "
            "with one thread",
            fix="OMP_NUM_THREADS=1",
        )
    return Finding(check="cpu", status=OK, message=told)
