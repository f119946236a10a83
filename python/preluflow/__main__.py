"""``python -m preluflow``: the command line."""

from preluflow.cli import main

if __name__ == "__main__":
    main()
