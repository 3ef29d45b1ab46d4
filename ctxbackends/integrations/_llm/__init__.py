"""Parts of the plugin for llm."""
