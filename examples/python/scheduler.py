"""A scheduler that takes every worker: python scheduler.py [scheduler.workers]. Needs nats-py.

NATS_URL where it is not the usual one. What it knows is gone with it: the next sweep registers everybody again.
"""
import asyncio
import json
import os
import sys

import nats

PAGE = 500
WORKERS = {}


def register(request):
    key = (request["pool"], request["worker_id"])
    known = WORKERS.get(key, 0)
    # Another replica has taken the worker over since: this request is late, and must not undo what came after.
    WORKERS[key] = max(request["epoch"], known)
    return {"status": "already" if request["epoch"] < known else "accepted"}


def unregister(request):
    # A real one lets the worker finish its work first, and answers {"status": "busy"} meanwhile.
    gone = WORKERS.pop((request["pool"], request["worker_id"]), None)
    return {"status": "unknown" if gone is None else "accepted"}


def list_(request):
    wanted = sorted(key for key in WORKERS if request.get("pool") in (None, key[0]))
    left = [key for key in wanted if "/".join(key) > request.get("after", "")]
    page = [{"pool": pool, "worker_id": worker, "epoch": WORKERS[pool, worker]} for pool, worker in left[:PAGE]]
    return {"workers": page} | ({"next": "/".join(left[PAGE - 1])} if len(left) > PAGE else {})


async def main(root):
    connection = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    answers = {"register": register, "unregister": unregister, "list": list_}

    async def answer(message):
        reply = answers[message.subject.rsplit(".", 1)[1]](json.loads(message.data))
        await message.respond(json.dumps(reply).encode())

    await connection.subscribe(f"{root}.*", queue="scheduler", cb=answer)
    await connection.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "scheduler.workers"))
