"""gRPC interoperability cases as bytes: the messages of grpc.testing are small enough to be written by hand."""
import sys
import threading

import grpc

SERVICE = "/grpc.testing.TestService/"


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def payload(size):
    return field(2, bytes(size))


def parameters(size):
    return field(1, size)


def fields(message):
    """The fields of a message: number and value."""
    at = 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = number()
        value = number()
        if tag & 7 == 2:
            value, at = message[at : at + value], at + value
        yield tag >> 3, value


def body(response):
    """The length of the payload's body."""
    return len(dict(fields(dict(fields(response))[1]))[2])


SIZES = [31415, 9, 2653, 58979]
REQUESTS = [27182, 8, 1828, 45904]


def main(address):
    channel = grpc.insecure_channel(address)
    call = lambda kind, method, service=SERVICE: getattr(channel, kind)(service + method)
    unary = call("unary_unary", "UnaryCall")

    assert call("unary_unary", "EmptyCall")(b"", timeout=30) == b""
    print("ok empty_unary")

    assert body(unary(field(2, 314159) + field(3, payload(271828)), timeout=60)) == 314159
    print("ok large_unary")

    sent = call("stream_unary", "StreamingInputCall")(iter([field(1, payload(n)) for n in REQUESTS]), timeout=60)
    assert dict(fields(sent))[1] == 74922
    print("ok client_streaming")

    asked = b"".join(field(2, parameters(n)) for n in SIZES)
    assert [body(r) for r in call("unary_stream", "StreamingOutputCall")(asked, timeout=60)] == SIZES
    print("ok server_streaming")

    turn = threading.Semaphore(0)

    def ping():
        for size, request in zip(SIZES, REQUESTS):
            yield field(2, parameters(size)) + field(3, payload(request))
            turn.acquire()

    answers = []
    for answer in call("stream_stream", "FullDuplexCall")(ping(), timeout=60):
        answers.append(body(answer))
        turn.release()
    assert answers == SIZES, answers
    print("ok ping_pong")

    assert list(call("stream_stream", "FullDuplexCall")(iter(()), timeout=60)) == []
    print("ok empty_stream")

    metadata = (("x-grpc-test-echo-initial", "test_initial_metadata_value"), ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab"))
    response, meta = unary.with_call(field(2, 1) + field(3, payload(1)), metadata=metadata, timeout=60)
    assert ("x-grpc-test-echo-initial", "test_initial_metadata_value") in [tuple(m) for m in meta.initial_metadata()]
    assert ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab") in [tuple(m) for m in meta.trailing_metadata()]
    print("ok custom_metadata")

    def status_of(call):
        try:
            call()
        except grpc.RpcError as error:
            return error.code(), error.details()
        raise AssertionError("it succeeded")

    # As the field's own client does: a unary call, then a stream.
    asked = field(7, field(1, 2) + field(2, b"test status message"))
    assert status_of(lambda: unary(asked, timeout=60)) == (grpc.StatusCode.UNKNOWN, "test status message")
    duplex = call("stream_stream", "FullDuplexCall")
    assert status_of(lambda: list(duplex(iter([asked]), timeout=60))) == (grpc.StatusCode.UNKNOWN, "test status message")
    print("ok status_code_and_message")

    text = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
    asked = field(7, field(1, 2) + field(2, text.encode()))
    assert status_of(lambda: unary(asked, timeout=60)) == (grpc.StatusCode.UNKNOWN, text)
    print("ok special_status_message")

    code, _ = status_of(lambda: call("unary_unary", "UnimplementedCall")(b"", timeout=60))
    assert code == grpc.StatusCode.UNIMPLEMENTED
    print("ok unimplemented_method")

    other = call("unary_unary", "UnimplementedCall", "/grpc.testing.UnimplementedService/")
    code, _ = status_of(lambda: other(b"", timeout=60))
    assert code == grpc.StatusCode.UNIMPLEMENTED
    print("ok unimplemented_service")

    never = threading.Event()

    def silent():
        never.wait(60)
        yield b""

    begun = call("stream_unary", "StreamingInputCall").future(silent(), timeout=60)
    begun.cancel()
    never.set()
    assert begun.cancelled() and begun.code() == grpc.StatusCode.CANCELLED, begun.code()
    print("ok cancel_after_begin")

    never = threading.Event()

    def one():
        yield field(2, parameters(SIZES[0])) + field(3, payload(REQUESTS[0]))
        never.wait(60)

    begun = duplex(one(), timeout=60)
    assert body(next(begun)) == SIZES[0]
    begun.cancel()
    never.set()
    code, _ = status_of(lambda: next(begun))
    assert code == grpc.StatusCode.CANCELLED, code
    # What was cancelled has not cost the others their connection.
    assert call("unary_unary", "EmptyCall")(b"", timeout=30) == b""
    print("ok cancel_after_first_response")

    def asleep():
        yield field(3, payload(27182))
        threading.Event().wait(5)

    code, _ = status_of(lambda: list(call("stream_stream", "FullDuplexCall")(asleep(), timeout=0.01)))
    # The server keeps the same deadline: where its reset is first, that is what this client reports.
    assert code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED), code
    print("ok timeout_on_sleeping_server")


main(sys.argv[1])
