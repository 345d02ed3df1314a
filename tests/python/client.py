"""A client and a scheduler that know enlist's contract and none of its code: nats-py and the standard library.

Usage: client.py URL PREFIX. The fleet has the pools `py` (null, allows labels), `tiny` (null, max_workers 1) and `edge`
(static, one host `edge-1`), and its scheduler listens on PREFIX.scheduler.register, .unregister and .list.
"""

import asyncio
import base64
import hashlib
import json
import sys
from collections import defaultdict
from datetime import datetime

import nats
from nats.js.errors import NoStreamResponseError

PATIENCE = 30
FINAL = {"terminated", "failed", "lost"}


def check(holds, *what):
    """As assert, which python -O would leave out."""
    if not holds:
        raise AssertionError(" ".join(str(part) for part in what))


class Seen:
    """Messages as they come, and a way to wait for the one that is meant."""

    def __init__(self):
        self.all = []
        self._news = asyncio.Condition()

    async def add(self, one):
        async with self._news:
            self.all.append(one)
            self._news.notify_all()

    async def wait(self, what, meant):
        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(lambda: any(map(meant, self.all))), PATIENCE)
            except asyncio.TimeoutError:
                raise AssertionError(f"{what} did not come; there were {self.all}") from None
        return next(one for one in self.all if meant(one))


class Scheduler:
    """Answers as it is told for a worker, then accepts."""

    def __init__(self, client, prefix):
        self.client, self.prefix = client, prefix
        self.answers = defaultdict(list)
        self.asked = Seen()
        self.listed = {}

    async def start(self):
        for verb in ("register", "unregister", "list"):
            await self.client.subscribe(f"{self.prefix}.scheduler.{verb}", cb=self._answer)

    async def _answer(self, message):
        verb, body = message.subject.rsplit(".", 1)[1], json.loads(message.data)
        if verb == "list":
            workers = [{"worker_id": w, "pool": p, "epoch": e} for (p, w), e in self.listed.items()]
            return await message.respond(json.dumps({"workers": workers}).encode())
        script = self.answers[(verb, body["worker_id"])]
        answer = script.pop(0) if script else {"status": "accepted"}
        if answer["status"] == "accepted":
            key = (body["pool"], body["worker_id"])
            self.listed[key] = body["epoch"]
            if verb == "unregister":
                del self.listed[key]
        # Noted before it is answered, so that whoever sees what follows finds it.
        await self.asked.add((verb, body))
        await message.respond(json.dumps(answer).encode())

    def requests(self, verb, worker):
        return [body for asked, body in self.asked.all if asked == verb and body["worker_id"] == worker]


