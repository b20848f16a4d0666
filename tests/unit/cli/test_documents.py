"""What the documents list is what there is."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
import msgspec
import pytest

from cas.cli import configuration
from cas.cli.main import cli
from cas.model.limits import Limits
from cas.model.sizes import parse_size

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]


def _rows(heading: str) -> Iterator[list[str]]:
    section = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    for row in re.findall(r"^\| (.*) \|$", section, re.MULTILINE):
        yield re.split(r" ?\| ", row)


def _commands(group: click.Group, noun: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        path = f"{noun} {name}".strip()
        if isinstance(command, click.Group):
            yield from _commands(command, path)
        else:
            yield path


def test_readme_lists_every_command() -> None:
    """Nouns with their verbs, and what has none."""
    listed = {
        f"{noun.strip('` ')} {verb}".strip()
        for noun, verbs in _rows("Commands")
        for verb in re.findall(r"`([a-z]+)", verbs)
    }

    assert listed == set(_commands(cli))


def test_readme_lists_every_key_of_the_configuration() -> None:
    """Tables may stand for all of their keys; those of the vault stand alone."""
    keys = {row[0].replace('."URL"', "").strip("`") for row in list(_rows("Configuration"))[1:]}
    tables = {"owners", "limits", "download", "datastore"}
    names = {field.name for field in msgspec.structs.fields(configuration._File)}
    vault = {field.name for field in msgspec.structs.fields(configuration._VaultTable)}

    assert keys == {
        *(names - tables - {"vault"}),
        *(f"[{table}]" for table in tables),
        *(f"[vault] {name}" for name in vault),
    }


def test_readme_lists_every_limit_with_its_default() -> None:
    """Whoever installed a package has no source to look at."""
    told = {
        name.strip("`"): _value(default.strip("`"))
        for name, default, _ in list(_rows("Limits"))[1:]
    }

    assert told == asdict(Limits())


def _value(words: str) -> int | bool:
    return words == "true" if words in {"true", "false"} else parse_size(words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_a_document_lead_somewhere(document: Path) -> None:
    """To a file of the repository, and to a heading in it."""
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text()):
        name, _, anchor = target.partition("#")
        text = (document.parent / name).read_text() if name else document.read_text()
        headings = {
            re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        assert not anchor or anchor in headings, target
