"""Publishes a provision and waits for its outcome: python publish.py POOL. Needs nats-py.

NATS_URL and ENLIST_PREFIX where they are not the usual ones. Ends with 0 where the worker is there.
"""
import asyncio
import json
import os
import sys
import uuid

import nats

OUTCOMES = {"registered", "registration_failed", "failed", "terminated", "lost"}


async def main(pool):
    prefix = os.environ.get("ENLIST_PREFIX", "enlist")
    connection = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    outcome = asyncio.get_running_loop().create_future()
    # Any name that no other command has. The same name again does nothing twice: it may be sent again in doubt.
    command = {"command_id": uuid.uuid4().hex, "correlation_id": "an example"}

    def over(ended):
        if not outcome.done():
            outcome.set_result(ended)

    async def event(message):
        worker = json.loads(message.data)["data"]
        ours = worker.get("command_id") == command["command_id"] and "worker_id" in worker
        unregistered = ours and worker["state"] == "provisioned" and worker["registration"]["status"] == "disabled"
        if ours and (unregistered or worker["state"] in OUTCOMES):
            over((worker["worker_id"], worker["state"]))

    async def dead(message):
        over((message.headers["Enlist-Reason"], message.headers["Enlist-Detail"]))

    # Before the command, so that nothing is missed.
    await connection.subscribe(f"{prefix}.events.{pool}.*.*", cb=event)
    await connection.subscribe(f"{prefix}.dead.{pool}.provision.{command['command_id']}", cb=dead)
    headers = {"Nats-Msg-Id": command["command_id"]}
    stream = connection.jetstream()
    # An unknown pool is an error here.
    ack = await stream.publish(f"{prefix}.cmd.{pool}.provision", json.dumps(command).encode(), headers=headers)
    print(f"command {command['command_id']} is in the queue, number {ack.seq}")
    whom, what = await outcome
    print(f"{whom} is {what}" if what in OUTCOMES | {"provisioned"} else f"{whom}: {what}")
    await connection.close()
    return what in ("registered", "registration_failed", "provisioned")


if __name__ == "__main__":
    sys.exit(not asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "demo")))
