"""Tasks on a Ray cluster: as many at once as there is room for, spread over the nodes, repeated when they are lost."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import Progress, say

TASK_RETRIES = 10  # of a task whose worker or node died
WAIT_S = 1.0  # between two looks at the progress
LOOK_S = 5.0  # between two looks at the size of the cluster
PATIENCE_S = 15.0  # without a node that has room, until that is said


class Counters(Protocol):
    """What tasks have done: their sum, and how a person sees it."""

    @property
    def done(self) -> int:
        """Videos."""

    def add(self, other: Self) -> None:
        """Takes in what a task has done since it last said so."""

    def note(self, seconds: float) -> str:
        """What is shown beside the bar, so many seconds after the start."""


Sum = TypeVar("Sum", bound=Counters)


class Task(NamedTuple):
    """name: in messages. make: is called with `arguments` and yields what it has done since it last yielded, as often
    when it is repeated. videos: how many all of that adds up to."""

    name: str
    make: Callable[..., Iterator[Any]]
    arguments: Mapping[str, Any]
    videos: int


def run_tasks(what: str, tasks: Sequence[Task], needs: dict[str, float], *, workers: int | None, total: Sum) -> Sum:
    """Does the tasks on the cluster that this process is connected to; returns `total` with all that they did.

    needs: of a task, by Ray's names. workers: tasks at once; by default as many as there is room for. A task whose
    worker or node dies is done again. Raises the UserError of a task, after the others are cancelled, and UserError
    for a task whose workers die again and again."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    waiting = list(reversed(tasks))
    running: dict[Any, Task] = {}
    remote: dict[Any, Any] = {make: _remote(make, needs) for make in {task.make for task in tasks}}
    room = _Room(needs, workers)
    started = time.monotonic()
    try:
        with Progress(what, sum(task.videos for task in tasks), "videos") as progress:
            while waiting or running:
                while waiting and len(running) < room.now():
                    task = waiting.pop()
                    running[remote[task.make].remote(**task.arguments)] = task
                if not running:
                    time.sleep(WAIT_S)
                    continue
                ready: list[Any] = ray.wait(list(running), num_returns=1, timeout=WAIT_S)[0]
                for generator in ready:
                    try:
                        total.add(ray.get(next(generator)))
                    except StopIteration:
                        del running[generator]
                    except RayTaskError as error:
                        if isinstance(error.cause, UserError):
                            raise type(error.cause)(str(error.cause)) from error
                        raise
                    except RayError as error:
                        raise UserError(
                            f"{running[generator].name} cannot be made: its worker died {TASK_RETRIES + 1} times "
                            f"({type(error).__name__}); give tasks more room with --cpus-per-task, and see Ray's log"
                        ) from error
                progress.update(total.done, total.note(time.monotonic() - started))
    finally:
        for generator in running:
            ray.cancel(generator)
    return total


def _remote(make: Callable[..., Iterator[Any]], needs: dict[str, float]) -> Any:
    import ray

    # A store that falters or an ffmpeg that somebody kills says nothing about the video: the task is done again.
    transient: Any = [OSError, RuntimeError]
    options: dict[str, Any] = {
        "num_cpus": needs["CPU"],
        "num_gpus": needs.get("GPU", 0),
        "num_returns": "streaming",
        "scheduling_strategy": "SPREAD",
        "max_retries": TASK_RETRIES,
        "retry_exceptions": transient,
        "max_calls": 0,  # a worker goes on to the next task with what it has loaded; with a GPU Ray would start another
    }
    return ray.remote(**options)(make)


class _Room:
    """How many tasks fit on the cluster, which may grow and shrink."""

    def __init__(self, needs: dict[str, float], workers: int | None):
        self._needs, self._workers = needs, workers
        self._room, self._looked = 0, float("-inf")
        self._there = time.monotonic()  # when there was room last
        self._said = False

    def now(self) -> int:
        """Tasks that may run at once; 0, and after a while a line that says so, when no node has room for one."""
        now = time.monotonic()
        if now - self._looked > LOOK_S:
            self._looked = now
            self._room = min(self._fitting(), self._workers or 1 << 30)
            if self._room:
                self._there, self._said = now, False
            elif now - self._there > PATIENCE_S and not self._said:
                self._said = True
                say(f"waiting: no node of the cluster has {_in_words(self._needs)}")
        return self._room

    def _fitting(self) -> int:
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return sum(min(int(node.get(name, 0) / amount) for name, amount in self._needs.items()) for node in nodes)


def _in_words(needs: dict[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in needs.items())
