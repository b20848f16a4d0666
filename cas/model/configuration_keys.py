"""Keys of configuration files against the forms that know them; pure rules."""

__all__ = ["require_known_keys"]

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args

import msgspec

from cas.errors import ConfigError

_Form = type[msgspec.Struct]


def require_known_keys(raw: Mapping[str, Any], form: _Form, what: str) -> None:
    """Return if every key, those of inner tables included, is one of the form.

    Args:
        raw: The tables of a file.
        form: Of the whole file; fields that are forms themselves, or lists of some, are tables.
        what: The file, for messages.

    Raises:
        ConfigError: A key is unknown; the message has what may have been meant.
    """
    _require(raw, what, inside="", forms={"": form, **dict(_inner_forms(form))})


def _require(raw: Mapping[str, Any], what: str, *, inside: str, forms: Mapping[str, _Form]) -> None:
    names = forms[inside].__struct_fields__
    for key, value in raw.items():
        if key not in names:
            place = f" in [{inside}]" if inside else ""
            raise ConfigError(
                f"{what} has the unknown key {key!r}{place}; {_advice(key, inside, forms)}",
                key=key,
            )
        if key in forms and not inside:
            for table in value if isinstance(value, list) else [value]:
                if isinstance(table, dict):
                    _require(table, what, inside=key, forms=forms)


def _advice(key: str, inside: str, forms: Mapping[str, _Form]) -> str:
    for name, form in forms.items():
        if name != inside and key in form.__struct_fields__:
            return f"it belongs below [{name}]" if name else "it belongs above the first table"
    names = forms[inside].__struct_fields__
    near = get_close_matches(key, names, n=1)
    return f"write {near[0]!r}" if near else f"the keys there are {', '.join(names)}"


def _inner_forms(form: _Form) -> Iterator[tuple[str, _Form]]:
    for field in msgspec.structs.fields(form):
        kind = (get_args(field.type) or (field.type,))[0]
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield field.name, kind
