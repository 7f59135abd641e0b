# Makes .venv and installs the project into it, once for each state of pyproject.toml; sourced from
# the project's root by demo.sh and test.sh.
stamp=".venv/installed-$(sha256sum pyproject.toml | cut -c1-16)"
if [ ! -f "$stamp" ]; then
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --upgrade pip
    .venv/bin/python -m pip install --quiet --editable ".[test]"
    touch "$stamp"
fi
