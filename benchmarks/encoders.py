"""Encoders beside PyTorch and ONNX Runtime, with the same weights, on the same batches.

    pip install torch onnxruntime onnx onnxscript
    python benchmarks/encoders.py                        # all models and batches: half an hour
    python benchmarks/encoders.py --models vit-s --batches 32 --runtimes jax eager

The weights of ViT-S and BERT-small are random; speed does not depend on them. The limit is the
model's floating-point work (PyTorch's own count of products and convolutions) at the rate of a
large matrix product.
"""

import contextlib
import dataclasses
import functools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
import tyro
from measure import machine, median_seconds, peak_bytes, print_table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch_efficientnet import TorchEfficientNetLite

from asif_jax import encoders
from asif_jax.encoders.image.efficientnet_lite import CONFIGS

RUNTIMES = ("jax", "eager", "compile", "onnx")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is run."""

    models: tuple[str, ...] = (
        "vit-s",
        "bert-small",
        "efficientnet-lite0",
        "efficientnet-lite2",
    )
    """Which encoders; also vit-b."""
    batches: tuple[int, ...] = (1, 32, 256)
    """Images or sentences at once."""
    runtimes: tuple[str, ...] = RUNTIMES
    """Of jax, eager (PyTorch), compile (torch.compile) and onnx (ONNX Runtime)."""
    tokens: int = 64
    """Length of the sentences."""
    dtype: str = "float32"
    """Of parameters and products: float32 or bfloat16 (without onnx)."""
    repeats: int = 3
    """Timed rounds, after one that is not; medians are printed."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One model in both frameworks.

    Attributes:
      encoder: ours.
      module: PyTorch's, in evaluation mode.
      inputs: batch size -> what `encoder.apply` takes.
      arguments: the same -> what `module` takes.
    """

    encoder: encoders.Encoder
    module: torch.nn.Module
    inputs: Callable[[int], Any]
    arguments: Callable[[Any], tuple[torch.Tensor, ...]]


class Embedding(torch.nn.Module):
    """The class token, or the mean of the tokens, of a model of transformers."""

    def __init__(self, model, *, mean):
        super().__init__()
        self.model, self.mean = model, mean

    def forward(self, *arguments):
        tokens = self.model(*arguments).last_hidden_state
        return tokens.mean(dim=1) if self.mean else tokens[:, 0]


def vit(settings: Settings, *, width: int, heads: int) -> Case:
    config = transformers.ViTConfig(
        hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width
    )
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        transformers.ViTImageProcessorPil().save_pretrained(directory)
        encoder = encoders.load(directory, dtype=settings.dtype)
    return image_case(encoder, Embedding(model, mean=False), 224, mean=127.5, scale=127.5)


def efficientnet(name: str) -> Case:
    encoder = encoders.load(name)
    resolution = CONFIGS[name].resolution
    return image_case(encoder, TorchEfficientNetLite(name), resolution, mean=127.0, scale=128.0)


class OfPixels(torch.nn.Module):
    """A module of normalized images as one of [batch, h, w, 3] uint8 pixels, as ours take them."""

    def __init__(self, module, *, mean, scale):
        super().__init__()
        self.module, self.mean, self.scale = module, mean, scale

    def forward(self, pixels):
        dtype = next(self.module.parameters()).dtype
        images = ((pixels.float() - self.mean) / self.scale).to(dtype)
        return self.module(images.permute(0, 3, 1, 2))


def image_case(encoder, module, resolution: int, *, mean: float, scale: float) -> Case:
    def inputs(batch: int) -> np.ndarray:
        shape = [batch, resolution, resolution, 3]
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    module = OfPixels(module, mean=mean, scale=scale).eval()
    return Case(encoder, module, inputs, lambda pixels: (torch.from_numpy(pixels),))


def bert(settings: Settings) -> Case:
    """BERT-small of Turc et al., 2019: four layers of width 512."""
    config = transformers.BertConfig(
        hidden_size=512, num_hidden_layers=4, num_attention_heads=8, intermediate_size=2048
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        (Path(directory) / "vocab.txt").write_text("\n".join(words))
        encoder = encoders.load(directory, dtype=settings.dtype)

    def inputs(batch: int) -> dict[str, np.ndarray]:
        ids = np.random.default_rng(0).integers(5, 30000, [batch, settings.tokens])
        return {"ids": ids.astype(np.int32), "mask": np.ones(ids.shape, bool)}

    def arguments(inputs) -> tuple[torch.Tensor, ...]:
        ids, mask = (torch.from_numpy(inputs[name]).long() for name in ("ids", "mask"))
        return ids, mask

    return Case(encoder, Embedding(model, mean=True), inputs, arguments)


def case(name: str, settings: Settings) -> Case:
    if name == "bert-small":
        return bert(settings)
    if name in ("vit-s", "vit-b"):
        width = {"vit-s": 384, "vit-b": 768}[name]
        return vit(settings, width=width, heads=width // 64)
    return efficientnet(name)


def run_of(runtime: str, case: Case, batch: int) -> Callable[[], Any]:
    """Prepares a runtime for one shape: what is returned has compiled, and takes no arguments."""
    inputs = case.inputs(batch)
    if runtime == "jax":
        arguments = jax.device_put((case.encoder.params, inputs))
        compiled = jax.jit(case.encoder.apply).lower(*arguments).compile()
        return functools.partial(compiled, *arguments)
    arguments = case.arguments(inputs)
    if runtime == "onnx":
        return onnx_run(case.module, arguments)
    arguments = tuple(argument.to(device()) for argument in arguments)
    module = torch.compile(case.module) if runtime == "compile" else case.module

    def run():
        with torch.inference_mode():
            embeddings = module(*arguments)
        if device() == "cuda":
            torch.cuda.synchronize()
        return embeddings

    run()
    return run


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def onnx_run(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> Callable[[], Any]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(None):
        file = f"{directory}/model.onnx"
        torch.onnx.export(module, arguments, file, dynamo=True, external_data=False)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    feed = {
        tensor.name: argument.numpy()
        for tensor, argument in zip(session.get_inputs(), arguments, strict=True)
    }
    return lambda: session.run(None, feed)[0]


def product(dtype: str) -> tuple[Callable[[], Any], int]:
    """A large matrix product, and its floating-point operations."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    matrix = jax.random.normal(jax.random.key(0), [size, size], dtype)
    return functools.partial(jax.jit(jnp.matmul), matrix, matrix), 2 * size**3


