"""The commands by name: where each is defined, and its line in the help. Imports nothing."""

from __future__ import annotations

VERBS = {
    "batch": ("ctxbackends._cli.batch.command:batch", "Send every row of a file to a model, and resume after a stop."),
    "chat": ("ctxbackends._cli.chat.command:chat", "Send a prompt and print the answer as it arrives."),
    "completion": ("ctxbackends._cli.completion:completion", "Print the completion script of a shell."),
    "config": ("ctxbackends._cli.config:config", "Show and change .ctxrc."),
    "count": ("ctxbackends._cli.tokens:count", "Print the number of tokens in a prompt."),
    "doctor": ("ctxbackends._cli.doctor:doctor", "Show what is configured and what is running, and what to do next."),
    "embed": ("ctxbackends._cli.embed:embed", "Print the vectors of texts."),
    "extract": ("ctxbackends._cli.ingest:extract", "Extract decisions and tasks from standard input."),
    "load": ("ctxbackends._cli.load:load", "Load a model into the server's memory."),
    "logs": ("ctxbackends._cli.logs:logs", "Keep a log of conversations, and search it."),
    "models": ("ctxbackends._cli.ai:models", "List the server's models."),
    "ping": ("ctxbackends._cli.ai:ping", "Wait until the server is ready."),
    "proposals": ("ctxbackends._cli.proposals.command:proposals", "Review and export proposals."),
    "pull": ("ctxbackends._cli.pull:pull", "Download a small model to this machine."),
    "serve": ("ctxbackends._cli.serve:serve", "Serve a GGUF model with llama.cpp on this machine."),
    "status": ("ctxbackends._cli.ai:status", "Show the state of every configured backend."),
    "unload": ("ctxbackends._cli.load:unload", "Unload a model from the server's memory."),
}
"""First-level commands of ``ctxbackends``; commands of ``ctx ai``."""

TOP_LEVEL = {
    "compact": ("ctxbackends._cli.ingest:compact", "Extract decisions and tasks from a session transcript."),
    "ingest": ("ctxbackends._cli.ingest:ingest", "Extract decisions and tasks from documents."),
    "setup": ("ctxbackends._cli.setup:setup", "Add or update a backend in .ctxrc."),
}
"""First-level commands of both programs."""

AI = {"ai": ("ctxbackends._cli.root:ai", "Use a model, serve one, and review proposals.")}

OTHER_NAMES = {
    **dict.fromkeys(("ask", "prompt", "run"), "chat"),
    **dict.fromkeys(("list", "ls"), "models"),
    **dict.fromkeys(("download", "get"), "pull"),
    **dict.fromkeys(("stop", "eject"), "unload"),
    "history": "logs",
    "init": "setup",
    "ps": "status",
    "tokens": "count",
}
"""Commands of other programs, with those that do the same here."""

ADVICE = {
    "help": "use --help, also after the name of a command",
    "keys": "API keys come from environment variables, which setup --api-key-env names",
    "show": "status shows the state of the server, and models its models",
    "version": "use --version",
}
"""Words that other programs take as commands, with the way to the same here."""
