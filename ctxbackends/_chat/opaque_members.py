"""The members that go back to the server unchanged, and the names of their wires."""

CHAT_WIRE = "chat_completions"
MESSAGES_WIRE = "messages"

CALL_MEMBERS = ("extra_content", "thought_signature")
"""Of a tool call of chat completions: https://ai.google.dev/gemini-api/docs/thought-signatures"""

MESSAGE_MEMBERS = ("reasoning_details", "reasoning_encrypted", "extra_content")
"""Of a message of chat completions: https://openrouter.ai/docs/use-cases/reasoning-tokens#preserving-reasoning"""
