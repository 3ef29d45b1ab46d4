"""The types of the public names, as checkers see them. `nox -s types` reads these files with mypy and pyright.

Nothing runs them. A `# type: ignore` marks a mistake that both checkers must report: they complain about one that
ignores nothing.
"""
