"""Which rule of a signature policy counts."""

from cas.model.signature_policy import OPEN_POLICY, Requirement, Rule, SignaturePolicy

POLICY = SignaturePolicy(
    (
        Rule("docker.io/library/*", Requirement.NOTHING),
        Rule("docker.io/*", Requirement.REFUSE),
        Rule("example.com/[ab]:*", Requirement.COSIGN),
    ),
    Requirement.REFUSE,
)


def test_first_rule_that_matches_counts() -> None:
    """Order decides, not how narrow a pattern is."""
    assert POLICY.rule_for("docker.io/library/busybox:1").require is Requirement.NOTHING
    assert POLICY.rule_for("docker.io/other/busybox:1").require is Requirement.REFUSE
    assert POLICY.rule_for("example.com/a:1").require is Requirement.COSIGN


def test_default_counts_where_no_rule_matches() -> None:
    """A closed policy refuses what it does not name."""
    assert POLICY.rule_for("example.com/c:1").require is Requirement.REFUSE
    assert POLICY.rule_for("DOCKER.IO/library/busybox:1").require is Requirement.REFUSE


def test_open_policy_asks_for_nothing() -> None:
    """Which is what holds without a policy file."""
    assert OPEN_POLICY.rule_for("anything").require is Requirement.NOTHING
