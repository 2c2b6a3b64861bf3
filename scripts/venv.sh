# Sourced by the other scripts: stands in the checkout's root, makes .venv when there is none,
# installs what pyproject.toml asks for in the tested versions, and puts it first on PATH.
# shellcheck shell=bash
# usage: . scripts/venv.sh [EXTRA]      (EXTRA: an extra of pyproject.toml, such as dev)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extra=${1:-}
python=${PYTHON:-python3}
if [ ! -x .venv/bin/python ]; then
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "needs Python 3.11 or newer, found $("$python" --version); set PYTHON=/path/to/python" >&2
    exit 2
  }
  echo "making .venv ..."
  "$python" -m venv .venv
fi

# The stamp names what is installed: the same requirements are not installed twice.
stamp=$(cat pyproject.toml scripts/constraints.txt | cksum | cut -d" " -f1)-${extra:-run}
if [ ! -e ".venv/installed-$stamp" ]; then
  echo "installing (the tested versions in scripts/constraints.txt; minutes on a new machine) ..."
  .venv/bin/python -m pip install --quiet --constraint scripts/constraints.txt \
    --editable ".${extra:+[$extra]}"
  touch ".venv/installed-$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH"
