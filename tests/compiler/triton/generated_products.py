"""Random small regions around one contraction: operands that lie in any order, maps behind the sum, two stores."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from fusible.compiler.ir.symbols import Symbol
from fusible.compiler.region.parse import parse_region
from fusible.compiler.region.verify import verify_region
from tests.compiler.triton.generated import Sample

__all__ = ["product_sample"]

TYPES = {"f32": np.dtype(np.float32), "f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
SIZES = (1, 3, 8, 17, 32, 45, 70)
FOLLOWERS = ("max({0}, 0.0)", "mul({0}, 0.5)", "mul({0}, sigmoid({0}))", "add({0}, {0})", "min(max({0}, -1.0), 1.0)")


def product_sample(seed: int) -> Sample:
    """The region of a seed: y = f(x0 x1 + bias), of matrices or of a batch of them."""
    random = np.random.default_rng(seed)
    batch, rows, columns, depth = (int(random.choice(SIZES)) for _ in range(4))
    batched, symbolic = random.random() < 0.3, random.random() < 0.3
    kind = str(random.choice(list(TYPES)))
    row = "rows" if symbolic else str(rows)
    batches, index = ([batch % 4 + 1], "i0, ") if batched else ([], "")
    left = [*batches, rows, depth]
    written = [*map(str, batches), row, str(depth)]
    left_index = f"{index}i1, i3"
    if random.random() < 0.3:
        left[-2:], written[-2:], left_index = left[:-3:-1], written[:-3:-1], f"{index}i3, i1"
    right, right_index = [depth, columns], "i3, i2"
    if random.random() < 0.5:
        right, right_index = [columns, depth], "i2, i3"
    arrays = [random.uniform(-1, 1, shape).astype(TYPES[kind]) for shape in (left, right, [columns])]
    lines = [
        f"region [i0={batches[0] if batched else 1}, i1={row}, i2={columns}, i3={depth}]",
        f"  in x0: {kind}[{', '.join(written)}]",
        f"  in x1: {kind}[{', '.join(map(str, right))}]",
        f"  in x2: {kind}[{columns}]",
        f"  out y0: {kind}[{', '.join([*map(str, batches), row, str(columns)])}]",
        f"  out y1: f32[{', '.join([*map(str, batches), str(columns), row])}]",
        f"  v0: {kind} = load x0[{left_index}]",
        f"  v1: {kind} = load x1[{right_index}]",
        "  v2: f32 = contract over i3 of v0, v1",
        f"  v3: {kind} = load x2[i2]",
        "  v4: f32 = add(v2, f32(v3))",
        f"  v5: f32 = {str(random.choice(FOLLOWERS)).format('v4')}",
        f"  v6: {kind} = {kind}(v5)",
        f"  store y0[{index}i1, i2] = v6",
        f"  store y1[{index}i2, i1] = v5",
    ]
    region = parse_region("\n".join(lines), {"rows": Symbol("rows")} if symbolic else {})
    verify_region(region)
    return Sample(region, arrays, {"rows": rows} if symbolic else {}, None, depth)
