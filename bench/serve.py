"""The command `polos`, as a module."""

from polos_service.cli import main

if __name__ == "__main__":
    main()
