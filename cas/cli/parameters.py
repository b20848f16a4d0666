"""Arguments as values: a bad one is a usage error before anything is opened."""

__all__ = ["DIGEST", "DISK_SIZE", "DURATION", "PLATFORM", "SIZE", "VOLUME_NAME", "expand_dash"]

import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

from cas.errors import UsageError
from cas.model.digest import Digest
from cas.model.volume_name import VolumeName

if TYPE_CHECKING:
    from cas.model.descriptor import Platform

_Value = TypeVar("_Value")


class _Parsed(click.ParamType[Any], Generic[_Value]):
    def parse(self, text: str) -> _Value:
        raise NotImplementedError

    def convert(
        self,
        value: Any,  # noqa: ANN401 (click's signature)
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> _Value | Any:  # noqa: ANN401 (a value that is parsed already passes through)
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except UsageError as error:
            self.fail(error.message, param, ctx)


class _Digest(_Parsed[Digest]):
    name = "digest"

    def parse(self, text: str) -> Digest:
        return Digest.parse(text)


class _VolumeName(_Parsed[VolumeName]):
    name = "volume"

    def parse(self, text: str) -> VolumeName:
        return VolumeName.parse(text)


class _Size(_Parsed[int]):
    name = "size"

    def parse(self, text: str) -> int:
        from cas.model.sizes import parse_size

        return parse_size(text)


class _DiskSize(_Parsed[int]):
    name = "size"

    def parse(self, text: str) -> int:
        from cas.model.sizes import parse_disk_size

        return parse_disk_size(text)


class _Duration(_Parsed[timedelta]):
    name = "duration"

    def parse(self, text: str) -> timedelta:
        from cas.model.sizes import parse_duration

        return parse_duration(text)


class _Platform(_Parsed["Platform"]):
    name = "platform"

    def parse(self, text: str) -> "Platform":
        from cas.model.platforms import parse_platform

        return parse_platform(text)


DIGEST = _Digest()
VOLUME_NAME = _VolumeName()
SIZE = _Size()
DISK_SIZE = _DiskSize()
DURATION = _Duration()
PLATFORM = _Platform()


def expand_dash(arguments: Sequence[str]) -> Iterator[str]:
    """Give the arguments; ``-`` stands for the lines of stdin."""
    for argument in arguments:
        if argument == "-":
            yield from (line.strip() for line in sys.stdin if line.strip())
        else:
            yield argument
