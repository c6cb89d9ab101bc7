"""`python -m qstack` is the command `qstack`."""

from qstack.cli.main import main

main()
