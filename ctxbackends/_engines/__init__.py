"""Distributes blocks of work over worker processes: of this machine, or of a cluster.

It knows neither rows nor documents: an engine starts workers, and a worker answers the items of a block.
"""
