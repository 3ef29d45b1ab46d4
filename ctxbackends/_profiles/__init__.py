"""Backend types: one row for each, and the options that each supports."""
