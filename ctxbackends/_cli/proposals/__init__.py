"""The commands of ``proposals``. They use no model and import no backend."""
