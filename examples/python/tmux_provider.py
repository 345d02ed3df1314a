"""An external provider: each worker is a tmux session. Needs Python 3.11, nats-py and tmux 3.2, or later.

    python tmux_provider.py [NAME]      NATS_URL says where, ENLIST_TMUX which tmux server (tmux -L)
"""
import asyncio, base64, contextlib, json, os, shlex, signal, sys, uuid
from datetime import datetime, timezone
import nats

SOCKET = os.environ.get("ENLIST_TMUX", "enlist")
# Nothing of this program's own environment goes on to workers: it may hold credentials.
CLEAN = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
KEPT = ("pool", "worker_id", "command_id", "spec_hash", "epoch", "claim")

class Failed(Exception):
    """A class of section 4 of the contract, and words for people."""

async def tmux(*args, script=""):
    # A script comes by standard input: on a command line all of this host could read the worker's environment.
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "tmux", "-L", SOCKET, "-f", "/dev/null", *args, env=CLEAN, stdin=pipe, stdout=pipe, stderr=pipe)
    return [said.decode().strip() for said in await process.communicate(script.encode())]

def session(request):  # no name of ours has an underscore, so that no two workers share a session
    return f"{request['fleet']}_{request['pool']}_{request['worker_id']}"

async def running():  # tmux is the only memory, so that this program can die at any time
    out, _ = await tmux("list-sessions", "-F", "#{session_name} #{pane_pid} #{@enlist}")
    lines = [line.split(" ") for line in out.splitlines()]
    return {name: (int(pid), json.loads(base64.b64decode(record))) for name, pid, record in lines if record}

async def create(request):
    now, spec, name = datetime.now(timezone.utc), request["spec"], session(request)
    if datetime.fromisoformat(request["expires_at"]) < now:
        raise Failed("unavailable", "the request has expired")
    if not spec.get("command"):
        raise Failed("invalid_spec", "spec.command is missing: a session runs one")
    record = {key: request[key] for key in KEPT} | {"labels": spec.get("labels", {}), "instance_id": uuid.uuid4().hex}
    record["created_at"] = now.isoformat()
    kept = base64.b64encode(json.dumps(record).encode()).decode()
    env = " ".join(f"-e {shlex.quote(f'{key}={value}')}" for key, value in spec.get("env", {}).items())
    # tmux has one session of a name: who comes late finds the first one's. Its server stays: one that ends takes it along.
    _, said = await tmux("start-server", ";", "set-option", "-s", "exit-empty", "off", ";", "source-file", "-", script=(
        f"new-session -d -s {name} {env} -- env -- {shlex.join(spec['command'])}\n"
        f"if-shell -F -t {name} '#{{?@enlist,0,1}}' \"set-option -t {name} @enlist {kept}\"\n"))
    _, found = (await running()).get(name, (0, None))
    if found is None:  # of a command that ends at once tmux says nothing
        raise Failed("unavailable" if said else "invalid_spec", said or "the command ended at once, or cannot be run")
    if (found["command_id"], found["spec_hash"]) != (request["command_id"], request["spec_hash"]):
        raise Failed("conflict", f"{name} belongs to command {found['command_id']}")
    return {"instance": found}

async def delete(request):
    name, deadline = session(request), asyncio.get_running_loop().time() + request["grace_ms"] / 1000
    pid, found = (await running()).get(name, (0, None))
    if found and request.get("instance_id") not in (None, found["instance_id"]):
        raise Failed("conflict", f"{name} is {found['instance_id']} now")
    with contextlib.suppress(ProcessLookupError):
        found and os.kill(pid, signal.SIGTERM)
    while found and (await running()).get(name, (0, None))[0] == pid:
        if asyncio.get_running_loop().time() > deadline:
            await tmux("kill-session", "-t", f"={name}")
        await asyncio.sleep(0.05)
    return {}

async def list_(request):
    ours, wanted, after = session(request | {"worker_id": ""}), request.get("worker_id"), request.get("after") or ""
    records = {name: record for name, (_, record) in (await running()).items() if name.startswith(ours)}
    left = sorted(name for name in records if name > after and wanted in (None, records[name]["worker_id"]))
    page = left[:request["limit"]]
    return {"instances": [records[name] for name in page]} | ({"next": page[-1]} if len(left) > len(page) else {})

async def answer(message):
    async def beat():  # without it a slow answer is taken for none
        while await asyncio.sleep(2, True):
            await message.respond(b'{"status":"working"}')
    heart = asyncio.create_task(beat())
    try:
        verb = {"create": create, "delete": delete, "list": list_}[message.subject.rsplit(".", 1)[1]]
        reply = {"status": "done"} | await verb(json.loads(message.data))
    except Failed as error:
        reply = {"status": "failed", "error": dict(zip(("class", "message"), error.args))}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reply = {"status": "failed", "error": {"class": "invalid_spec", "message": f"unreadable: {error!r}"[:200]}}
    heart.cancel()
    await message.respond(json.dumps(reply).encode())

async def main(name):
    connection, tasks = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222")), set()
    async def begin(message):  # each in a task of its own: a slow one holds up nobody
        tasks.add(task := asyncio.create_task(answer(message)))
        task.add_done_callback(tasks.discard)
    await connection.subscribe(f"provider.{name}.*", queue=name, cb=begin)
    await connection.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()

if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "tmux"))
