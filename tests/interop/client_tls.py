#!/usr/bin/env python3
"""A TLS client: sends messages of several sizes to an echo server and checks what comes back.

    python3 client_tls.py HOST PORT CA
"""

import asyncio
import ssl
import sys

SIZES = [1, 1024, 1024 * 1024]
TIMEOUT = 30  # seconds in all after which we give up


def pattern(start, count):
    """The bytes at positions start to start + count; each depends on its position."""
    return bytes((i * 31 + (i >> 8) * 7 + (i >> 16)) & 0xFF for i in range(start, start + count))


async def send_all(writer, messages):
    for message in messages:
        writer.write(message)
        await writer.drain()


async def talk(host, port, context):
    # Several messages, of which the large one does not fit into the buffers on the way.
    messages, position = [], 0
    for size in SIZES:
        messages.append(pattern(position, size))
        position += size
    expected = b"".join(messages)

    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    # Send and read side by side: if we sent everything before reading, both sides could wait for each
    # other with full buffers. There is no half-close here, so we read as many bytes as we sent.
    sending = asyncio.create_task(send_all(writer, messages))
    received = await reader.readexactly(len(expected))
    await sending
    writer.close()
    await writer.wait_closed()

    if received != expected:
        at = next(i for i in range(len(expected)) if received[i] != expected[i])
        sys.exit(f"byte {at} is {received[at]}, not {expected[at]}")


def main():
    host, port, ca = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = context.maximum_version = version
        asyncio.run(asyncio.wait_for(talk(host, port, context), TIMEOUT))


if __name__ == "__main__":
    try:
        main()
    except (OSError, EOFError, asyncio.TimeoutError) as error:
        sys.exit(f"connection failed: {error!r}")