def operations(case: Case) -> int:
    """Floating-point operations of the products and convolutions for one item."""
    # Of its implementations of attention the counter knows the one made of products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        case.module(*case.arguments(case.inputs(1)))
    return counter.get_total_flops()


def embeddings_of(run: Callable[[], Any]) -> np.ndarray:
    result = run()
    result = result.float().cpu().numpy() if isinstance(result, torch.Tensor) else result
    return np.asarray(result, np.float64)


def compare(name: str, settings: Settings) -> None:
    """Prints the table of one model."""
    model = case(name, settings)
    work = operations(model)
    model.module.to(device(), getattr(torch, settings.dtype))
    print(f"\n{name}: {work / 1e9:.3g} GFLOP each", flush=True)
    rows = [row for batch in settings.batches for row in rows_of(model, batch, work, settings)]
    header = ["", "a second", "x eager", "x limit", "compile s", "peak MiB", "cosine"]
    print_table(header, rows)


def rows_of(model: Case, batch: int, work: int, settings: Settings) -> list[list[object]]:
    """The rows of one batch size, of which the last is the limit."""
    runs, prepared = {}, {}
    for runtime in settings.runtimes:
        start = time.perf_counter()
        runs[runtime] = run_of(runtime, model, batch)
        prepared[runtime] = time.perf_counter() - start
    on_cpu = jax.default_backend() == "cpu"
    peaks = {runtime: peak_bytes(run) / 2**20 for runtime, run in runs.items() if on_cpu}
    first = embeddings_of(next(iter(runs.values())))
    agreement = {n: cosines(embeddings_of(run), first).min() for n, run in runs.items()}
    multiply, operations = product(settings.dtype)
    # In the same rounds, for the speed of a machine drifts.
    seconds = median_seconds({**runs, "limit": multiply}, repeats=settings.repeats)
    limit = operations / seconds.pop("limit") / work
    rows: list[list[object]] = [
        [
            f"{runtime}, batch {batch}",
            batch / taken,
            seconds.get("eager", np.nan) / taken,
            batch / taken / limit,
            prepared[runtime],
            peaks.get(runtime, ""),
            f"{agreement[runtime]:.7f}",
        ]
        for runtime, taken in seconds.items()
    ]
    return [*rows, [f"limit, batch {batch}", limit, "", 1.0, "", "", ""]]


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    return np.sum(ours * theirs, axis=-1) / lengths


def main(settings: Settings) -> None:
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(os.cpu_count() or 1)
    print(f"{machine()}, PyTorch {torch.__version__}; {settings}", flush=True)
    for name in settings.models:
        compare(name, settings)


if __name__ == "__main__":
    main(tyro.cli(Settings))
