"""Time and peak memory of the projection against n, batch, k, d and devices.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --largest 12000000 --dtype bfloat16

Every point is measured in a process of its own. Several devices are asked of XLA where the machine
has one: they share its cores, so their times show what sharding costs, not what it gains.
"""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import numpy as np
import tyro


@dataclasses.dataclass(frozen=True)
class Point:
    """One problem; the middle of the others."""

    anchors: int = 1_048_576
    dimension: int = 384
    batch: int = 128
    k: int = 800
    devices: int = 1
    dtype: str = "float32"
    memory: int = 2**30
    repeats: int = 3


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is varied, one thing at a time."""

    largest: int = 8_388_608
    """Most anchors; halved down to 131,072."""
    dtype: str = "float32"
    """Of the anchors: float32 or bfloat16."""
    memory: int = 2**30
    """Bytes that a projection may use."""
    repeats: int = 3
    """Timed rounds a point."""


def points(settings: Settings) -> dict[str, list[Point]]:
    middle = Point(dtype=settings.dtype, memory=settings.memory, repeats=settings.repeats)
    sizes = [settings.largest]
    while sizes[0] >= 2 * 131_072:
        sizes.insert(0, sizes[0] // 2)
    varied = {
        "anchors": sizes,
        "batch": [1, 16, 128, 1024],
        "k": [10, 100, 800, 3200],
        "dimension": [128, 384, 768, 1280],
        "memory": [2**28, 2**29, 2**30, 2**32],
        "devices": [1, 2, 4, 8],
    }
    return {
        name: [dataclasses.replace(middle, **{name: value}) for value in values]
        for name, values in varied.items()
    }


def measure(point: Point) -> dict[str, float]:
    """Seconds of the projection and of the product it contains, and the projection's memory."""
    import jax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec
    from measure import median_seconds, peak_bytes

    import asif_jax as asif
    from asif_jax.core.cosine import cosine_similarities

    options = {"k": point.k, "normalized": True, "memory": point.memory}
    project, spread = functools.partial(asif.project, **options), None
    if point.devices > 1:
        mesh = jax.make_mesh((point.devices,), ("pairs",), (AxisType.Auto,))
        spread = NamedSharding(mesh, PartitionSpec("pairs"))
        project = functools.partial(
            asif.sharding.project, mesh=mesh, anchors_axis="pairs", **options
        )
    anchors = draw(point, spread)
    queries = draw(dataclasses.replace(point, anchors=point.batch, dtype="float32"), None)
    compiled = jax.jit(project).lower(queries, anchors).compile()
    fixed = jax.jit(lambda x, a: cosine_similarities(x, a, normalized=True).max(axis=-1))
    runs = {"seconds": lambda: compiled(queries, anchors)}
    if point.batch * point.anchors * 4 <= 2**32:
        runs["limit"] = lambda: fixed(queries, anchors)
    taken = {"bytes": peak_bytes(compiled, queries, anchors)}
    return taken | median_seconds(runs, repeats=point.repeats)


def draw(point: Point, sharding):
    """Random unit rows, made a part after another so that nothing else of that size is held."""
    import jax

    import asif_jax as asif

    rows = min(point.anchors, 65_536)

    def part(key):
        return asif.normalize(jax.random.normal(key, [rows, point.dimension])).astype(point.dtype)

    @functools.partial(jax.jit, out_shardings=sharding)
    def all_parts():
        keys = jax.random.split(jax.random.key(point.anchors), -(-point.anchors // rows))
        return jax.lax.map(part, keys).reshape(-1, point.dimension)[: point.anchors]

    return jax.block_until_ready(all_parts())


def measure_apart(point: Point) -> dict[str, float]:
    """Measures in a process of its own, with as many devices as asked for."""
    flags = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={point.devices}"
    )
    command = [sys.executable, __file__, "--point", json.dumps(dataclasses.asdict(point))]
    result = subprocess.run(
        command, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True
    )
    if result.returncode:
        raise SystemExit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def main(settings: Settings) -> None:
    from measure import machine, print_table

    print(f"{machine()}; {settings}", flush=True)
    for name, varied in points(settings).items():
        rows = []
        for point in varied:
            found = measure_apart(point)
            limit = found.get("limit")
            share = found["seconds"] / limit if limit else ""
            rows.append(
                [getattr(point, name), found["seconds"], share, round(found["bytes"] / 2**20)]
            )
        print()
        print_table([name, "seconds", "x product and maximum", "peak MiB"], rows)
        if name == "anchors":
            n, seconds = np.array([row[:2] for row in rows], float).T
            slope, start = np.polyfit(n, seconds, 1, w=1 / seconds)
            off = np.abs(start + slope * n - seconds) / seconds
            print(
                f"time = {start:.3f} s + {slope * 1e6:.3f} s x n / 1,000,000, "
                f"within {100 * off.max():.0f}% of every row"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--point"]:
        print(json.dumps(measure(Point(**json.loads(sys.argv[2])))))
    else:
        main(tyro.cli(Settings))
