#!/usr/bin/env bash
# Make or update .venv from envs/lock.txt; after an interruption, run it again.
set -euo pipefail
cd "$(dirname "$0")/.."

recent='import sys; sys.exit(sys.version_info < (3, 11))'
for python in ${PYTHON:-python3.11 python3}; do
    "$python" -c "$recent" 2>/dev/null && break
    python=
done
if [[ -z $python ]]; then
    echo "slay needs Python 3.11 or newer (tried: ${PYTHON:-python3.11 python3}); name one with make setup PYTHON=..." >&2
    exit 1
fi

# venv writes activate last, after pip.
if [[ ! -e .venv/bin/activate ]] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        if [[ $EUID != 0 ]] || ! command -v apt-get >/dev/null; then
            echo "$python cannot make virtual environments; first run: sudo apt-get install $package" >&2
            exit 1
        fi
        echo "Installing $package"
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "$package" >/dev/null
    fi
    "$python" -m venv --clear .venv
fi

# pip takes a package it was stopped in for installed; it writes INSTALLER last.
for info in .venv/lib/python*/site-packages/*.dist-info; do
    [[ -e $info/INSTALLER ]] || rm -rf "$info"
done

# Where packages come from is pip's own setting; where and which are installed is said here alone.
unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_CONSTRAINT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_USER=0 PIP_NO_DEPS=0 PIP_DRY_RUN=0
echo "Setting up .venv with $(.venv/bin/python --version) and $(grep -c == envs/lock.txt) packages: a few minutes the first time"
# DeepSpeed compiles its operators when they are first used, not here.
DS_BUILD_OPS=0 .venv/bin/python -m pip install --progress-bar off -r envs/lock.txt |
    sed -un -e 's/^Collecting \([^ ]*\).*/  \1/p' \
        -e 's/^ *Downloading .*(\(.* [MG]B\)).*/    downloading \1/p' \
        -e 's/^Installing collected.*/  copying files/p'
.venv/bin/python -m pip install --quiet --no-deps --editable .
