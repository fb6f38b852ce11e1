"""The columns of the tables, the same for the terminal and the page: what a cell says and what it sorts by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from fusible.benchmarks.records import Interval, KernelRow, ModelRow, Results
from fusible.benchmarks.report.derived import byte_rate, flop_rate, intensity, roof_of
from fusible.benchmarks.report.wording import (
    bytes_text,
    count_text,
    error_text,
    interval_text,
    number_text,
    printable,
    ratio_text,
    seconds_text,
    share_text,
    span_text,
)

__all__ = ["Column", "kernel_columns", "model_columns", "verdict"]

Row = TypeVar("Row", ModelRow, KernelRow)
Value = float | str | None


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column. title: its head; explained: the head in a sentence; value: what it sorts by; text: what it says.

    key: its name in layouts; left: text rather than numbers.
    """

    key: str
    title: str
    explained: str
    value: Callable[[Row], Value]
    text: Callable[[Row], str]
    left: bool = False


def verdict(row: ModelRow | KernelRow) -> str:
    """`better` or `worse` if the interval says that the subject is faster or slower than the other; else nothing."""
    if row.ratio is None:
        return ""
    return "better" if row.ratio.low > 1 else "worse" if row.ratio.high < 1 else ""


def _names(key: str, title: str, explained: str, value: Callable[[Row], str]) -> Column[Row]:
    return Column(key, title, explained, value, lambda row: printable(value(row)), left=True)


def _numbers(
    key: str, title: str, explained: str, value: Callable[[Row], float | None], text: Callable[[float], str]
) -> Column[Row]:
    def cell(row: Row) -> str:
        number = value(row)
        return "" if number is None else text(number)

    return Column(key, title, explained, value, cell)


def _count(value: float) -> str:
    return count_text(int(value))


def _billions(value: float) -> str:
    return number_text(value / 1e9)


def model_columns(results: Results) -> tuple[Column[ModelRow], ...]:
    """The columns of the table of models; that of plain loops is there only when a row has one."""
    columns = (*_identity(), *_speed(), *_cost())
    plain = any(row.plain is not None for row in results.models)
    return tuple(column for column in columns if plain or column.key != "plain")


def _identity() -> tuple[Column[ModelRow], ...]:
    return (
        _names("model", "model", "the model", lambda row: row.model),
        _names("variant", "variant", "the form of the model", lambda row: row.variant),
        _numbers("batch", "batch", "items in one inference", lambda row: row.batch, _count),
        _numbers("threads", "threads", "threads each contestant was allowed", lambda row: row.threads, _count),
        _names("peer", "contestant", "who ran the model", lambda row: row.peer),
    )


def _speed() -> tuple[Column[ModelRow], ...]:
    return (
        _numbers("p50", "latency", "median time of one inference", _p50, seconds_text),
        Column("span", "p20–p80", "quantiles of the time", _p20, _span),
        _numbers(
            "ratio",
            "ratio",
            "time of the contestant / time of the subject: above 1 the subject is faster",
            lambda row: _middle(row.ratio),
            ratio_text,
        ),
        Column("interval", "95 %", "95 % interval of the ratio", _low, _interval),
        _numbers("gflops", "GFLOP/s", "floating-point operations in a second, in billions", flop_rate, _billions),
        _numbers("flops_share", "of flops", "share of the measured flops roof", lambda r: r.flops_share, share_text),
        _numbers("bandwidth_share", "of bytes", "share of measured bandwidth", lambda r: r.bandwidth_share, share_text),
        _numbers("throughput", "items/s", "items in a second", lambda row: row.throughput, number_text),
        _numbers(
            "plain",
            "plain",
            "time of a plain loop around the contestant / its own time",
            lambda row: _middle(row.plain),
            ratio_text,
        ),
    )


def _cost() -> tuple[Column[ModelRow], ...]:
    return (
        _numbers("compile", "compile", "time to load and compile", lambda r: r.compile_seconds, seconds_text),
        _numbers("cold", "cold start", "time of a fresh process to its end", _process, seconds_text),
        _numbers("memory", "memory", "peak memory of the process", lambda row: row.peak_memory, bytes_text),
        _numbers("kernels", "kernels", "kernels launched in one inference", lambda row: row.kernels, _count),
        _numbers("max_error", "max error", "largest error against the reference", lambda r: r.max_error, error_text),
        _numbers("rms_error", "rms error", "root of the mean square error", lambda row: row.rms_error, error_text),
    )


def _p20(row: ModelRow | KernelRow) -> float | None:
    return None if row.latency is None else row.latency.p20


def _p50(row: ModelRow | KernelRow) -> float | None:
    return None if row.latency is None else row.latency.p50


def _span(row: ModelRow | KernelRow) -> str:
    return "" if row.latency is None else span_text(row.latency)


def _middle(ratio: Interval | None) -> float | None:
    return None if ratio is None else ratio.middle


def _low(row: ModelRow | KernelRow) -> float | None:
    return None if row.ratio is None else row.ratio.low


def _interval(row: ModelRow | KernelRow) -> str:
    return "" if row.ratio is None else interval_text(row.ratio)


def _process(row: ModelRow) -> float | None:
    return None if row.cold is None else row.cold.process


def kernel_columns(results: Results) -> tuple[Column[KernelRow], ...]:
    """The columns of the table of kernels."""
    return (
        _names("op", "op", "the operation", lambda row: row.op),
        _names("kernel", "kernel", "the kernel that does it", lambda row: row.kernel),
        _names("signature", "signature", "types of the operands, attributes", _signature),
        _names("device", "device", "where it ran", lambda row: row.device),
        _numbers("threads", "threads", "threads each was allowed", lambda row: row.threads, _count),
        _names("baseline", "baseline", "what it is compared with", lambda row: row.baseline),
        _numbers("p50", "time", "median time of one call", _p50, seconds_text),
        Column("span", "p20–p80", "quantiles of the time", _p20, _span),
        _numbers(
            "baseline_p50",
            "baseline's",
            "median time of the baseline",
            lambda row: None if row.baseline_latency is None else row.baseline_latency.p50,
            seconds_text,
        ),
        _numbers(
            "ratio",
            "ratio",
            "time of the baseline / time of the kernel: above 1 the kernel is faster",
            lambda row: _middle(row.ratio),
            ratio_text,
        ),
        Column("interval", "95 %", "95 % interval of the ratio", _low, _interval),
        _numbers("gflops", "GFLOP/s", "floating-point operations in a second, in billions", flop_rate, _billions),
        _numbers("gbytes", "GB/s", "bytes that must move, in a second, in billions", byte_rate, _billions),
        Column("rate", "rate", "GFLOP/s, or GB/s where memory bounds", flop_rate, lambda r: _kernel_rate(r, results)),
        _numbers("roof_share", "of roof", "share of what the machine reaches", lambda row: row.roof_share, share_text),
        _numbers("max_error", "max error", "largest error against the reference", lambda r: r.max_error, error_text),
    )


def _signature(row: KernelRow) -> str:
    return f"{row.signature} {row.attributes}".rstrip()


def _kernel_rate(row: KernelRow, results: Results) -> str:
    """GFLOP/s, or GB/s if the work has no flops or too few for a byte to meet the flops roof."""
    flops, moved = flop_rate(row), byte_rate(row)
    work, roof = intensity(row), roof_of(results, row.threads)
    if moved is not None and (work is None or (roof is not None and work < roof.flops / roof.bandwidth)):
        return f"{_billions(moved)} GB/s"
    return "" if flops is None else f"{_billions(flops)} GFLOP/s"
