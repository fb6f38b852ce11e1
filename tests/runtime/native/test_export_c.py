"""Models exported as C libraries: the same numbers without Python, and an error code for what a caller does wrong."""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from onnx import helper

import fusible
from fusible.runtime.memory import place
from fusible.runtime.native import c_model
from fusible.runtime.native.compiler import Compiler, CompilerKind, run_command
from fusible.runtime.native.library import build_library
from fusible.runtime.native.loading import load_library
from fusible.runtime.plan import PlanValue
from tests.compiler.cpu.joined_models import dense_block, inputs_of, random_model
from tests.runtime import models
from tests.tolerance import assert_outputs_close

ROOT = Path(__file__).parents[3]
OK, BAD_ARGUMENT, BAD_SHAPE, OUT_OF_BOUNDS, TOO_SMALL, TOO_LARGE, _, BAD_INDEX, BAD_WEIGHTS, _ = range(10)


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
        ("rank", ctypes.c_int),
        ("shape", ctypes.c_int64 * 8),
    )


def tensor(array: np.ndarray) -> Tensor:
    return Tensor(array.ctypes.data, array.nbytes, array.ndim, tuple(array.shape))


class Library:
    """An exported model: what a C program would do, by ctypes."""

    def __init__(self, folder: Path, name: str = "model", threads: int = 2) -> None:
        self.name = name
        self.library = ctypes.CDLL(str(folder / f"lib{name}.so"))
        self.text = self.function("status_text", ctypes.c_char_p, ctypes.c_int)
        self.failed = self.function("failed_step", ctypes.c_char_p, ctypes.c_void_p)
        self.model, self.session = ctypes.c_void_p(), ctypes.c_void_p()
        open_ = self.function("open", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p)
        self.status = open_(str(folder / f"{name}.weights").encode(), threads, ctypes.byref(self.model))
        if self.status == OK:
            start = self.function("session_open", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
            assert start(self.model, ctypes.byref(self.session)) == OK

    def function(self, name: str, result: type | None, *arguments: type) -> Callable[..., object]:
        found = getattr(self.library, f"{self.name}_{name}")
        found.restype, found.argtypes = result, list(arguments)
        return found  # type: ignore[no-any-return]

    def call(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> object:
        arguments = [(Tensor * len(t))(*t) for t in (inputs, outputs)]
        pointer = ctypes.c_void_p
        status = self.function(name, ctypes.c_int, pointer, pointer, pointer)(self.session, *arguments)
        for given, returned in zip(outputs, arguments[1], strict=True):
            ctypes.memmove(ctypes.byref(given), ctypes.byref(returned), ctypes.sizeof(Tensor))
        return status

    def run(self, arrays: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
        """The outputs (float32), in memory of ours after the shapes were asked for."""
        inputs = [tensor(a) for a in arrays]
        outputs = [Tensor() for _ in range(count)]
        assert self.call("shapes", inputs, outputs) == OK
        results = [np.full(t.shape[: t.rank], np.nan, np.float32) for t in outputs]
        assert [t.bytes for t in outputs] == [r.nbytes for r in results]
        assert self.call("run", inputs, [tensor(r) for r in results]) == OK
        return results

    def close(self) -> None:
        self.function("session_close", None, ctypes.c_void_p)(self.session)
        self.function("close", None, ctypes.c_void_p)(self.model)


def compiled(model: object, **options: object) -> fusible.Executable:
    return fusible.compile(model, target="cpu", options=fusible.Options(threads=2), **options)  # type: ignore[arg-type]


def gathered() -> object:
    """Rows of a table by indices, a result twice, an input as an output, a reshape."""
    table = np.random.default_rng(0).standard_normal((7, 6)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], name="rows"),
        helper.make_node("Add", ["rows", "x"], ["sum"], name="sum"),
        helper.make_node("Reshape", ["x", "shape"], ["flat"], name="flat"),
        helper.make_node("Identity", ["sum"], ["again"]),
    ]
    inputs = [models.value("ids", models.INT64, ["n"]), models.value("x", models.FLOAT, ["n", 6])]
    constants = {"table": table, "shape": np.array([-1])}
    return models.make(nodes, inputs, ["sum", "flat", "again", "x"], constants)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[fusible.Executable, Path]:
    """Return convolutions over images of any size, and where they were exported to."""
    exe, folder = compiled(models.conv_relu_add()), tmp_path_factory.mktemp("exported")
    exe.save_c(folder)
    return exe, folder


def test_the_same_numbers_for_any_size(exported: tuple[fusible.Executable, Path]) -> None:
    exe, folder = exported
    library = Library(folder)
    assert library.function("version", ctypes.c_int)() == 1
    for shape in [(1, 3, 8, 8), (2, 3, 17, 5), (1, 3, 1, 1), (0, 3, 4, 4), (2, 3, 17, 5), (1, 3, 30, 31)]:
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        (found,) = library.run([x], 1)
        assert np.array_equal(found, exe.run({"x": x})["u"])
    library.close()


def test_the_run_allocates_what_the_caller_does_not(exported: tuple[fusible.Executable, Path]) -> None:
    exe, folder = exported
    library, x = Library(folder), np.ones((1, 3, 4, 5), np.float32)
    output = Tensor()
    assert library.call("run", [tensor(x)], [output]) == OK
    assert tuple(output.shape[: output.rank]) == (1, 5, 4, 5) and output.bytes == 400
    found = np.ctypeslib.as_array(ctypes.cast(output.data, ctypes.POINTER(ctypes.c_float)), (1, 5, 4, 5))
    assert np.array_equal(found, exe.run({"x": x})["u"])
    ctypes.CDLL(None).free(ctypes.c_void_p(output.data))
    library.close()


def test_what_a_caller_may_do_wrong(exported: tuple[fusible.Executable, Path]) -> None:
    _, folder = exported
    library, x = Library(folder), np.ones((1, 3, 4, 5), np.float32)
    small = np.empty(99, np.float32)

    def status(array: np.ndarray, output: Tensor | None = None, **changes: object) -> object:
        given = tensor(array)
        for name, value in changes.items():
            setattr(given, name, value)
        return library.call("run", [given], [output or Tensor()])

    assert status(np.ones((1, 4, 4, 5), np.float32)) == BAD_SHAPE
    assert status(np.ones((1, 3, 4), np.float32)) == BAD_ARGUMENT
    assert status(x, data=None) == BAD_ARGUMENT
    assert status(x, bytes=x.nbytes - 1) == BAD_ARGUMENT
    assert status(x, shape=(-1, 3, 4, 5)) == BAD_SHAPE
    assert status(x, shape=(2**31 - 1, 3, 2**31 - 1, 2**31 - 1), bytes=2**63) == TOO_LARGE
    assert status(x, shape=(2**31, 3, 4, 5), bytes=2**63) == BAD_SHAPE
    needed = tensor(small)
    assert status(x, needed) == TOO_SMALL and needed.bytes == 400
    assert library.function("run", ctypes.c_int, *[ctypes.c_void_p] * 3)(None, None, None) == BAD_ARGUMENT
    assert b"too small" in library.text(TOO_SMALL) and library.text(-1) == library.text(99)  # type: ignore[operator]
    assert status(x) == OK  # and the session is as good as before
    library.close()


def test_bounds_contradictions_and_indices(tmp_path: Path) -> None:
    exe = compiled(gathered(), shapes={"n": (2, 4)})
    exe.save_c(tmp_path, "rows")
    library = Library(tmp_path, "rows")
    ids, x = np.array([1, -1, 3]), np.arange(18, dtype=np.float32).reshape(3, 6)
    found = library.run([ids, x], 4)
    assert_outputs_close(dict(zip([s.name for s in exe.outputs], found, strict=True)), exe.run({"ids": ids, "x": x}))
    outputs = [Tensor() for _ in range(4)]
    assert library.call("run", [tensor(ids[:1]), tensor(x[:1])], outputs) == OUT_OF_BOUNDS
    assert library.call("run", [tensor(ids), tensor(x[:2])], outputs) == BAD_SHAPE
    assert library.call("run", [tensor(np.array([0, 7, 0])), tensor(x)], outputs) == BAD_INDEX
    assert b"'rows'" in library.failed(library.session)  # type: ignore[operator]
    assert all(t.data is None for t in outputs)  # what the run allocated is freed
    library.close()


def test_sizes_that_do_not_fit(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 20]> g (float[C,4] x, float[3,4] z, float[D,1] w) => (float y) {
        s = Add(x, z) y = Add(s, w) }"""
    exe = compiled(onnx.parser.parse_model(text))
    exe.save_c(tmp_path, "sums")
    library = Library(tmp_path, "sums")
    three = [np.ones((n, 4 if k < 2 else 1), np.float32) for k, n in enumerate((3, 3, 1))]
    np.testing.assert_array_equal(library.run(three, 1)[0], np.full((3, 4), 3, np.float32))
    for wrong in (0, 2):
        for rows in ((2, 3, 1), (1, 3, 2)):
            given = [np.ones((wrong if n == 2 else n, 4 if k < 2 else 1), np.float32) for k, n in enumerate(rows)]
            assert library.call("run", [tensor(x) for x in given], [Tensor()]) == BAD_SHAPE
    library.close()


@pytest.mark.parametrize("seed", [None, 2])
def test_values_that_live_inside_larger_ones(tmp_path: Path, seed: int | None) -> None:
    """Operands of concatenations, of fixed and of symbolic sizes."""
    model = dense_block() if seed is None else random_model(seed, symbolic=True)
    exe = compiled(model)
    assert any(v.whole is not None for v in exe.plan.values)
    exe.save_c(tmp_path)
    library = Library(tmp_path)
    for batch in (1,) if seed is None else (1, 3, 0, 2):
        given = inputs_of(model, batch)
        found = library.run([given["x"]], len(exe.outputs))
        expected = exe.run(given)
        assert all(np.array_equal(y, expected[spec.name]) for y, spec in zip(found, exe.outputs, strict=True))
    library.close()


def test_weights_of_another_model_or_cut_short(exported: tuple[fusible.Executable, Path], tmp_path: Path) -> None:
    _, folder = exported
    data = (folder / "model.weights").read_bytes()
    (tmp_path / "libmodel.so").write_bytes((folder / "libmodel.so").read_bytes())
    for wrong in (b"", data[:-64], data[:8] + bytes(32) + data[40:], b"x" + data[1:]):
        (tmp_path / "model.weights").write_bytes(wrong)
        assert Library(tmp_path).status == BAD_WEIGHTS
    (tmp_path / "model.weights").unlink()
    assert Library(tmp_path).status == BAD_WEIGHTS


def test_two_models_in_one_program(exported: tuple[fusible.Executable, Path], tmp_path: Path) -> None:
    exe, folder = exported
    other = compiled(gathered())
    other.save_c(tmp_path, "second")
    names = [line.split()[-1] for line in _symbols(tmp_path / "libsecond.so")]
    assert names and all(name.startswith("second_") for name in names)
    one, two = Library(folder), Library(tmp_path, "second")
    x, ids, rows = np.ones((1, 3, 4, 5), np.float32), np.array([0]), np.ones((1, 6), np.float32)
    for _ in range(2):
        assert np.array_equal(one.run([x], 1)[0], exe.run({"x": x})["u"])
        assert np.array_equal(two.run([ids, rows], 4)[0], other.run({"ids": ids, "x": rows})["sum"])
    one.close()
    two.close()


def _symbols(path: Path) -> list[str]:
    done = subprocess.run(["nm", "-D", "--defined-only", str(path)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def example(folder: Path, compiler: Compiler, *flags: str, sources: bool = False) -> Path:
    """Compile examples/embed.c against an exported model; sources: with its sources instead of its library."""
    made = folder / "embed"
    against = (
        sorted(str(p) for p in (folder / "src").glob("*.c")) if sources else ("-L.", "-lmodel", f"-Wl,-rpath,{folder}")
    )
    command = (*compiler.command, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-unused-function")
    include = f"-I{folder / 'src' if sources else folder}"
    words = (
        *command,
        *flags,
        include,
        str(ROOT / "examples" / "embed.c"),
        *against,
        "-o",
        str(made),
        "-pthread",
        "-lm",
    )
    problem = run_command(words, folder)
    assert problem is None, problem
    return made


def check_example(program: Path, exe: fusible.Executable) -> None:
    """Run the example with the unknown dimensions 5 and compare what it prints."""
    words = [str(program), str(program.parent / "model.weights"), "5"]
    done = subprocess.run(words, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name, _, numbers = done.stdout.partition(":")
    x = (np.arange(375) % 10 / 10 - 0.5).astype(np.float32).reshape(5, 3, 5, 5)
    assert name == "u 5 5 5 5"
    expected = exe.run({"x": x})["u"].reshape(-1)[:8]
    assert np.allclose(np.array(numbers.split(), np.float32), expected, rtol=1e-5, atol=1e-6)


def test_the_example_program(exported: tuple[fusible.Executable, Path], compiler: Compiler) -> None:
    exe, folder = exported
    check_example(example(folder, compiler), exe)
    wrong = subprocess.run([str(folder / "embed"), "nothing"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and "the weights are missing" in wrong.stderr


def test_the_sources_build_the_same_library(exported: tuple[fusible.Executable, Path], compiler: Compiler) -> None:
    exe, folder = exported
    (folder / "libmodel.so").unlink()
    subprocess.run([str(folder / "build.sh")], env={**os.environ, "CC": " ".join(compiler.command)}, check=True)
    check_example(example(folder, compiler), exe)


def test_sanitizers_find_nothing(exported: tuple[fusible.Executable, Path], compiler: Compiler, tmp_path: Path) -> None:
    if compiler.kind is CompilerKind.ZIG:
        pytest.skip("Zig first builds the sanitizers, which takes minutes")
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DEXPORT=")
    (tmp_path / "empty.c").write_text("int main(void) { return 0; }\n")
    if run_command((*compiler.command, *flags, "-o", "empty", "empty.c"), tmp_path) is not None:
        pytest.skip("the compiler has no sanitizers here")
    exe, folder = exported
    check_example(example(folder, compiler, *flags, sources=True), exe)


ARENA = '#include "arena.h"\n__attribute__((visibility("default"))) int64_t placed(int count, const int64_t *bytes, '
ARENA += "const int32_t *first, const int32_t *last, int64_t *offsets, struct arena_scratch *scratch) {\n"
ARENA += "    return arena_place(count, bytes, first, last, offsets, scratch);\n}\n"


def test_the_arena_is_laid_out_as_in_python(compiler: Compiler, cache_dir: Path) -> None:
    library = load_library(build_library({"arena_test.c": ARENA}, compiler, cache_dir=cache_dir))
    library.placed.restype = ctypes.c_int64
    chance = random.Random(0)
    for count in [*range(8), *(chance.randrange(60) for _ in range(200))]:
        sizes = [chance.choice([0, 1, 64, 65, chance.randrange(5000)]) for _ in range(count)]
        lives = [sorted((chance.randrange(20), chance.randrange(20))) for _ in range(count)]
        expected = place(sizes, [(a, b) for a, b in lives])
        offsets, scratch = (ctypes.c_int64 * (count + 1))(), (ctypes.c_int64 * (4 * count + 4))()
        first, last = ((ctypes.c_int32 * (count + 1))(*(life[n] for life in lives)) for n in (0, 1))
        peak = library.placed(count, (ctypes.c_int64 * (count + 1))(*sizes), first, last, offsets, scratch)
        assert (tuple(offsets[:count]), peak) == (expected.offsets, expected.peak)


def test_steps_that_need_python_are_named(tmp_path: Path) -> None:
    exe = compiled(models.branches())
    with pytest.raises(fusible.LoweringError, match=r"if at 'if': branches and loops.*loop at 'loop'"):
        exe.save_c(tmp_path)
    with pytest.raises(fusible.LoweringError, match=r"known only when it runs"):
        compiled(models.nonzero_chain()).save_c(tmp_path)
    numpy = fusible.compile(models.cache_step(), target="numpy")
    with pytest.raises(fusible.LoweringError, match=r"add at 'add': it calls NumPy; reduce_sum at 'sum'"):
        numpy.save_c(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "Model", "1st", "a-b", "x" * 50, "../up", "gemm", "pool"])
def test_names_that_c_cannot_take(exported: tuple[fusible.Executable, Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(fusible.UsageError, match="cannot"):
        exported[0].save_c(tmp_path, name)


def test_names_out_of_the_model_cannot_become_code(tmp_path: Path) -> None:
    evil = '"}; */ int main(void) { /* \\" ??/\n#error'
    node = helper.make_node("Neg", [evil], ["y*/"], name=evil)
    exe = compiled(models.make([node], [models.value(evil, models.FLOAT, ["*/ n", 3])], ["y*/"]))
    exe.save_c(tmp_path)
    library, x = Library(tmp_path), np.ones((2, 3), np.float32)
    assert np.array_equal(library.run([x], 1)[0], -x)
    library.close()


def test_an_artifact_can_be_exported(exported: tuple[fusible.Executable, Path], tmp_path: Path) -> None:
    exe, folder = exported
    exe.save(tmp_path / "m.fusible")
    fusible.load(tmp_path / "m.fusible").save_c(tmp_path)
    for file in ("model.weights", "model.h", "src/model.c"):
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


def test_every_field_that_places_a_value_is_known() -> None:
    assert set(PlanValue._fields) == c_model._KNOWN
