#!/usr/bin/env bash
# Make sure that the paper can be typeset, before anything is measured for it.
set -euo pipefail

packages=(latexmk texlive-latex-recommended texlive-latex-extra texlive-fonts-recommended texlive-pictures)
# The font metric is there only with the fonts that mathptmx asks for.
files=({booktabs,caption,hyperref,mathptmx,microtype,natbib,xcolor}.sty ptmr8t.tfm)

missing() {
    local tool
    for tool in latexmk pdflatex kpsewhich; do
        command -v "$tool" >/dev/null || return 0
    done
    # kpsewhich fails when it finds not all of them.
    ! env -u TEXINPUTS -u TFMFONTS kpsewhich "${files[@]}" >/dev/null
}

missing || exit 0
if [[ $EUID != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "The paper needs LaTeX; first run: sudo apt-get install ${packages[*]}" >&2
    exit 1
fi
echo "Installing LaTeX: a few minutes"
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
if missing; then
    echo "LaTeX is installed but still lacks one of: ${files[*]}" >&2
    exit 1
fi
