# Sourced by the other scripts: stands in the checkout's root, makes .venv when there is none,
# installs what pyproject.toml asks for in the tested versions, and puts it first on PATH.
# VENV_EXTRA names an extra of pyproject.toml to install as well (dev). PYTHON names a Python.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ ! -x .venv/bin/pip ]; then # comes last, so a venv that was cut short is made again
  python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "needs Python 3.11 or newer, found $("$python" --version); set PYTHON=/path/to/python" >&2
    exit 2
  }
  echo "making .venv ..." >&2
  "$python" -m venv .venv
fi

# A stamp names what is installed, so that the same requirements are not installed twice.
requirements=$(cat pyproject.toml scripts/constraints.txt | cksum | cut -d' ' -f1)
if [ ! -e ".venv/installed-$requirements-${VENV_EXTRA:-run}" ]; then
  echo "installing the versions of scripts/constraints.txt (minutes on a new machine) ..." >&2
  .venv/bin/python -m pip install --quiet --constraint scripts/constraints.txt \
    --editable ".${VENV_EXTRA:+[$VENV_EXTRA]}" >&2
  touch ".venv/installed-$requirements-run" ".venv/installed-$requirements-${VENV_EXTRA:-run}"
fi
export PATH="$PWD/.venv/bin:$PATH"
