"""The command chat: one answer, or a conversation on the terminal."""
