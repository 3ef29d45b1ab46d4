"""From a source to checked rows: chunks, prompts, answers, citations, and the run."""
