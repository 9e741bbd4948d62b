"""`python -m polos`: the command `polos`."""

from polos_service.cli import main

main()
