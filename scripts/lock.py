"""Makes requirements.lock anew: the newest releases that pyproject.toml allows, as pip resolves
them on each of the given Pythons.

    python scripts/lock.py python3.10 python3.11 python3.12 python3.13

Nothing is installed but pip, in temporary environments. The lock is a file of constraints: it says
which version, not what is installed, so packages of one platform need no marker; a version that
is not the same on all Pythons has one. Run `bash scripts/test.sh` before committing a new lock.
"""

import argparse
import json
import platform
import subprocess
import tempfile
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
HEAD = """\
# Exact versions for scripts/install.sh and env.yml, made by scripts/lock.py on {platform} with
# Python {pythons}; elsewhere packages may be left out, versions are the same.
"""


def resolve(python: str) -> tuple[str, dict[str, str]]:
    """What pip would install on a Python: its version ("3.11"), and version by package."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--upgrade", "pip"], check=True)
        report = Path(folder, "report.json")
        dry = ["--dry-run", "--ignore-installed", "--report", str(report)]
        subprocess.run([*pip, *dry, "pip", ".[test]"], check=True, cwd=ROOT)
        found = json.loads(report.read_text(encoding="utf-8"))
    packages = (entry["metadata"] for entry in found["install"])
    # A local label (torch 2.10.0+cpu) names a build for one kind of machine.
    versions = {p["name"].lower(): p["version"].partition("+")[0] for p in packages}
    return found["environment"]["python_version"], versions


def lines(resolved: dict[str, dict[str, str]]) -> list[str]:
    """Lines of the lock from version by package, by Python in ascending order."""
    made = []
    for name in sorted(set().union(*resolved.values()) - {"lmme3dhf"}):
        known = [(python, found[name]) for python, found in resolved.items() if name in found]
        groups = [(v, next(own)[0]) for v, own in groupby(known, key=lambda pair: pair[1])]
        for i, (version, first) in enumerate(groups):
            bounds = [f"python_version >= '{first}'"] if i else []
            bounds += [f"python_version < '{after}'" for _, after in groups[i + 1 : i + 2]]
            made.append("; ".join(filter(None, [f"{name}=={version}", " and ".join(bounds)])))
    return made


def main() -> None:
    """Resolves on each Python and writes the lock."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("pythons", nargs="+", metavar="PYTHON", help="interpreters to lock for")
    found = sorted(
        map(resolve, parser.parse_args().pythons), key=lambda pair: int(pair[0].split(".")[1])
    )
    head = HEAD.format(
        platform=f"{platform.system()} {platform.machine()}",
        pythons=", ".join(version for version, _ in found),
    )
    LOCK.write_text(head + "\n".join(lines(dict(found))) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
