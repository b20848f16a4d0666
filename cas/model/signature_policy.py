"""Which content must be signed, by whom, before it is taken in; pure rules."""

__all__ = ["OPEN_POLICY", "PublicKey", "Requirement", "Rule", "SignaturePolicy"]

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import sha256


class Requirement(StrEnum):
    """What a rule asks for."""

    NOTHING = "nothing"
    COSIGN = "cosign"
    """A signature that cosign made with a key, published beside the image."""
    DETACHED = "detached"
    """A signature over the bytes of a single file, in a file of its own."""
    REFUSE = "refuse"
    """Content of that name is not taken at all."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that may have signed.

    Args:
        name: What messages and labels call it.
        pem: The key itself.
    """

    name: str
    pem: str

    @property
    def fingerprint(self) -> str:
        """Tell it from others of its name: sha256 of the text, white space left out."""
        return sha256("".join(self.pem.split()).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Rule:
    """What is asked of some content.

    Args:
        pattern: Of names as :func:`cas.model.policy_name.policy_name` gives them; ``*`` matches
            anything, slashes too.
        require: What is asked for.
        keys: One of them must have signed.
        identity: Pattern that the name inside a cosign signature, in the form of
            :func:`cas.model.policy_name.identity_name`, must match; empty takes any.
    """

    pattern: str
    require: Requirement
    keys: tuple[PublicKey, ...] = ()
    identity: str = ""


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """Rules in order; the first that matches counts.

    Args:
        rules: See :class:`Rule`.
        default: What is asked where none matches.
    """

    rules: tuple[Rule, ...] = ()
    default: Requirement = Requirement.NOTHING

    def rule_for(self, name: str) -> Rule:
        """Give the rule for what :func:`cas.model.policy_name.policy_name` gave."""
        for rule in self.rules:
            if fnmatchcase(name, rule.pattern):
                return rule
        return Rule("*", self.default)


OPEN_POLICY = SignaturePolicy()
"""Asks for nothing."""
