"""Reading a signature policy."""

import os
from pathlib import Path

import pytest

from cas.errors import ConfigError
from cas.model.signature_policy import PublicKey, Requirement, Rule
from cas.pull.policy_file import load_policy

POLICY = """
default = "closed"

[[rule]]
match = "registry.example.com/prod/*"
require = "cosign"
keys = ["prod.pub"]
identity = "registry.example.com/prod/*"

[[rule]]
match = "*"
require = "nothing"
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    (tmp_path / "prod.pub").write_text("a key")
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    for file in tmp_path.iterdir():
        file.chmod(0o644)
    return path


@pytest.fixture(autouse=True)
def owned_by_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the files of whoever runs the tests be root's."""
    monkeypatch.setattr("cas.pull.policy_file._TRUSTED", os.getuid())


def test_policy_file_gives_rules_with_their_keys(policy: Path) -> None:
    """Keys are found beside the policy; the default closes it."""
    read = load_policy(policy)

    identity = "registry.example.com/prod/*"
    key = PublicKey("prod.pub", "a key")
    assert read.rules == (
        Rule(identity, Requirement.COSIGN, (key,), identity),
        Rule("*", Requirement.NOTHING),
    )
    assert read.default is Requirement.REFUSE


def test_empty_policy_is_open(policy: Path) -> None:
    """Nothing is asked for until somebody says so."""
    policy.write_text("")

    assert load_policy(policy).rule_for("x").require is Requirement.NOTHING


@pytest.mark.parametrize(
    "text",
    [
        "default = 'ajar'",
        "unknown = 1",
        "[[rule]]\nmatch = '*'",
        "[[rule]]\nmatch = '*'\nrequire = 'magic'",
        "[[rule]]\nmatch = '*'\nrequire = 'cosign'",
        "[[rule]]\nmatch = '*'\nrequire = 'nothing'\nkeys = ['prod.pub']",
        "[[rule]]\nmatch = '*'\nrequire = 'cosign'\nkeys = ['absent.pub']",
        "[[rule]]\nmatch = 'Registry.example.com/*'\nrequire = 'refuse'",
        "[[rule]]\nmatch = '*'\nrequire = 'cosign'\nkeys = ['prod.pub']\nidentity = 'R.example/*'",
        "not toml",
    ],
)
def test_wrong_policy_is_refused(text: str, policy: Path) -> None:
    """A policy that is half understood would protect nobody."""
    policy.write_text(text)

    with pytest.raises(ConfigError):
        load_policy(policy)


@pytest.mark.parametrize("name", ["policy.toml", "prod.pub"])
def test_file_that_others_may_write_is_refused(name: str, policy: Path) -> None:
    """Whoever can write it says what is trusted."""
    (policy.parent / name).chmod(0o664)

    with pytest.raises(ConfigError, match="chmod go-w"):
        load_policy(policy)


def test_missing_policy_is_refused(tmp_path: Path) -> None:
    """Rather than taken for an open one."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy(tmp_path / "absent.toml")
