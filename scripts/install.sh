#!/usr/bin/env bash
# Makes .venv and installs the project into it, once for each state of pyproject.toml and the lock;
# demo.sh and test.sh source it. It installs the exact versions of requirements.lock, or with
# LMME3DHF_INSTALL=open the newest that pyproject.toml allows.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mode="${LMME3DHF_INSTALL:-locked}"
case "$mode" in
    locked) versions=(--constraint requirements.lock) ;;
    open) versions=(--upgrade --upgrade-strategy eager) ;;
    *)
        echo "LMME3DHF_INSTALL is '$mode'; expected locked or open" >&2
        exit 2
        ;;
esac
state="$mode $(cat pyproject.toml requirements.lock | sha256sum)"
if [ "$(cat .venv/installed 2> /dev/null)" != "$state" ]; then
    rm -f .venv/installed
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --upgrade "${versions[@]}" pip
    .venv/bin/python -m pip install --quiet "${versions[@]}" --editable ".[test]" || {
        echo "No install with $mode versions for $(python3 --version); both ways: LMME3DHF_INSTALL=locked, LMME3DHF_INSTALL=open" >&2
        exit 1
    }
    echo "$state" > .venv/installed
fi
