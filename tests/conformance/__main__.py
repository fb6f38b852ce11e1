"""Run conformance cases of the onnx package and print, by operator, how many pass and why the others do not."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from tests.conformance.cases import KINDS, Case, load_cases
from tests.conformance.run import Outcome, run_case, totals
from tests.fast_compiler import fast_compiler

REASON_WIDTH = 200


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    kinds = KINDS if "all" in options.kind else tuple(dict.fromkeys(options.kind)) or ("node",)
    cases = [case for kind in kinds for case in load_cases(kind) if _wanted(case, options.op, options.filter)]
    if not cases:
        print("no case matches --op and --filter", file=sys.stderr)
        return 2
    with TemporaryDirectory() as folder, _compiler(options.target, Path(folder)):
        outcomes = [_outcome(case, f"{number} of {len(cases)}", options) for number, case in enumerate(cases, 1)]
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    _print_report(outcomes)
    passed = sum(outcome.passed for outcome in outcomes)
    share = 100 * passed / len(outcomes)
    print(f"\n{passed} of {len(outcomes)} cases pass ({share:.1f} %), onnx {onnx.__version__}, target {options.target}")
    if options.target != "numpy":
        whole = sum(outcome.passed and not outcome.host for outcome in outcomes)
        print(f"{whole} of them ran wholly in kernels ({100 * whole / max(1, passed):.1f} %), nothing in NumPy")
    if options.json:
        options.json.write_text(json.dumps(_json(outcomes, options.target, kinds), indent=1) + "\n")
    if share < options.fail_under:
        print(f"fewer than {options.fail_under:g} % pass", file=sys.stderr)
        return 1
    return 0


def _compiler(target: str, folder: Path) -> AbstractContextManager[None]:
    if target not in ("cpu", "triton-cpu"):
        return nullcontext()
    return fast_compiler(folder, "-O1", lowered=True) if target == "triton-cpu" else fast_compiler(folder)


def _outcome(case: Case, place: str, options: argparse.Namespace) -> Outcome:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{place}: {case.name}", end="", file=sys.stderr, flush=True)
    return run_case(case, target=options.target, verify=options.verify, seconds=options.seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument(
        "--kind", action="append", default=[], choices=[*KINDS, "all"], help="which cases (default: node)"
    )
    parser.add_argument("--op", action="append", default=[], metavar="OP", help="only cases of this operator")
    parser.add_argument("--filter", type=re.compile, metavar="REGEX", help="only cases whose name it is found in")
    parser.add_argument("--target", default="numpy", help="what to compile for (default: numpy)")
    parser.add_argument("--verify", action="store_true", help="verify the graph after passes, on triton-cpu accesses")
    parser.add_argument("--seconds", type=float, default=20.0, help="time bound of a case (default: 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table and every outcome here")
    parser.add_argument(
        "--fail-under", type=float, default=0.0, metavar="PERCENT", help="exit with 1 if fewer cases pass"
    )
    return parser


def _wanted(case: Case, ops: Sequence[str], pattern: re.Pattern[str] | None) -> bool:
    return (not ops or case.op in ops) and (pattern is None or pattern.search(case.name) is not None)


def _print_report(outcomes: Sequence[Outcome]) -> None:
    counts = totals(outcomes)
    width = max(len(op) for op in counts)
    print(f"{'operator':{width}}  passed  failed   total")
    for op, row in counts.items():
        print(f"{op:{width}}  {row['passed']:6}  {row['failed'] or '':>6}  {row['total']:6}")
    failures = [outcome for outcome in outcomes if not outcome.passed]
    if failures:
        print("\nfailures:")
        for outcome in sorted(failures, key=lambda item: (item.op.lower(), item.name)):
            print(f"  {outcome.name} ({outcome.op}): {_one_line(outcome.reason)}")
        print("\nreasons:")
        for reason, count in Counter(outcome.reason.partition(":")[0] for outcome in failures).most_common():
            print(f"  {count:5} {reason}")


def _one_line(reason: str) -> str:
    text = " ".join(reason.split())
    return text if len(text) <= REASON_WIDTH else text[: REASON_WIDTH - 3] + "..."


def _json(outcomes: Sequence[Outcome], target: str, kinds: Sequence[str]) -> dict[str, object]:
    passed = sum(outcome.passed for outcome in outcomes)
    return {
        "onnx": onnx.__version__,
        "target": target,
        "kinds": list(kinds),
        "passed": passed,
        "total": len(outcomes),
        "ops": totals(outcomes),
        "cases": [outcome.to_json() for outcome in outcomes],
    }


if __name__ == "__main__":
    sys.exit(main())
