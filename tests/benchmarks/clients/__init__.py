"""One module for each client that is measured. Each runs in an environment of its own, with the standard library and
that client alone, and is imported by nothing but :mod:`tests.benchmarks.worker` and :mod:`tests.benchmarks.ready`.

A module has ``WIRES``, the formats that it speaks; ``DISTRIBUTIONS``, whose versions belong to the figures; and
``open_client(wire, url)``, which gives an object with ``complete(model)``, ``stream(model, take)`` (which calls
``take`` with every piece of text) and ``close()``. It may have ``new_event_loop``.
"""
