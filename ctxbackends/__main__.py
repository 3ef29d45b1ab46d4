"""``python -m ctxbackends``: the same program as ``ctx``."""

from ctxbackends.cli import main

if __name__ == "__main__":
    main()
