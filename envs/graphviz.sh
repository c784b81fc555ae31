#!/usr/bin/env bash
# Make sure that Graphviz is there to draw the workflow.
set -euo pipefail

command -v dot >/dev/null && command -v tred >/dev/null && exit 0
if [[ $EUID != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "The drawing needs Graphviz; first run: sudo apt-get install graphviz" >&2
    exit 1
fi
echo "Installing Graphviz"
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends graphviz >/dev/null
