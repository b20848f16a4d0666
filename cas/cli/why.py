"""``cas why``."""

__all__ = ["command"]

from typing import TYPE_CHECKING

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import output_options
from cas.cli.output import print_document, print_line

if TYPE_CHECKING:
    from cas.store.account.why import Explanation, Keeper


@click.command(name="why")
@click.argument("name", metavar="OBJECT")
@output_options
@pass_invocation
def command(invocation: Invocation, name: str) -> None:
    """Explain what keeps a blob, an image, a snapshot or a volume.

    OBJECT is a digest, an image reference, a snapshot's name or a volume's name. Printed are a
    shortest chain from something that stays by itself down to the object, and all such roots.

    JSON: an array of kind, name, kept, chain (kind, name, reason), roots (likewise).

    \b
    Example:
      cas why sha256:6c3e...e1f0
      cas why docker.io/library/alpine:3.20
    """
    with invocation.case(writing=False) as case:
        explanations = case.why.explain(name)
    if invocation.as_json:
        print_document([_document(explanation) for explanation in explanations])
        return
    for explanation in explanations:
        _print(explanation)


def _keepers(keepers: "tuple[Keeper, ...]") -> list[dict[str, str]]:
    return [{"kind": row.kind, "name": row.name, "reason": row.reason} for row in keepers]


def _document(explanation: "Explanation") -> dict[str, object]:
    return {
        "kind": explanation.kind,
        "name": explanation.name,
        "kept": explanation.kept,
        "chain": _keepers(explanation.chain),
        "roots": _keepers(explanation.roots),
    }


def _print(explanation: "Explanation") -> None:
    if not explanation.kept:
        print_line(
            f"nothing keeps {explanation.kind} {explanation.name}: the next collection takes it"
        )
        return
    for depth, keeper in enumerate(explanation.chain):
        because = f" ({keeper.reason})" if keeper.reason else ""
        print_line(f"{'  ' * depth}{keeper.kind} {keeper.name}{because}")
    if len(explanation.roots) > 1:
        click.echo(f"kept by {len(explanation.roots)} in all:")
        for root in explanation.roots:
            print_line(f"  {root.kind} {root.name}" + (f" ({root.reason})" if root.reason else ""))
