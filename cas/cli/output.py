"""Results on stdout: tables for people, JSON for programs, identifiers for pipes.

Rows are printed as they come: a list of any length needs no more memory than one row. That is
why there is no table library here: those that exist need all rows to find the widths.
"""

__all__ = [
    "Column",
    "local_time",
    "print_acts",
    "print_document",
    "print_line",
    "print_rows",
    "timestamp",
]

import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

import click

from cas.cli.invocation import Invocation
from cas.model.printable import printable

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Column(Generic[_Row]):
    """One column of a table.

    Args:
        title: Upper-case heading.
        width: Characters kept for it; longer values push the next column, never cut.
        value: Gives the cell.
    """

    title: str
    width: int
    value: Callable[[_Row], str]


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def local_time(moment: datetime) -> str:
    """For tables: UTC without decoration."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def print_line(text: str, *, err: bool = False) -> None:
    """Print one line for people; what others wrote in it commands no terminal."""
    click.echo(printable(text), err=err)


def print_document(document: object) -> None:
    """Print one indented JSON document."""
    click.echo(json.dumps(document, indent=2))


def print_rows(
    invocation: Invocation,
    rows: Iterable[_Row],
    *,
    columns: Sequence[Column[_Row]],
    identifier: Callable[[_Row], str],
    document: Callable[[_Row], object],
) -> None:
    """Print a list in the form that the options ask for, row by row.

    Args:
        invocation: Knows the form.
        rows: Consumed once.
        columns: Of the table.
        identifier: What ``-q`` prints.
        document: What ``--json`` prints: an array of these, without its end if the list fails.
    """
    with _ended(rows):
        if invocation.as_json:
            array = _JsonArray()
            for row in rows:
                array.add(document(row))
            array.end()
            return
        lines = (identifier(row) for row in rows) if invocation.quiet else _table(rows, columns)
        # Not click.echo, which ends every line with a system call.
        sys.stdout.writelines(f"{line}\n" for line in lines)


def print_acts(
    invocation: Invocation,
    acts: Iterable[_Row],
    *,
    line: Callable[[_Row], str],
    document: Callable[[_Row], object],
) -> None:
    """Print what a command does, line by line as it is done.

    Args:
        invocation: Knows the form.
        acts: Consumed once; doing is what the iterator does.
        line: What is printed of an act.
        document: What ``--json`` prints: an array of these, which is whole even if the iterator
            fails: what was done was done.
    """
    with _ended(acts):
        if invocation.as_json:
            array = _JsonArray()
            try:
                for act in acts:
                    array.add(document(act))
            finally:
                array.end()
            return
        for act in acts:
            click.echo(line(act))


@contextmanager
def _ended(rows: Iterable[object]) -> Iterator[None]:
    """End an iterator with the block, however that ends; what is no generator is left alone."""
    try:
        yield
    finally:
        if isinstance(rows, Generator):
            rows.close()


def _table(rows: Iterable[_Row], columns: Sequence[Column[_Row]]) -> Iterator[str]:
    yield _line([(column.title, column.width) for column in columns])
    for row in rows:
        yield _line([(column.value(row), column.width) for column in columns])


def _line(cells: Sequence[tuple[str, int]]) -> str:
    return "  ".join(printable(text).ljust(width) for text, width in cells).rstrip()


class _JsonArray:
    """An array that is written as it comes."""

    def __init__(self) -> None:
        self._before = "[\n  "

    def add(self, document: object) -> None:
        sys.stdout.write(self._before + json.dumps(document))
        self._before = ",\n  "

    def end(self) -> None:
        sys.stdout.write("[]\n" if self._before.startswith("[") else "\n]\n")
