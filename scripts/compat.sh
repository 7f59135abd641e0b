#!/usr/bin/env bash
# The core tests with the newest libraries that pyproject.toml allows and with the oldest, each in
# an environment of its own below .compat; prints a table and writes it to .compat/table.md.
# Arguments go to pytest. PYTHON_NEWEST and PYTHON_OLDEST are the interpreters (python3).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tests=(
    tests/models/test_{modeling,loading,lora,merge,tower,flops}.py tests/test_training.py
    tests/test_chain.py tests/test_scorer.py tests/test_describe.py tests/test_bench.py
    tests/data/test_pixels.py
)
mkdir -p .compat
status=0
cat > .compat/table.md << 'EOF'
| versions | Python | torch | torchvision | transformers | peft | accelerate | numpy | passed | failed | skipped | seconds |
|---|---|---|---|---|---|---|---|---|---|---|---|
EOF

# check NAME PYTHON PIP_ARGUMENT...: installs, tests, and adds a row.
check() {
    local name="$1" python="$2" env=".compat/$1"
    shift 2
    [ -d "$env" ] || "$python" -m venv "$env"
    "$env/bin/python" -m pip install --quiet --upgrade pip &&
        "$env/bin/python" -m pip install --quiet "$@" --editable ".[test]" ||
        { echo "the $name versions do not install" >&2; exit 1; }
    OMP_NUM_THREADS=1 "$env/bin/python" -m pytest --quiet --junit-xml ".compat/$name.xml" \
        "${pytest_arguments[@]}" "${tests[@]}" || status=1
    "$env/bin/python" - "$name" >> .compat/table.md << 'EOF'
import sys
from importlib.metadata import version
from platform import python_version
from xml.etree import ElementTree

name = sys.argv[1]
suite = ElementTree.parse(f".compat/{name}.xml").find("testsuite").attrib
failed, skipped = int(suite["failures"]) + int(suite["errors"]), int(suite["skipped"])
libraries = ("torch", "torchvision", "transformers", "peft", "accelerate", "numpy")
row = [name, python_version(), *map(version, libraries)]
row += [int(suite["tests"]) - failed - skipped, failed, skipped, round(float(suite["time"]))]
print("|", " | ".join(map(str, row)), "|")
EOF
}

pytest_arguments=("$@")
check newest "${PYTHON_NEWEST:-python3}" --upgrade --upgrade-strategy eager
# As constraints: each lower bound that was installed as the newest's requirement.
.compat/newest/bin/python - > .compat/oldest.txt << 'EOF'
from importlib.metadata import requires

from packaging.requirements import Requirement

for wanted in map(Requirement, requires("lmme3dhf")):
    if wanted.marker is None or wanted.marker.evaluate({"extra": "test"}):
        for bound in wanted.specifier:
            if bound.operator == ">=":
                print(f"{wanted.name}=={bound.version}")
EOF
check oldest "${PYTHON_OLDEST:-python3}" --constraint .compat/oldest.txt
cat .compat/table.md
exit "$status"
