"""Values of a conversation: what is sent, what comes back. Imports nothing of this package."""
