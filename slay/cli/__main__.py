"""`python -m slay.cli`: the command `slay`."""

from slay.cli import main

main(prog_name="slay")
