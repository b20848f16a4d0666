"""What others wrote, on its way to a terminal."""

import logging

import pytest

from cas.cli.invocation import Invocation
from cas.cli.output import Column, print_line, print_rows
from cas.errors import PlatformNotFoundError

EVIL = "linux/\x1b]0;title\x07\nforged"
SHOWN = "linux/\N{REPLACEMENT CHARACTER}]0;title\N{REPLACEMENT CHARACTER} forged"


def test_row_of_a_table_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Media types and reasons come from strangers."""
    columns: list[Column[str]] = [Column("TYPE", 4, str)]
    print_rows(Invocation(), [EVIL], columns=columns, identifier=str, document=str)
    print_line(EVIL)

    assert capsys.readouterr().out == f"TYPE\n{SHOWN}\n{SHOWN}\n"


def test_error_its_notes_and_log_lines_command_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Platforms of an index are quoted in errors."""
    invocation = Invocation()
    error = PlatformNotFoundError(EVIL)
    error.add_note(EVIL)
    logger = logging.getLogger("cas")
    before = logger.handlers[:], logger.propagate, logger.level
    try:
        invocation.configure_logging(0)
        invocation.report(error)
        logger.warning("%s", EVIL)
    finally:
        logger.handlers[:], logger.propagate = before[:2]
        logger.setLevel(before[2])

    assert capsys.readouterr().err == (
        f"cas: {SHOWN} [{error.reference}]\ncas: note: {SHOWN}\ncas: WARNING: {SHOWN}\n"
    )
