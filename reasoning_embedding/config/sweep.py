"""A sweep: one base run, the keys that vary, and how its runs are launched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .base import Name, NonNegative, Positive, PositiveFloat, Section, conflict
from .training import RunConfig

#: Values by key path of the base. The names `list` and `zip` mean keys below, so types are named here.
Axes = dict[str, Annotated[list[Any], Field(min_length=1)]]
Points = list[Annotated[dict[str, Any], Field(min_length=1)]]
#: Keys of a run that a sweep gives itself.
OWN = ("name", "output_dir", "kind")


class LocalLaunch(Section):
    """Runs are processes of this machine, ``jobs`` side by side."""

    kind: Literal["local"] = "local"
    accelerate: str | None = None
    """A configuration file of accelerate: each run is an ``accelerate launch`` of its own."""


class SlurmLaunch(Section):
    """Runs are jobs of a SLURM cluster, submitted as one array through submitit."""

    kind: Literal["slurm"]
    accelerate: str | None = None
    """A configuration file of accelerate: each run is an ``accelerate launch`` of its own."""
    partition: str | None = None
    """Absent: the cluster's default."""
    account: str | None = None
    """Absent: the user's default."""
    hours: PositiveFloat = 24.0
    """Time limit of a job; one that reaches it is queued again and resumed."""
    gpus: NonNegative = 1
    """GPUs a job, all on one node."""
    cpus: Positive = 8
    """Processor cores of a task."""
    memory_gb: Positive = 64
    """Memory of a node."""
    extra: dict[str, Any] = Field(default={})
    """More options of ``sbatch`` by name, such as ``{qos: low}``."""


Launch = Annotated[LocalLaunch | SlurmLaunch, Field(discriminator="kind")]


class SweepConfig(Section):
    """Runs of one base that differ in the keys named here: every combination of `grid`, `zip` and `list`."""

    kind: Literal["sweep"]
    name: Name
    """Names the folder below ``output_dir``."""
    output_dir: str = "runs"
    """Where sweeps lie."""
    title: str | None = None
    """Heading of the page; absent: the name."""
    base: Annotated[RunConfig, Field(json_schema_extra=lambda schema: _or_path(schema))]
    """The run that the keys change: a file of kind ``run``, relative to this one, or a run written here."""
    grid: Axes = Field(default={})
    """Values by key path (``training.learning_rate: [1e-5, 3e-5]``): each with each."""
    zip: Axes = Field(default={})
    """Values by key path, as many of each: first with first, second with second."""
    list: Points = Field(default=[])
    """Single points, each a mapping of key paths to values."""
    paired: bool = False
    """Only ``backbone`` and ``seed`` may differ, and every backbone has the same seeds."""
    metric: str | None = None
    """What is compared: a key of ``metrics.jsonl`` at the last logged step, such as ``accuracy`` or
    ``evaluation.TASK``; absent: the score that ``evaluation.select`` names, or the loss without one."""
    goal: Literal["max", "min"] | None = None
    """Whether more or less is better; absent: less of a ``loss``, more of anything else."""
    jobs: Positive = 1
    """Runs side by side."""
    launch: Launch = LocalLaunch()
    """Where its runs are started."""

    @model_validator(mode="after")
    def _axes_fit(self) -> SweepConfig:
        if not (self.grid or self.zip or self.list):
            raise conflict("a sweep varies something: give grid, zip or list", "name")
        lengths = {key: len(values) for key, values in self.zip.items()}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{key} has {count}" for key, count in lengths.items())
            raise conflict(f"all keys of zip need as many values: {counts}", "zip")
        taken: list[tuple[str, tuple[str | int, ...]]] = []
        for path, keys in self._key_groups():
            new = [(key, (*path, key)) for key in keys]
            for key, where in new:
                if key.split(".")[0] in OWN:
                    raise conflict(f"a sweep names its runs itself; {key!r} cannot vary", *where)
                if other := next((old for old, _ in taken if _overlap(old, key)), None):
                    raise conflict(f"{key!r} is set by {other!r} of another part already", *where)
            if path[:1] != ("list",):  # points of the list stand beside each other, not in one run
                taken += new
        return self

    def _key_groups(self) -> Iterator[tuple[tuple[str | int, ...], Iterable[str]]]:
        """Path of each mapping of keys, and the keys."""
        yield ("grid",), self.grid
        yield ("zip",), self.zip
        for index, point in enumerate(self.list):
            yield ("list", index), point

    @property
    def less_is_better(self) -> bool:
        """Whether a smaller value of the compared metric is the better one."""
        if self.goal is not None:
            return self.goal == "min"
        return "loss" in self.metric if self.metric else self.base.evaluation is None


def _overlap(a: str, b: str) -> bool:
    """Whether one key path is the other or lies below it."""
    return (a + ".").startswith(b + ".") or (b + ".").startswith(a + ".")


def _or_path(schema: dict[str, Any]) -> None:
    """Let editors take a file name where a run may be written."""
    if "$ref" in schema:
        schema["anyOf"] = [{"type": "string"}, {"$ref": schema.pop("$ref")}]
