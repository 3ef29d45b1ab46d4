"""The formats of generation APIs: encode a request, decode an answer or a stream."""
