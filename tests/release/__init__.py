"""Checks of a built release. The nox session ``release_dry_run`` runs them."""
