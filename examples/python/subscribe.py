"""Prints every event once, in order, and misses none, whenever it runs: python subscribe.py NAME. Needs nats-py.

The server keeps a place in the log under that name. NATS_URL and ENLIST_PREFIX where they are not the usual ones.
"""
import asyncio
import json
import os
import sys

import nats
from nats.errors import TimeoutError as Nothing
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy


async def main(name):
    prefix = os.environ.get("ENLIST_PREFIX", "enlist")
    connection = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    config = ConsumerConfig(
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        max_ack_pending=1,  # one at a time: a second event of a worker is not begun before the first is done
    )
    events = await connection.jetstream().pull_subscribe(
        f"{prefix}.events.*.*.*", durable=name, stream=f"{prefix.upper()}_EVENTS", config=config
    )
    while True:
        try:
            [message] = await events.fetch(1, timeout=5)
        except Nothing:
            continue
        data = json.loads(message.data)["data"]
        whom = f"{data['pool']}/{data['worker_id']}" if "worker_id" in data else data["pool"]
        print(message.metadata.sequence.stream, whom, data["state"], flush=True)
        # Only now: a crash before this brings the event again, and a crash after it does not. Whoever stores what an event
        # says, stores the sequence beside it, and passes over one that it has.
        await message.ack_sync()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "audit"))