class Client:
    def __init__(self, connection, prefix):
        self.connection, self.prefix = connection, prefix
        self.stream = connection.jetstream()
        self.events, self.dead = Seen(), Seen()
        self.scheduler = Scheduler(connection, prefix)
        self.numbers = defaultdict(int)

    async def start(self):
        await self.scheduler.start()

        async def event(message):
            await self.events.add(self.read_event(message))

        async def dead(message):
            await self.dead.add((message.subject, dict(message.headers), message.data))

        await self.connection.subscribe(f"{self.prefix}.events.>", cb=event)
        await self.connection.subscribe(f"{self.prefix}.dead.>", cb=dead)
        await self.connection.flush()

    def read_event(self, message):
        """Every event that anybody sees is held to section 4."""
        event = json.loads(message.data)
        data = event["data"]
        _, _, pool, worker, state = message.subject.split(".")
        check(message.headers["Content-Type"] == "application/cloudevents+json", message.headers)
        check(event["specversion"] == "1.0", event)
        check(event["id"] == f"{pool}.{worker}.{data['rev']}", event)
        check(event["source"] == f"/enlist/{self.prefix}", event)
        check(event["type"] == f"enlist.worker.{state}.v1", event)
        check(event["subject"] == f"{pool}/{worker}", event)
        check(event["datacontenttype"] == "application/json", event)
        check((data["pool"], data["worker_id"], data["state"]) == (pool, worker, state), event)
        check(data["worker_type"] in ("dynamic", "static") and data["provider"] and data["spec_hash"], event)
        check(data["epoch"] >= 1 and data["attempts"] >= 0 and isinstance(data["capabilities"], dict), event)
        check(data["registration"]["status"] in ("disabled", "pending", "registered", "failed"), event)
        for time in (event["time"], data["created_at"], data["updated_at"]):
            check(time.endswith("Z") and datetime.strptime(time[:19], "%Y-%m-%dT%H:%M:%S"), time)
        self.numbers[(pool, worker)] += 1
        check(data["rev"] == self.numbers[(pool, worker)], "a gap before", event)
        return data

    async def send(self, pool, verb, command, msg_id=None):
        body = command if isinstance(command, bytes) else json.dumps(command).encode()
        headers = {"Nats-Msg-Id": msg_id or (command.get("command_id") if isinstance(command, dict) else None) or "raw"}
        return await self.stream.publish(f"{self.prefix}.cmd.{pool}.{verb}", body, headers=headers)

    async def outcome(self, state, worker=None, command=None):
        def meant(data):
            fits = worker in (None, data["worker_id"]) and command in (None, data["command_id"])
            return fits and data["state"] == state

        return await self.events.wait(f"{state} of {worker or command}", meant)

    async def letter(self, pool, verb, command_id, reason, sent):
        """The dead letter of a command, held to section 3; returns its detail."""
        subject = f"{self.prefix}.dead.{pool}.{verb}.{command_id}"
        what = f"a dead letter on {subject} ({reason})"
        _, headers, body = await self.dead.wait(what, lambda it: it[0] == subject and it[1]["Enlist-Reason"] == reason)
        check(body == (sent if isinstance(sent, bytes) else json.dumps(sent).encode()), "another body", body)
        check(headers["Enlist-Subject"] == f"{self.prefix}.cmd.{pool}.{verb}", headers)
        check(int(headers["Enlist-Sequence"]) >= 1 and int(headers["Enlist-Deliveries"]) >= 1, headers)
        check(headers["Enlist-Detail"], headers)
        return headers["Enlist-Detail"]

    async def viewed(self, pool, worker, state):
        """Waits until the server's own projection has it, then reads it the plain way."""
        view = await self.stream.key_value(f"{self.prefix}_workers")
        watcher = await view.watch(f"{pool}.{worker}")
        try:
            while True:
                entry = await watcher.updates(timeout=PATIENCE)
                if entry is not None and json.loads(entry.value)["data"]["state"] == state:
                    break
        finally:
            await watcher.stop()
        check(f"{pool}.{worker}" in await view.keys(), "not among the keys")
        data = json.loads((await view.get(f"{pool}.{worker}")).value)["data"]
        check(data["state"] == state, data)
        return data


def states(client, worker):
    return [data["state"] for data in client.events.all if data["worker_id"] == worker]


async def a_provision_without_a_name_is_registered_under_the_derived_one(client):
    digest = hashlib.sha256(b"py/c-1").digest()
    worker = "w-" + base64.b32encode(digest).decode().rstrip("=").lower()[:26]
    command = {"command_id": "c-1", "correlation_id": "thread 7", "spec": {"labels": {"zone": "a"}}}
    ack = await client.send("py", "provision", command)
    check(ack.stream == f"{client.prefix.upper()}_CMD_py", ack)
    data = await client.outcome("registered", worker=worker)
    check(states(client, worker) == ["provisioning", "provisioned", "registered"], states(client, worker))
    check((data["command_id"], data["correlation_id"], data["epoch"]) == ("c-1", "thread 7", 1), data)
    check(data["registration"] == {"status": "registered", "attempts": 1}, data)
    check(data["capabilities"]["labels"]["zone"] == "a", data)
    [request] = client.scheduler.requests("register", worker)
    wanted = {"worker_id", "pool", "worker_type", "capabilities", "epoch", "rev", "attempt", "expires_at"}
    check(wanted <= set(request), request)
    check((request["pool"], request["epoch"], request["rev"], request["attempt"]) == ("py", 1, 2, 1), request)
    check(request["instance_id"] == data["instance_id"], request)
    viewed = await client.viewed("py", worker, "registered")
    check(viewed == data, "the view differs", viewed, data)
    # Again, within the window: the stream passes it over. Again, later: enlist does.
    check((await client.send("py", "provision", command)).duplicate, "the window did not hold")
    await client.send("py", "provision", command, "c-1 once more")
    await client.send("py", "provision", {**command, "correlation_id": "other"}, "c-1 and other content")
    await client.letter("py", "provision", "c-1", "conflict", {**command, "correlation_id": "other"})
    return worker


