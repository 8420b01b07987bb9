#!/bin/sh
# Patchclamp beside its peers, in an environment of their own: first whether they agree, then how fast each is.
#
#   bench/run.sh [--quick] [--only ROW] [--wall] [--json FILE]      what is given goes to `python -m bench.speed`
#
# PYTHON is the interpreter that makes the environment, BENCH_VENV where it lies.
set -eu
cd "$(dirname "$0")/.."
venv=${BENCH_VENV:-.venv-bench}

if [ ! -e "$venv/.bench" ] || [ bench/requirements.txt -nt "$venv/.bench" ]; then
    test -x "$venv/bin/python" || "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -r bench/requirements.txt
    touch "$venv/.bench"
fi

status=0
"$venv/bin/python" -W ignore -m bench.agree || status=$?
"$venv/bin/python" -W ignore -m bench.speed "$@" || status=$?
exit $status
