# Sourced by each finding: prints the finding's head, then makes a virtual environment in a temporary folder that goes at exit.
# PYTHON chooses the interpreter (3.11 or newer, with pip; default python3).
set -euo pipefail
sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
host=$(command -v "${PYTHON:-python3}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$host" -m venv --without-pip "$work/venv"
export PATH="$work/venv/bin:$PATH" OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore PYTHONDONTWRITEBYTECODE=1
cd "$work"
install() {
    "$host" -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check \
        --root-user-action ignore "$@"
}