async def a_command_may_come_as_a_cloudevent(client):
    data = {"command_id": "c-ce", "worker_id": "ce", "registration": {"enabled": False}}
    event = {"specversion": "1.0", "id": "1", "source": "/test", "type": "test", "data": data}
    await client.send("py", "provision", event, "c-ce")
    data = await client.outcome("provisioned", worker="ce")
    check(data["registration"]["status"] == "disabled", data)
    check(not client.scheduler.requests("register", "ce"), "the scheduler was told against its wish")


async def a_busy_scheduler_is_waited_for_and_a_refusal_is_final(client):
    client.scheduler.answers[("register", "busy")] = [{"status": "busy", "retry_after_ms": 30}] * 2
    await client.send("py", "provision", {"command_id": "c-busy", "worker_id": "busy"})
    data = await client.outcome("registered", worker="busy")
    check(len(client.scheduler.requests("register", "busy")) == 3, client.scheduler.asked.all)
    check(data["registration"]["attempts"] == 1, "a wait counts as no try", data)
    refusal = {"status": "rejected", "code": "banned", "message": "not this one"}
    client.scheduler.answers[("register", "banned")] = [refusal]
    await client.send("py", "provision", {"command_id": "c-banned", "worker_id": "banned"})
    data = await client.outcome("registration_failed", worker="banned")
    check(data["registration"]["status"] == "failed", data)
    check(data["registration"]["error"] == {"code": "banned", "message": "not this one", "critical": True}, data)
    check(data["instance_id"], "the worker stays", data)


async def what_cannot_be_carried_out_is_a_dead_letter(client):
    await client.send("py", "provision", b"{", "broken")
    await client.letter("py", "provision", "_", "malformed", b"{")
    deep = b'{"command_id":"c-deep","spec":' + b"[" * 20 + b"]" * 20 + b"}"
    await client.send("py", "provision", deep, "deep")
    await client.dead.wait("deep JSON", lambda it: it[2] == deep and it[1]["Enlist-Reason"] == "malformed")
    for reason, part, command in [
        ("invalid", "colour", {"command_id": "c-colour", "colour": "red"}),
        ("invalid", "worker_id", {"command_id": "c-name", "worker_id": "Not.A.Name"}),
        ("not_allowed", "env", {"command_id": "c-env", "spec": {"env": {"A": "b"}}}),
        ("expired", "expires_at", {"command_id": "c-late", "expires_at": "2020-01-01T00:00:00Z"}),
        ("conflict", "ce", {"command_id": "c-taken", "worker_id": "ce"}),
    ]:
        await client.send("py", "provision", command)
        detail = await client.letter("py", "provision", command["command_id"], reason, command)
        check(part in detail, "the detail says nothing of", part, detail)
    missing = {"command_id": "t-nobody"}
    await client.send("py", "terminate", missing)
    check("worker_id" in await client.letter("py", "terminate", "t-nobody", "invalid", missing), "which field?")


async def an_unknown_pool_or_verb_gets_no_receipt(client):
    for pool, verb in [("nowhere", "provision"), ("py", "frobnicate"), ("py", "provision.now")]:
        try:
            await client.send(pool, verb, {"command_id": "c-nowhere"})
        except NoStreamResponseError:
            continue
        raise AssertionError(f"{pool}.{verb} was taken")


async def a_full_pool_refuses(client):
    await client.send("tiny", "provision", {"command_id": "c-fits", "worker_id": "fits"})
    await client.outcome("registered", worker="fits")
    over = {"command_id": "c-over", "worker_id": "over"}
    await client.send("tiny", "provision", over)
    await client.letter("tiny", "provision", "c-over", "quota", over)
    await client.send("tiny", "terminate", {"command_id": "t-fits", "worker_id": "fits"})
    await client.outcome("terminated", worker="fits")
    await client.viewed("tiny", "fits", "terminated")
    await client.send("tiny", "provision", {"command_id": "c-next", "worker_id": "next"})
    await client.outcome("registered", worker="next")


