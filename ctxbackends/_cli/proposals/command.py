"""The group of commands ``proposals``."""

from __future__ import annotations

import click

from ctxbackends._cli.proposals.apply import apply
from ctxbackends._cli.proposals.decide import accept, edit, reject, requote
from ctxbackends._cli.proposals.export import export
from ctxbackends._cli.proposals.review import review
from ctxbackends._cli.proposals.show import list_, show


@click.group()
def proposals() -> None:
    """Review and export proposals.

    PROPOSAL is an ID, the start of one, its name without the time, or "latest".
    """


for command in (list_, show, accept, reject, edit, requote, review, export, apply):
    proposals.add_command(command)
