"""`python -m cmcgns`: the command line."""

from cmcgns.cli.app import main

if __name__ == "__main__":
    main()
