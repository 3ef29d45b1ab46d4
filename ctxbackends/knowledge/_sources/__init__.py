"""Where text comes from: files, transcripts, documents, standard input, and what a command names."""
