#!/bin/sh
# Patchclamp beside its peers, in an environment of their own: first whether they agree, on activations and on the weights of
# places and edges, then how fast each is.
#
#   bench/run.sh [--quick] [--only ROW] [--wall] [--json FILE]      what is given goes to `python -m bench.speed`
#
# PYTHON is the interpreter that makes the environment, BENCH_VENV where it lies. CIRCUITS_PYTHON is one that has auto-circuit and an
# older TransformerLens, EAP_IG where EAP-IG's sources lie (see bench/agree_circuits.py); without them those two are left out.
# TUNED_PYTHON is one that has the tuned-lens package (see bench/tuned_child.py); without it lenses are not timed.
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
"$venv/bin/python" -W ignore -m bench.agree_circuits ${CIRCUITS_PYTHON:+--python "$CIRCUITS_PYTHON"} ${EAP_IG:+--eap-ig "$EAP_IG"} || status=$?
"$venv/bin/python" -W ignore -m bench.speed "$@" || status=$?
"$venv/bin/python" -W ignore -m bench.circuits || status=$?
"$venv/bin/python" -W ignore -m bench.lenses || status=$?
test -z "${TUNED_PYTHON:-}" || "$venv/bin/python" -W ignore -m bench.tuned --python "$TUNED_PYTHON" || status=$?
exit $status
