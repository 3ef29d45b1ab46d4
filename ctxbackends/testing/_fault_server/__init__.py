"""A server that simulates failures of model servers, proxies and networks."""
