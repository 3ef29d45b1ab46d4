"""One key for each step of a review, without Enter, at a terminal that redraws. Needs prompt_toolkit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application, create_app_session, get_app_session
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import FormattedTextControl, Layout, Window

from ctxbackends._cli.proposals.session import CHOICES, SHORT_CHOICES

OTHER_KEYS = {"enter": "s", " ": "s", "right": "s", "down": "s", "left": "b", "up": "b", "c-d": "q"}
"""Keys that do the same as a letter."""


class KeyFront:
    """Reads single keys."""

    def __init__(self) -> None:
        self._session = get_app_session()
        self._bindings = _build_bindings()

    def read(self) -> tuple[str, str]:
        """Return the next key."""
        window = Window(FormattedTextControl(self._choices), wrap_lines=True, dont_extend_height=True)
        app: Application[str] = Application(
            layout=Layout(window),
            key_bindings=self._bindings,
            erase_when_done=True,
            enable_page_navigation_bindings=False,
        )
        return app.run(), ""

    def _choices(self) -> str:
        """Return the names of the keys; in a narrow window only the keys."""
        return CHOICES if self._session.output.get_size().columns > len(CHOICES) else SHORT_CHOICES

    def ask(self, question: str) -> str | None:
        """Return the answer to a question; None at Ctrl-C or Ctrl-D."""
        try:
            return PromptSession[str](question).prompt()
        except (KeyboardInterrupt, EOFError):
            return None

    def pause(self) -> AbstractContextManager[None]:
        """Return a block in which the terminal has lines and an echo, and Ctrl-C interrupts."""
        return self._session.input.cooked_mode()


@contextmanager
def open_keys() -> Iterator[KeyFront]:
    """Yield a front. Between two keys the terminal does not echo those that are typed ahead."""
    with create_app_session() as session, session.input.raw_mode():
        yield KeyFront()


def _build_bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add(Keys.Any)
    def choose(event: KeyPressEvent) -> None:
        key = event.key_sequence[0].key
        if not isinstance(key, Keys):  # a character: no mouse, no answer of the terminal, no pasted text
            event.app.exit(result=key)

    for other, letter in OTHER_KEYS.items():

        @bindings.add(other)
        def choose_other(event: KeyPressEvent, letter: str = letter) -> None:
            event.app.exit(result=letter)

    @bindings.add("c-c")
    @bindings.add(Keys.SIGINT)
    def interrupt(event: KeyPressEvent) -> None:
        event.app.exit(exception=KeyboardInterrupt)

    @bindings.add("c-z")
    def suspend(event: KeyPressEvent) -> None:
        event.app.suspend_to_background()

    return bindings
