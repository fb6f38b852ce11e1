"""Fusible itself. The first launch compiles and saves an artifact; later launches load it, as a deployment does."""

from __future__ import annotations

import numpy as np

import fusible
from fusible.benchmarks.peers.protocol import Job, PeerError
from fusible.runtime.executable import Executable
from fusible.runtime.plan import Alloc, If, Loop, Plan

__all__ = ["System", "steps_of"]

if not hasattr(fusible, "load"):  # a worker begins without it (client.py)
    assert fusible.__spec__.loader is not None
    fusible.__spec__.loader.exec_module(fusible)


class System:
    """The peer `fusible`; option: TARGET, by default "auto", or TARGET:bf16."""

    def __init__(self, name: str, option: str) -> None:
        self.target = option.removesuffix(":bf16") or "auto"
        self.bf16 = option.endswith(":bf16")
        self.version = fusible.__version__

    def load(self, job: Job) -> _Model:
        """Compile for the shapes of the job's inputs, or load what an earlier launch saved."""
        name = f"{self.target}-bf16" if self.bf16 else self.target
        saved = job.cache / f"{name}-{job.threads}.fusible" if job.cache is not None else None
        if saved is not None and saved.exists():
            return _Model(fusible.load(saved), job)
        shapes = {name: array.shape for name, array in job.inputs.items()}
        options = fusible.Options(precision="bf16" if self.bf16 else "fp32", threads=job.threads)
        executable = fusible.compile(job.model, self.target, shapes=shapes, options=options)
        if saved is not None:
            executable.save(saved)
        return _Model(executable, job)


class _Model:
    def __init__(self, executable: Executable, job: Job) -> None:
        missing = [s.name for s in executable.inputs if s.name not in job.inputs]
        if missing:
            raise PeerError(f"the inputs lack {', '.join(missing)}")
        self._executable, self._inputs = executable, dict(job.inputs)
        self._session = executable.session()

    def run(self) -> object:
        """One inference."""
        return self._session.run(self._inputs)

    def outputs(self) -> dict[str, np.ndarray]:
        """The outputs that are tensors."""
        return {k: v for k, v in self._session.run(self._inputs).items() if isinstance(v, np.ndarray)}

    def kernels(self) -> int | None:
        """See `steps_of`."""
        return steps_of(self._executable.plan)


def steps_of(plan: Plan) -> int:
    """Steps of a plan that compute; of an If the longer branch, of a Loop its body once."""
    total = 0
    for step in plan.steps:
        match step:
            case If():
                total += max(steps_of(step.then), steps_of(step.otherwise))
            case Loop():
                total += steps_of(step.body)
            case Alloc():
                pass
            case _:
                total += 1
    return total
