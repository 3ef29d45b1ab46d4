"""Privacy: masking of secrets, and rules for what may leave this machine."""
