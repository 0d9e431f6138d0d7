"""Run tasks on a Ray cluster: as many at once as fit, spread over the nodes, and repeated if their worker dies."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from lgd.pipeline.console import signals
from lgd.pipeline.console.errors import NodeError, UserError
from lgd.pipeline.console.progress import Progress
from lgd.pipeline.placement import ShortageWatch, cluster_nodes

TASK_RETRIES = 10  # of a task whose worker or node died
WAIT_S = 1.0  # interval of the progress
CANCEL_S = 5.0  # after a signal, for running tasks to end
SIZE_INTERVAL_S = 4.0  # between two checks of the size of the cluster


class Counters(Protocol):
    """Counts of the finished work of tasks."""

    @property
    def done(self) -> int:
        """Number of finished videos."""

    def add(self, other: Self) -> None:
        """Add the counts that a task has reported."""

    def note(self, seconds: float) -> str:
        """Return a few words for the progress, `seconds` after the start."""


Sum = TypeVar("Sum", bound=Counters)


class Task(NamedTuple):
    """A task for `run_tasks`.

    name: for messages. function: is called with `arguments` and yields counters of its work since the last ones; when
    it is repeated, it yields the same number of them. videos: the total of these counters."""

    name: str
    function: Callable[..., Iterator[Any]]
    arguments: Mapping[str, Any]
    videos: int


def run_tasks(name: str, tasks: Sequence[Task], resources: dict[str, float], *, workers: int | None, total: Sum) -> Sum:
    """Run the tasks on the cluster that this process is connected to, and return `total` with their counters added.

    name: of the progress. resources: per task, by Ray's names, such as CPU. workers: maximum number of tasks at once;
    by default as many as fit. A task whose worker or node dies is repeated.

    Raises the UserError of a task, after the others are cancelled, and UserError if the worker of a task dies, or its
    file system fails, in every attempt."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    waiting = list(reversed(tasks))
    running: dict[Any, Task] = {}
    remote: dict[Any, Any] = {function: _remote(function, resources) for function in {task.function for task in tasks}}
    capacity = _Capacity(resources, workers)
    started = time.monotonic()
    try:
        with Progress(name, sum(task.videos for task in tasks), "videos") as progress:
            while waiting or running:
                while waiting and len(running) < capacity.now():
                    task = waiting.pop()
                    running[remote[task.function].remote(**task.arguments)] = task
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
                        if isinstance(error.cause, OSError):
                            raise UserError(
                                f"{running[generator].name} failed {TASK_RETRIES + 1} times ({error.cause}); progress "
                                "is saved: rerun the same command to resume"
                            ) from error
                        raise
                    except RayError as error:
                        raise UserError(
                            f"{running[generator].name} failed: its worker died {TASK_RETRIES + 1} times "
                            f"({type(error).__name__}); raise --cpus-per-task to run fewer tasks per node, and see the "
                            "logs of Ray"
                        ) from error
                progress.update(total.done, total.note(time.monotonic() - started))
    finally:
        for generator in running:
            ray.cancel(generator)
        if signals.interrupted():
            _wait_for_cancelled(list(running))
    return total


def _wait_for_cancelled(generators: list[Any]) -> None:
    """Wait up to CANCEL_S seconds for cancelled tasks, which end their child processes and remove temporary files."""
    import ray
    from ray.exceptions import RayError

    deadline = time.monotonic() + CANCEL_S
    while generators and (left := deadline - time.monotonic()) > 0:
        ready: list[Any] = ray.wait(generators, num_returns=1, timeout=left)[0]
        for generator in ready:
            try:
                ray.get(next(generator))
            except (StopIteration, RayError):
                generators.remove(generator)


def _remote(function: Callable[..., Iterator[Any]], resources: dict[str, float]) -> Any:
    """Return the function as a Ray task that reports while it runs and is repeated after temporary errors."""
    import ray

    # An object store that fails for a while, or a killed ffmpeg, is no property of the video: the task is repeated.
    transient: Any = [OSError, RuntimeError, NodeError]
    options: dict[str, Any] = {
        "num_cpus": resources.get("CPU", 0),
        "num_gpus": resources.get("GPU", 0),
        "num_returns": "streaming",
        "scheduling_strategy": "SPREAD",
        "max_retries": TASK_RETRIES,
        "retry_exceptions": transient,
        "max_calls": 0,  # a worker keeps what it has loaded; by default Ray restarts a worker with a GPU after a task
    }
    return ray.remote(**options)(function)


class _Capacity:
    """The number of tasks that fit on the cluster, which may grow and shrink."""

    def __init__(self, resources: dict[str, float], workers: int | None):
        self._workers = workers
        self._watch = ShortageWatch("task", resources, advice="add such a node, or lower --cpus-per-task")
        self._tasks, self._checked = 0, float("-inf")

    def now(self) -> int:
        """Return how many tasks may run at once. If no node is large enough for one: 0, with a line after a while."""
        if time.monotonic() - self._checked > SIZE_INTERVAL_S:
            self._checked = time.monotonic()
            self._tasks = min(self._watch.count(cluster_nodes()), self._workers or 1 << 30)
        return self._tasks
