"""Options and limits of a compilation: one frozen object, passed explicitly, hashed whole."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from fusible.compiler.backends.triton.gpu_targets import GpuTarget
from fusible.errors import UsageError
from fusible.passes.exactness import Exactness

__all__ = ["Limits", "Options"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What an untrusted model may ask for; beyond it `LimitExceeded` is raised.

    model_bytes: size of the model file. nodes: nodes after inlining functions. depth: nesting of subgraphs and
    functions. tensor_bytes: one tensor. memory_bytes: all buffers of a run. compile_seconds: wall time of a
    compilation (checked between nodes and passes). loop_iterations: of one Loop in one run. unbounded_iterations: of a
    Loop with no trip count (or one above 2**31), which may never end.
    """

    model_bytes: int = 2**31
    nodes: int = 1_000_000
    depth: int = 32
    tensor_bytes: int = 16 * 2**30
    memory_bytes: int = 64 * 2**30
    compile_seconds: float = 600.0
    loop_iterations: int = 100_000
    unbounded_iterations: int = 10_000

    def __post_init__(self) -> None:
        for item in fields(self):
            if not getattr(self, item.name) > 0:
                raise UsageError(f"limit {item.name} must be positive, got {getattr(self, item.name)}")


@dataclass(frozen=True, slots=True)
class Options:
    """How to compile.

    threads: of the executable (None: what the machine offers). precision: of what the model computes in fp32, for
    targets with Triton kernels (inputs and outputs keep their types, sums are fp32; tf32: of products alone), and for
    cpu: bf16, of products with constants alone.
    exactness: the loosest class of rewrite that may run; EXACT also keeps products of fp32 from being split into three
    of tf32. verify: "off", "passes" (the invariants after every pass),
    "rewrites" (each rewritten piece is run before and after on random inputs) or "kernels" (the invariants, and in each
    run on triton-cpu every access of a kernel). fold_bytes: the largest constant that folding may create. standalone:
    refuse host callbacks. allow_host: on a target with Triton kernels, let NumPy run the steps that have none (None:
    triton-cpu does, a GPU refuses the model). also: more targets whose kernels an artifact is to hold, with the
    schedules for its own. tuning: a lockfile of `fusible tune`, whose configurations the target's Triton kernels get;
    those that it lacks get the static model's. cache_dir: for kernels (None: the user's cache).
    """

    threads: int | None = None
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    exactness: Exactness = Exactness.REASSOCIATING
    verify: Literal["off", "passes", "rewrites", "kernels"] = "off"
    limits: Limits = field(default_factory=Limits)
    fold_bytes: int = 64 * 2**20
    standalone: bool = False
    allow_host: bool | None = None
    also: tuple[str, ...] = ()
    tuning: str | Path | None = None
    cache_dir: str | Path | None = None

    def products(self, gpu: GpuTarget) -> str:
        """How Triton kernels that are printed for a GPU multiply f32, in Triton's words.

        AMD's compiler has no words for three products, and an artifact has one text of a kernel.
        """
        if self.precision == "tf32":
            return "tf32"
        splits = gpu.splits_f32 and not any(other.startswith("hip:") for other in self.also)
        return "tf32x3" if splits and self.exactness is not Exactness.EXACT else "ieee"

    def host_allowed(self, target: str) -> bool:
        """Whether steps without a kernel for the target may run in NumPy."""
        if self.standalone:
            return False
        return self.allow_host if self.allow_host is not None else not target.startswith(("cuda:", "hip:"))

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads must be at least 1, got {self.threads}")
        if self.precision not in ("fp32", "tf32", "bf16", "fp16"):
            raise UsageError(f"precision must be fp32, tf32, bf16 or fp16, got {self.precision!r}")
        if self.verify not in ("off", "passes", "rewrites", "kernels"):
            raise UsageError(f"verify must be off, passes, rewrites or kernels, got {self.verify!r}")
        if not isinstance(self.exactness, Exactness):
            raise UsageError(f"exactness must be an Exactness, got {self.exactness!r}")
        also: object = self.also
        if isinstance(also, str):  # a tuple of letters would be taken for targets
            raise UsageError(f"also must be a tuple of targets, got {also!r}: write ({also!r},)")
