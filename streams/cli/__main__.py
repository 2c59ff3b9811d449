"""`python -m streams.cli`: the `pulseline` command where the script is not on PATH."""

from streams.cli import main

main(prog_name="pulseline")
