"""The messages of a call, waited for by a thread of their own."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from cas.rpc.server.call import Call
from cas.rpc.server.request_stream import received_apart
from cas.store.workers import WorkerPool
from tests.support.daemon import WAIT_SECONDS


def _defective() -> Iterator[bytes]:
    yield b"first"
    message = "a defect"
    raise ValueError(message)


def _take(_raw: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    """Say how the messages ended."""
    with (
        WorkerPool(1) as workers,
        received_apart(_defective(), Call("/test/Take", context), workers) as messages,
    ):
        try:
            list(messages)
        except ValueError as error:
            return str(error).encode()
    return b"they ended well"


def test_messages_apart_that_end_with_a_defect_end_the_call_with_it(tmp_path: Path) -> None:
    """The other thread's exception comes out where the message is waited for."""
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Take": grpc.stream_unary_rpc_method_handler(_take)
    }
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test", handlers)])
        server.add_insecure_port(f"unix:{tmp_path}/socket")
        server.start()
        with grpc.insecure_channel(f"unix:{tmp_path}/socket") as channel:
            take: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary("/test/Take")
            answer = take(iter([b""]), timeout=WAIT_SECONDS)
        server.stop(None).wait()

    assert answer == b"a defect"
