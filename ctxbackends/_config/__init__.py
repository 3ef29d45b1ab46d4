"""Configuration: `BackendConfig`, and reading and writing `.ctxrc`."""
