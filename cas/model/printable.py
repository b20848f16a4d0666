"""Texts that others wrote, made fit for a terminal and a log."""

__all__ = ["printable"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """Give a text with every character that is not printable replaced, white space by a space.

    Escape sequences could otherwise command the terminal of whoever reads an error or a log, and
    a line feed could forge a line.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _substitute(letter) for letter in text)


def _substitute(letter: str) -> str:
    return " " if letter.isspace() else _REPLACEMENT
