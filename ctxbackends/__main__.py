"""``python -m ctxbackends``: the same program as ``ctxbackends``."""

from ctxbackends.cli import ctxbackends

if __name__ == "__main__":
    ctxbackends()
