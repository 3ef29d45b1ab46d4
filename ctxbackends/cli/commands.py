"""The commands by name: where each is defined, and its line in the help of its group. Imports nothing."""

from __future__ import annotations

VERBS = {
    "chat": ("ctxbackends.cli.ai:chat", "Ask once, and print the answer as it is written."),
    "extract": ("ctxbackends.cli.ingest:extract", "Take decisions and the like out of standard input."),
    "models": ("ctxbackends.cli.ai:models", "List the models that the server has."),
    "ping": ("ctxbackends.cli.ai:ping", "Wait until the server is ready."),
    "proposals": ("ctxbackends.cli.proposals:proposals", "Review what was taken out, and export it."),
    "serve": ("ctxbackends.cli.serve:serve", "Serve a GGUF model with llama.cpp on this machine."),
    "status": ("ctxbackends.cli.ai:status", "Look at every configured backend at once."),
}
"""At the first level of ``ctxbackends``, and below ``ctx ai``."""

TOP_LEVEL = {
    "compact": ("ctxbackends.cli.ingest:compact", "Take decisions and the like out of a session transcript."),
    "ingest": ("ctxbackends.cli.ingest:ingest", "Take decisions and the like out of documents."),
    "setup": ("ctxbackends.cli.setup:setup", "Write a backend into .ctxrc."),
}
"""At the first level of both programs."""

AI = {"ai": ("ctxbackends.cli.root:ai", "Ask a model, serve one, and review proposals.")}
