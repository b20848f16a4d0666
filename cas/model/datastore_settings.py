"""What an installation says about one datastore: where its keys lie, not what they are."""

__all__ = ["DatastoreSettings"]

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DatastoreSettings:
    """How files of one datastore are fetched; what is empty or None is not used.

    Args:
        username: User; the access key of S3.
        password_file: Holds the password; the secret key of S3, the account key of Azure, the JSON
            key of a service account of Google.
        identity_token_file: Holds the session token of S3.
        private_key_file: An SSH private key without passphrase.
        credential_helper: Gives user and password instead: what comes after ``docker-credential-``
            in the name of a program.
        host_keys_file: Lines of ssh's ``known_hosts``, of which the server must match one.
        headers_file: Headers for the server, ``NAME: VALUE`` in each line.
        ca_file: Authorities trusted beside those of the system, in PEM.
        endpoint: URL of a server with S3's, Azure's or Google's protocol that is not theirs.
        region: Of an S3 bucket.
        path_style: Whether the name of an S3 bucket is in the path of its URL rather than in its
            host; None: as servers of that endpoint usually want it.
    """

    username: str = ""
    password_file: Path | None = None
    identity_token_file: Path | None = None
    private_key_file: Path | None = None
    credential_helper: str = ""
    host_keys_file: Path | None = None
    headers_file: Path | None = None
    ca_file: Path | None = None
    endpoint: str = ""
    region: str = ""
    path_style: bool | None = None
