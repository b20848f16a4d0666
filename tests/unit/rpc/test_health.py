"""Whether a service counts as answering."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cas.rpc.health import HealthProbe


class _Health(health_pb2_grpc.HealthServicer):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def Check(  # noqa: N802 - the protocol's name
        self, _request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        if self._code is not grpc.StatusCode.OK:
            context.abort(self._code, "")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)


@pytest.mark.parametrize(
    ("code", "answers"),
    [
        (grpc.StatusCode.OK, True),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, False),
        (grpc.StatusCode.UNAVAILABLE, False),
    ],
)
def test_probe_of_a_service_takes_only_ok_for_an_answer(
    tmp_path: Path, code: grpc.StatusCode, answers: bool
) -> None:
    """A service that says it is not serving answers; one that refuses the question does not."""
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        health_pb2_grpc.add_HealthServicer_to_server(_Health(code), server)
        server.add_insecure_port(f"unix:{tmp_path}/socket")
        server.start()
        with HealthProbe(tmp_path / "socket") as probe:
            assert probe.answers(30) is answers
        server.stop(None).wait()