async def a_terminate_tells_the_scheduler_and_ends_the_worker(client, worker):
    client.scheduler.answers[("unregister", worker)] = [{"status": "busy", "retry_after_ms": 30}]
    command = {"command_id": "t-1", "worker_id": worker, "reason": "no longer needed", "grace_ms": 5000}
    await client.send("py", "terminate", command)
    data = await client.outcome("terminated", worker=worker)
    check(states(client, worker)[-2:] == ["terminating", "terminated"], states(client, worker))
    check(data["ended_by"] == {"command_id": "t-1", "reason": "no longer needed"}, data)
    check((data["command_id"], data["epoch"]) == ("c-1", 2), data)
    first, second = client.scheduler.requests("unregister", worker)
    check((first["epoch"], first["reason"], first["grace_ms"]) == (2, "no longer needed", 5000), first)
    check(second["instance_id"] == data["instance_id"], second)
    await client.viewed("py", worker, "terminated")
    # Its name is not used again.
    again = {"command_id": "c-again", "worker_id": worker}
    await client.send("py", "provision", again)
    await client.letter("py", "provision", "c-again", "conflict", again)


async def a_terminate_before_its_provision_stands_in_its_way(client):
    await client.send("py", "terminate", {"command_id": "t-early", "worker_id": "early"})
    data = await client.outcome("terminated", worker="early")
    check((data["rev"], data["ended_by"]["reason"]) == (1, "unknown"), data)
    late = {"command_id": "c-early", "worker_id": "early"}
    await client.send("py", "provision", late)
    await client.letter("py", "provision", "c-early", "conflict", late)


async def a_host_is_given_freed_and_given_again(client):
    await client.send("edge", "provision", {"command_id": "c-host"})
    data = await client.outcome("registered", command="c-host")
    check((data["worker_id"], data["worker_type"], data["endpoint"]) == ("edge-1", "static", "10.0.0.11:22"), data)
    full = {"command_id": "c-full"}
    await client.send("edge", "provision", full)
    await client.letter("edge", "provision", "c-full", "quota", full)
    await client.send("edge", "terminate", {"command_id": "t-host", "worker_id": "edge-1"})
    ended = await client.outcome("terminated", worker="edge-1")
    await client.send("edge", "provision", {"command_id": "c-host-2"})
    data = await client.outcome("registered", command="c-host-2")
    check(data["worker_id"] == "edge-1" and data["rev"] == ended["rev"] + 3, data)
    check(data["epoch"] > ended["epoch"], data)


async def nothing_came_twice_and_the_queues_are_empty(client):
    outcomes = defaultdict(list)
    for data in client.events.all:
        if data["state"] in FINAL | {"registered", "registration_failed"}:
            outcomes[(data["command_id"], data["worker_id"], data["state"])].append(data["rev"])
    twice = {key: revs for key, revs in outcomes.items() if len(revs) > 1}
    check(not twice, "outcomes that came twice:", twice)
    for pool in ("py", "tiny", "edge"):
        name = f"{client.prefix.upper()}_CMD_{pool}"
        deadline = asyncio.get_running_loop().time() + PATIENCE
        # The last outcome is seen a moment before its command is acked.
        while (await client.stream.stream_info(name)).state.messages:
            check(asyncio.get_running_loop().time() < deadline, "commands are left in", name)
    listed = set(client.scheduler.listed)
    newest = {(data["pool"], data["worker_id"]): data for data in client.events.all}
    live = {key for key, data in newest.items() if data["state"] == "registered"}
    check(listed == live, "the scheduler has", listed, "and the records", live)


async def main(url, prefix):
    failed = []

    async def trouble(error):
        failed.append(error)

    connection = await nats.connect(url, error_cb=trouble)
    client = Client(connection, prefix)
    await client.start()
    print("ready", flush=True)
    worker = await a_provision_without_a_name_is_registered_under_the_derived_one(client)
    await a_command_may_come_as_a_cloudevent(client)
    await a_busy_scheduler_is_waited_for_and_a_refusal_is_final(client)
    await what_cannot_be_carried_out_is_a_dead_letter(client)
    await an_unknown_pool_or_verb_gets_no_receipt(client)
    await a_full_pool_refuses(client)
    await a_terminate_tells_the_scheduler_and_ends_the_worker(client, worker)
    await a_terminate_before_its_provision_stands_in_its_way(client)
    await a_host_is_given_freed_and_given_again(client)
    await nothing_came_twice_and_the_queues_are_empty(client)
    # What a callback found is an error of the connection's.
    check(not failed, "a callback:", failed)
    await connection.close()
    print(f"{len(client.events.all)} events, {len(client.dead.all)} dead letters: all as the contract says")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
