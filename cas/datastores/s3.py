"""S3 and what speaks its protocol: signed URLs, and web downloads of them.

botocore signs. It is not asked to transfer, so that what holds for other downloads holds here.
"""

__all__ = ["open_s3"]

from urllib.parse import quote, urlsplit

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as SigningKey

from cas.datastores.http.source import HTTPSource
from cas.datastores.http.transport import Transport
from cas.datastores.settings import Credentials, SourceSettings
from cas.errors import ConfigError

_DEFAULT_REGION = "us-east-1"
_SIGNATURE_SECONDS = 3600
"""A download that takes longer is not cut: a signature counts when a request begins."""


def open_s3(settings: SourceSettings) -> HTTPSource:
    """Open a bucket, or what has a common prefix in it.

    Args:
        settings: URL ``s3://bucket/prefix``; the endpoint of a server that is not AWS.

    Raises:
        ConfigError: The URL has no bucket.
    """
    parts = urlsplit(settings.url)
    bucket, prefix = parts.netloc, parts.path.strip("/")
    if not bucket:
        raise ConfigError("the URL of an S3 datastore has no bucket; write s3://bucket/prefix")
    region = settings.region or _DEFAULT_REGION
    base = _base(settings, bucket, region)
    signer = _signer(settings.credentials, region)

    def address(method: str, path: str) -> str:
        key = "/".join(part for part in (prefix, path.lstrip("/")) if part)
        request = AWSRequest(method, f"{base}/{quote(key, safe='/~')}")
        if signer is not None:
            signer.add_auth(request)
        return str(request.url)

    name = f"s3://{bucket}/{prefix}".rstrip("/")
    return HTTPSource(name, Transport(settings.transport, base), address=address)


def _base(settings: SourceSettings, bucket: str, region: str) -> str:
    in_path = settings.path_style
    if in_path is None:  # a certificate for one label does not cover a name with dots
        in_path = bool(settings.endpoint) or "." in bucket
    server = settings.endpoint.rstrip("/") or f"https://s3.{region}.amazonaws.com"
    if in_path:
        return f"{server}/{bucket}"
    scheme, separator, host = server.partition("://")
    return f"{scheme}{separator}{bucket}.{host}"


def _signer(credentials: Credentials, region: str) -> S3SigV4QueryAuth | None:
    if not credentials.username:
        return None
    key = SigningKey(
        credentials.username,
        credentials.password.reveal(),
        credentials.identity_token.reveal() or None,
    )
    return S3SigV4QueryAuth(key, "s3", region, expires=_SIGNATURE_SECONDS)
