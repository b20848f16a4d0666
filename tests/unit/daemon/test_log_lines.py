"""What the service writes is one line per event, whatever it quotes."""

import logging

from cas.daemon.log_lines import ServiceFormatter

_FORGED = "x\ncas: INFO: all is well\x1b[2J"


def test_service_line_that_quotes_control_characters_has_none() -> None:
    """A line feed could forge a line, an escape sequence command a terminal."""
    record = logging.LogRecord("cas", logging.INFO, "", 1, "volume=%s", (_FORGED,), None)

    assert ServiceFormatter().format(record).splitlines() == [
        "cas: INFO: volume=x cas: INFO: all is well\N{REPLACEMENT CHARACTER}[2J"
    ]


def test_service_traceback_that_quotes_control_characters_has_none() -> None:
    """Its lines stay apart; none of them commands a terminal."""
    error = ValueError("\x1b[2J")
    seen = (ValueError, error, None)
    record = logging.LogRecord("cas", logging.ERROR, "", 1, "defect", (), seen)

    lines = ServiceFormatter().format(record).split("\n")
    assert lines == ["cas: ERROR: defect", "ValueError: \N{REPLACEMENT CHARACTER}[2J"]
