"""The client of one server: requests, streams, retries and concurrency."""
