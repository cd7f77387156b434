#!/usr/bin/env python3
"""Peers that verify every byte, for the system tests. Runs in the client's network namespace.

    load.py once  PORT BYTES HOST         one conversation
    load.py crowd PORT COUNT HOST...      COUNT conversations at the same moment
    load.py storm PORT COUNT HOST...      COUNT peers that come again and again until standard input ends
    load.py hold  PORT COUNT HOST...      COUNT connections that stay; each line of standard input asks
                                          all of them to echo; the end of the input ends them
    load.py clog  PORT COUNT HOST...      COUNT connections that send a lot and read nothing, until the end of
                                          the input

Prints one line of JSON for each thing that it was asked to do. `refused` counts what no peer may ever
see: a connection that was not let in. `broken` are conversations that began and were cut, `late` those
that took longer than PATIENCE, `wrong` those that got other bytes than they sent.
"""

import asyncio
import collections
import json
import random
import resource
import sys
import time

PATIENCE = 60


class Tally:
    """What became of the conversations."""

    def __init__(self):
        self.count = collections.Counter(served=0, refused=0, broken=0, late=0, wrong=0)
        self.slowest = 0.0
        self.errors = collections.Counter()

    def add(self, outcome, seconds, error=None):
        self.count[outcome] += 1
        self.slowest = max(self.slowest, seconds)
        if error is not None:
            self.errors[f"{outcome}: {error!r}"] += 1

    def tell(self):
        told = dict(self.count, slowest=round(self.slowest, 3))
        if self.errors:
            told["errors"] = self.errors.most_common(5)
        print(json.dumps(told), flush=True)


async def connect(host, port):
    return await asyncio.open_connection(host, port, limit=1 << 20)


async def converse(host, port, payload, tally):
    """Connects, sends, half-closes, and expects the same bytes and then the end."""
    begun = time.monotonic()
    refusal = "refused"
    writer = None
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await connect(host, port)
            refusal = "broken"
            writer.write(payload)
            writer.write_eof()
            answer = await reader.read(-1)
        outcome = "served" if answer == payload else "broken" if payload.startswith(answer) else "wrong"
        error = None if outcome == "served" else f"{len(answer)} of {len(payload)} bytes"
    except TimeoutError as timeout:
        outcome, error = "late", timeout
    except OSError as refused:
        outcome, error = refusal, refused
    finally:
        if writer is not None:
            writer.close()
    tally.add(outcome, time.monotonic() - begun, error)


async def once(port, count, hosts):
    tally = Tally()
    await converse(hosts[0], port, random.randbytes(count), tally)
    tally.tell()


async def crowd(port, count, hosts):
    tally = Tally()
    await asyncio.gather(
        *(converse(hosts[n % len(hosts)], port, random.randbytes(1 + n % 3000), tally) for n in range(count))
    )
    tally.tell()


async def lines():
    """Standard input, line by line."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line


async def storm(port, count, hosts):
    tally = Tally()
    over = asyncio.Event()

    async def peer(n):
        while not over.is_set():
            await asyncio.sleep(random.uniform(0, 2))  # never more than a few ports in TIME_WAIT
            await converse(hosts[n % len(hosts)], port, random.randbytes(random.randint(1, 8000)), tally)

    peers = [asyncio.create_task(peer(n)) for n in range(count)]
    while tally.count["served"] < count:
        await asyncio.sleep(0.05)
    tally.tell()  # they are all at it
    async for _ in lines():
        tally.tell()
    over.set()
    await asyncio.gather(*peers)
    tally.tell()


async def hold(port, count, hosts):
    held = []
    for n in range(count):
        async with asyncio.timeout(PATIENCE):
            held.append(await connect(hosts[n % len(hosts)], port))

    async def ask(reader, writer, tally):
        begun, payload = time.monotonic(), random.randbytes(50)
        try:
            async with asyncio.timeout(PATIENCE):
                writer.write(payload)
                answer = await reader.readexactly(len(payload))
            tally.add("served" if answer == payload else "wrong", time.monotonic() - begun)
        except TimeoutError as timeout:
            tally.add("late", time.monotonic() - begun, timeout)
        except (OSError, asyncio.IncompleteReadError) as ended:
            tally.add("broken", time.monotonic() - begun, ended)

    async def ask_all():
        tally = Tally()
        await asyncio.gather(*(ask(*connection, tally) for connection in held))
        tally.tell()

    print(json.dumps({"held": len(held)}), flush=True)
    async for _ in lines():
        await ask_all()


async def clog(port, count, hosts):
    """Peers that are owed bytes: their sockets are full in both directions."""
    held = []
    for n in range(count):
        reader, writer = await connect(hosts[n % len(hosts)], port)
        writer.transport.pause_reading()
        writer.write(bytes(16 << 20))
        held.append((reader, writer))
    buffered = None
    while buffered != (buffered := [writer.transport.get_write_buffer_size() for _, writer in held]):
        await asyncio.sleep(0.5)
    print(json.dumps({"held": len(held)}), flush=True)
    async for _ in lines():
        pass


def main():
    verb, port, count, *hosts = sys.argv[1:]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16384)), hard))
    verbs = {"once": once, "crowd": crowd, "storm": storm, "hold": hold, "clog": clog}
    asyncio.run(verbs[verb](int(port), int(count), hosts))


if __name__ == "__main__":
    main()
