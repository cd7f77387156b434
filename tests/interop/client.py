#!/usr/bin/env python3
"""A TCP client: sends messages of several sizes to an echo server and checks what comes back.

    python3 client.py HOST PORT
"""

import socket
import sys
import threading

SIZES = [1, 1024, 1024 * 1024]
TIMEOUT = 30  # seconds without a byte after which we give up


def pattern(start, count):
    """The bytes at positions start to start + count; each depends on its position."""
    return bytes((i * 31 + (i >> 8) * 7 + (i >> 16)) & 0xFF for i in range(start, start + count))


def send_all(client_socket, messages):
    for message in messages:
        client_socket.sendall(message)
    # Half-close: we send no more, but still read. The server sees the end of our data and, when it
    # has sent back everything, closes its side too.
    client_socket.shutdown(socket.SHUT_WR)


def main():
    host, port = sys.argv[1], int(sys.argv[2])

    # Several messages, of which the large one does not fit into the buffers on the way.
    messages, position = [], 0
    for size in SIZES:
        messages.append(pattern(position, size))
        position += size
    expected = b"".join(messages)

    client_socket = socket.create_connection((host, port), timeout=TIMEOUT)
    with client_socket:
        # Send in a thread of its own and read here: if we sent everything before reading, both sides
        # could wait for each other with full buffers.
        sender = threading.Thread(target=send_all, args=(client_socket, messages), daemon=True)
        sender.start()
        received = bytearray()
        while True:
            data = client_socket.recv(4096)
            if not data:
                break  # the server has closed its side
            received += data
        sender.join(TIMEOUT)

    if len(received) != len(expected):
        sys.exit(f"sent {len(expected)} bytes, got {len(received)} back")
    if received != expected:
        at = next(i for i in range(len(expected)) if received[i] != expected[i])
        sys.exit(f"byte {at} is {received[at]}, not {expected[at]}")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"connection failed: {error}")
