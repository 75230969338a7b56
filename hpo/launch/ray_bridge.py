"""The bridge from a run to a Ray cluster: a process of its own, with a line of JSON per message.

    python -P -m hpo.launch.ray_bridge    # started by `hpo.launch.ray`, ends with its input

    in    {"runtime_env": {...} | null, "version": ..., "is_again": false, "run": PID}    the first
          {"id": 1, "argv": [...], "environment": {...}, "gpus": 1.0,
           "is_bound": false}    start a worker, on this host alone if it is bound to it
          {"id": 1, "do": "stop" | "kill"}
    out   {"ready": {"gpus": 8.0, "elsewhere": [...]}} or {"failed": sentence}
          {"id": 1, "host": ...}, {"id": 1, "text": ...}, {"id": 1, "code": 0}

Ray records the command line of its driver, handles its signals and prints. A run is no driver: its
command line may hold a URL, its signals are its own, and it stays as small as it is.

Border: the only process that imports `ray`. It keeps no worker running: the fleet does.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO

import ray
from ray import cloudpickle
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError, RuntimeEnvSetupError

from hpo.errors import ConfigurationError, RunFailed
from hpo.launch import ray_actor
from hpo.launch.children import ABANDONED_S
from hpo.launch.ray_cluster import connect, connect_again, is_alive, with_run

# A worker without news is asked again after this time, so that no call waits for ever.
_NEWS_S = 20.0
# A host that does not answer is asked again; Ray decides when it is gone.
_AGAIN_S = 1.0
# Actors of a node that has ended are noticed as soon as Ray does. A driver of a dead node is not.
_WATCH_S = 2.0
# A killed worker is gone within milliseconds; its host may not answer.
_KILLED_S = 5.0
# The code of a worker that was killed from outside, as SIGKILL gives.
_KILLED = -9
# Some of Ray's sentences are a page of advice.
_MOST_LETTERS = 300
_ACTOR = ray.remote(ray_actor.WorkerActor)


class Placed:
    """A worker in the cluster: an actor, its output and its end.

    Args:
        say: Sends a message about it to the run.
    """

    def __init__(self, asked: Mapping[str, Any], version: str | None, say: Any) -> None:
        self._asked, self._version, self._say = asked, version, say
        self._has_begun, self._is_unwanted = False, False
        # A core each: a trainer is busy beside its GPU, too.
        options = {"num_cpus": 1, "num_gpus": asked["gpus"]}
        options["max_concurrency"] = ray_actor.WorkerActor.THREADS
        self._actor = _ACTOR.options(**options).remote()

    async def live(self) -> None:
        """Run it to its end, and send its exit code."""
        try:
            code = await self._lived()
        except RuntimeEnvSetupError as error:
            self._note(f"the runtime environment cannot be set up: {error}")
            code = ConfigurationError.exit_code
        except RayTaskError as error:
            self._note(str(error))
            code = RunFailed.exit_code
        except RayError as error:
            code = 0 if self._is_unwanted and not self._has_begun else _KILLED
            if code:
                self._note(f"its actor or its host has ended: {_lines(error)[0]}")
        except Exception as error:
            # Whatever it is, the run must hear of an end.
            self._note(repr(error))
            code = RunFailed.exit_code
        finally:
            self._end()
        self._say(code=code)

    async def _lived(self) -> int:
        asked = self._asked
        began = await self._actor.start.remote(
            asked["argv"],
            asked["environment"],
            version=self._version,
            only_on=ray.util.get_node_ip_address() if asked["is_bound"] else None,
        )
        self._has_begun = True
        if "refused" in began:
            self._note(began["refused"])
            return int(began["code"])
        self._say(host=began["host"])
        gpus = f", GPU {began['gpus']}" if began["gpus"] else ""
        self._note(f"starts on '{began['host']}'{gpus}")
        # A character may lie in two answers.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        seen = 0
        while True:
            try:
                text, code = await self._actor.news.remote(seen, _NEWS_S)
            except ActorUnavailableError:
                await asyncio.sleep(_AGAIN_S)
                continue
            if text:
                seen += len(text)
                self._say(text=decoder.decode(text))
            if code is not None:
                return int(code)

    def stop(self) -> None:
        """Ask it to end; one that waits for a place ends at once."""
        self._is_unwanted = True
        if self._has_begun:
            self._actor.stop.remote()
        else:
            self._end()

    async def kill(self) -> None:
        """Kill it with all that it has started, and then its actor."""
        self._is_unwanted = True
        if self._has_begun:
            with suppress(RayError, TimeoutError):
                await asyncio.wait_for(self._actor.kill.remote(), _KILLED_S)
        self._end()

    def _end(self) -> None:
        with suppress(RayError, ValueError):
            ray.kill(self._actor)

    def _note(self, sentence: str) -> None:
        self._say(text=f"ray | {sentence}\n")


class Bridge:
    """The workers of one run.

    Args:
        out: Where messages to the run go.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._placed: dict[int, Placed] = {}
        # The loop keeps no task alive by itself.
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, **message: Any) -> None:
        """Send a message; a run that is gone hears none."""
        with suppress(OSError, ValueError):
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()

    async def serve(self, version: str | None, socket_name: str) -> None:
        """Obey the run until it closes the input, then have the workers save their states."""
        watch = asyncio.create_task(self._watch(socket_name))
        while line := await asyncio.to_thread(sys.stdin.readline):
            message = json.loads(line)
            placed = self._placed.get(message["id"])
            if "argv" in message:
                self._place(message, version)
            elif placed is not None and message["do"] == "stop":
                placed.stop()
            elif placed is not None:
                self._spawn(placed.kill())
        watch.cancel()
        for placed in self._placed.values():
            placed.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ABANDONED_S)
        await asyncio.gather(*(placed.kill() for placed in self._placed.values()))

    async def _watch(self, socket_name: str) -> None:
        """End this process when the cluster's node on this host has ended: Ray does not."""
        while is_alive(socket_name):
            await asyncio.sleep(_WATCH_S)
        self.say(failed="its node on this host has ended")
        # Leaving a cluster that is gone may hang.
        os._exit(RunFailed.exit_code)

    def _place(self, asked: Mapping[str, Any], version: str | None) -> None:
        number = asked["id"]
        placed = Placed(asked, version, lambda **message: self.say(id=number, **message))
        self._placed[number] = placed

        async def live() -> None:
            await placed.live()
            del self._placed[number]

        self._spawn(live())

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def main() -> None:
    """Connect, and serve the run that has started this process."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What Ray prints goes where its errors go.
    os.dup2(2, 1)
    bridge, first = Bridge(out), json.loads(sys.stdin.readline())
    # A host may have no `hpo`, or another one, and is to say so itself.
    cloudpickle.register_pickle_by_value(ray_actor)
    if first["is_again"]:
        with with_run(first["run"]):
            socket_name = connect_again(first["runtime_env"])
        bridge.say(ready={})
    else:
        try:
            with with_run(first["run"]):
                found, socket_name = connect(first["runtime_env"])
        except Exception as error:
            # Ray raises ConnectionError, RuntimeError, ValueError and others; the cause comes last.
            bridge.say(failed=_lines(error)[-1][:_MOST_LETTERS])
            return
        bridge.say(ready=found)
    asyncio.run(bridge.serve(first["version"], socket_name))
    ray.shutdown()


def _lines(error: BaseException) -> list[str]:
    """The lines of an error, of which Ray's have many."""
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]


if __name__ == "__main__":
    main()
