"""A process that compiles and runs samples, one after the other; a crash or a hang of it is an answer like others."""

from __future__ import annotations

import multiprocessing
import signal
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import fusible
from fusible.compiler.backends.triton import build_kernels
from tests.differential.builder import Sample
from tests.differential.generate import generate
from tests.differential.judge import Settings, Verdict, judge, merged, native, plain, reference, without_symbols

__all__ = ["Answer", "Worker", "made"]

_PLAIN = 4  # every so manieth sample is also run without passes


@dataclass(frozen=True)
class Answer:
    """The verdicts on some seeds, by seed, and the number of nodes in all."""

    verdicts: dict[int, Verdict]
    nodes: int = 0


def made(seed: int) -> Sample:
    """The sample of a seed; without symbols if the target numpy takes it only so."""
    sample = generate(seed, f"g{seed}_")
    if any(dim.dim_param for value in sample.model.graph.input for dim in value.type.tensor_type.shape.dim):
        try:
            reference(sample)
        except fusible.FusibleError:
            return without_symbols(sample)
    return sample


class Worker:
    """The process. It is started when it is first asked, and again after it has died or was stopped."""

    def __init__(self, seconds: float = 300.0) -> None:
        self.seconds = seconds
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def start(self, work: tuple[int, ...] | Sample, settings: Settings) -> None:
        """Send seeds or a sample; the answer comes by `answer`."""
        if self._process is None or not self._process.is_alive():
            context = multiprocessing.get_context("spawn")
            self._pipe, other = context.Pipe()
            self._process = context.Process(target=_serve, args=(other,), daemon=True)
            self._process.start()
            other.close()
        assert self._pipe is not None
        self._pipe.send((work, settings))

    def answer(self) -> Answer | Verdict | str:
        """What came of the task: an Answer to seeds, a Verdict on a sample, or how the process died."""
        assert self._pipe is not None and self._process is not None
        try:
            if self._pipe.poll(self.seconds):
                found: Answer | Verdict = self._pipe.recv()
                return found
            self.stop()
            return f"hangs: no answer in {self.seconds:g} s"
        except EOFError:
            self._process.join()
            code = self._process.exitcode or 0
            return f"crashes: {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"

    @property
    def pipe(self) -> Connection:
        """What becomes ready when there is an answer, or the process is dead."""
        assert self._pipe is not None
        return self._pipe

    def check(self, sample: Sample, settings: Settings) -> Verdict:
        """The verdict on one sample; deaths of the process are findings."""
        self.start(sample, settings)
        found = self.answer()
        assert not isinstance(found, Answer)
        return Verdict(found) if isinstance(found, str) else found

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(pipe: Connection) -> None:
    warnings.simplefilter("ignore")
    while True:
        try:
            work, settings = pipe.recv()
        except EOFError:
            return
        build_kernels.usable_threads = _one  # this process has imported Triton: it builds all kernels itself
        pipe.send(_alone(work, settings) if isinstance(work, Sample) else _together(work, settings))


def _one() -> int:
    return 1


def _alone(sample: Sample, settings: Settings) -> Verdict:
    """Compile and run one sample on both targets."""
    try:
        expected = reference(sample)
    except fusible.FusibleError as error:
        return Verdict(refused=f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - a crash of the compiler is a finding
        return Verdict(f"numpy: {type(error).__name__}: {error}")
    try:
        got = native(sample.model, sample.feeds, settings)
    except Exception as error:  # noqa: BLE001 - whatever numpy can do, the other target must do
        return Verdict(f"{settings.target}: {type(error).__name__}: {error}")
    return judge(sample, expected, got)


def _together(seeds: Sequence[int], settings: Settings) -> Answer:
    """Compile the samples of some seeds as one model. What fails then is tried alone."""
    samples, expected, verdicts = {}, {}, {}
    for seed in seeds:
        sample = made(seed)
        try:
            expected[seed] = reference(sample)
            if seed % _PLAIN == 0:
                verdict = judge(sample, plain(sample), expected[seed])
                if verdict.reason:
                    verdicts[seed] = replace(verdict, reason=f"passes: {verdict.reason}")
            samples[seed] = sample
        except fusible.FusibleError as error:
            verdicts[seed] = Verdict(refused=f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - a crash of the compiler is a finding
            verdicts[seed] = Verdict(f"numpy: {type(error).__name__}: {error}")
    nodes = sum(len(s.model.graph.node) for s in samples.values())
    try:
        got = native(*merged(list(samples.values())), settings)
    except Exception as error:  # noqa: BLE001 - whose fault it is shows when each is tried alone
        alone = {seed: _alone(sample, settings) for seed, sample in samples.items()}
        if not any(v.reason for v in alone.values()):
            alone[seeds[0]] = Verdict(f"in company: {type(error).__name__}: {error}")
        return Answer(alone | verdicts, nodes)
    for seed, sample in samples.items():
        verdict = judge(sample, expected[seed], got)
        if verdict.reason:
            single = _alone(sample, settings)
            verdict = single if single.reason else replace(verdict, reason=f"in company: {verdict.reason}")
        verdicts.setdefault(seed, verdict)
    return Answer(verdicts, nodes)
