"""The Python client of the service ``cas.v1``."""

__all__ = ["Client", "ServiceFacts"]

from cas.rpc.client.client import Client
from cas.rpc.client.facts import ServiceFacts
