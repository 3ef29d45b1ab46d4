"""The commands by name: where each is defined, and its line in the help of its group. Imports nothing."""

from __future__ import annotations

VERBS = {
    "chat": ("ctxbackends._cli.ai:chat", "Ask once, and print the answer as it is written."),
    "extract": ("ctxbackends._cli.ingest:extract", "Take decisions and the like out of standard input."),
    "models": ("ctxbackends._cli.ai:models", "List the models that the server has."),
    "ping": ("ctxbackends._cli.ai:ping", "Wait until the server is ready."),
    "proposals": ("ctxbackends._cli.proposals:proposals", "Review what was taken out, and export it."),
    "serve": ("ctxbackends._cli.serve:serve", "Serve a GGUF model with llama.cpp on this machine."),
    "status": ("ctxbackends._cli.ai:status", "Look at every configured backend at once."),
}
"""At the first level of ``ctxbackends``, and below ``ctx ai``."""

TOP_LEVEL = {
    "compact": ("ctxbackends._cli.ingest:compact", "Take decisions and the like out of a session transcript."),
    "ingest": ("ctxbackends._cli.ingest:ingest", "Take decisions and the like out of documents."),
    "setup": ("ctxbackends._cli.setup:setup", "Write a backend into .ctxrc."),
}
"""At the first level of both programs."""

AI = {"ai": ("ctxbackends._cli.root:ai", "Ask a model, serve one, and review proposals.")}
