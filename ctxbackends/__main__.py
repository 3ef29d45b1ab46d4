"""``python -m ctxbackends``: the same program as ``ctxbackends``."""

from ctxbackends._cli import ctxbackends

if __name__ == "__main__":
    ctxbackends()
