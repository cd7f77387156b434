#!/usr/bin/env python3
"""A client that compresses with gzip: messages of several sizes to an echo server, and what comes back.

    python3 client_gzip.py HOST PORT
"""

import gzip
import io
import socket
import sys
import threading
import zlib

SIZES = [1, 1024, 1024 * 1024]
TIMEOUT = 30  # seconds without a byte after which we give up
GZIP = 31  # what zlib calls gzip's format, with the largest window


def pattern(start, count):
    """The bytes at positions start to start + count; each depends on its position."""
    return bytes((i * 31 + (i >> 8) * 7 + (i >> 16)) & 0xFF for i in range(start, start + count))


def converse(client_socket, messages):
    """One stream each way: every message is flushed, and its answer read before the next is sent."""
    packer, opener = zlib.compressobj(wbits=GZIP), zlib.decompressobj(wbits=GZIP)
    for message in messages:
        data = packer.compress(message) + packer.flush(zlib.Z_SYNC_FLUSH)
        sender = threading.Thread(target=client_socket.sendall, args=(data,), daemon=True)
        sender.start()
        answer = b""
        while len(answer) < len(message):
            data = client_socket.recv(4096)
            if not data:
                sys.exit(f"closed after {len(answer)} of {len(message)} bytes")
            answer += opener.decompress(data)
        sender.join(TIMEOUT)
        if answer != message:
            sys.exit(f"another answer to {len(message)} bytes")
    client_socket.sendall(packer.flush())
    while not opener.eof:
        data = client_socket.recv(4096)
        if not data:
            sys.exit("closed before the end of the stream")
        if opener.decompress(data):
            sys.exit("more came back than was sent")


def send_files(client_socket, messages):
    for message in messages:
        client_socket.sendall(gzip.compress(message))
    # Half-close: we send no more, but still read.
    client_socket.shutdown(socket.SHUT_WR)


def main():
    host, port = sys.argv[1], int(sys.argv[2])

    messages, position = [], 0
    for size in SIZES:
        messages.append(pattern(position, size))
        position += size
    expected = b"".join(messages)

    with socket.create_connection((host, port), timeout=TIMEOUT) as client_socket:
        converse(client_socket, messages)
        # On the same connection, one gzip file after another; what comes back is read as one.
        sender = threading.Thread(target=send_files, args=(client_socket, messages), daemon=True)
        sender.start()
        packed = bytearray()
        while True:
            data = client_socket.recv(4096)
            if not data:
                break  # the server has closed its side
            packed += data
        sender.join(TIMEOUT)

    received = gzip.GzipFile(fileobj=io.BytesIO(packed)).read()
    if len(received) != len(expected):
        sys.exit(f"sent {len(expected)} bytes, got {len(received)} back")
    if received != expected:
        at = next(i for i in range(len(expected)) if received[i] != expected[i])
        sys.exit(f"byte {at} is {received[at]}, not {expected[at]}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, EOFError, zlib.error) as error:
        sys.exit(f"connection failed: {error!r}")
