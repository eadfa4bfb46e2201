"""Zero-shot classification from embeddings, end to end, against the published algorithm.

pip install torch faiss-cpu
python benchmarks/classification.py                 # the paper's size: about ten minutes
python benchmarks/classification.py --anchors 131072 --no-peers
"""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import synthetic
import tyro
from measure import Runs, machine, median_seconds, print_table

import asif_jax as asif


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the problem."""

    anchors: int = 1_572_864
    """Number of pairs n."""
    dimension: int = 384
    """Dimension d of both embeddings."""
    images: int = 2000
    """Images to classify."""
    classes: int = 1000
    """Classes, each of one prompt."""
    k: int = 800
    """Similarities kept."""
    p: float = 8.0
    """The exponent."""
    probes: tuple[int, ...] = (128, 192)
    """Clusters that approximate projections search."""
    memory: int = 2**31
    """Bytes that an exact projection may use."""
    chunk: int = 256
    """Embeddings that the published algorithm takes at once."""
    repeats: int = 3
    """Timed rounds, after one that is not; medians are printed."""
    peers: bool = True
    """Compare with the published algorithm in PyTorch."""


def problem(settings: Settings) -> tuple[dict[str, jax.Array], dict[str, jax.Array], np.ndarray]:
    """Anchors and inputs of both modalities, and the class of each image."""
    keys = jax.random.split(jax.random.key(0), 5)
    classes = jax.random.choice(keys[0], synthetic.CONCEPTS, [settings.classes], replace=False)
    labels = jax.random.randint(keys[1], [settings.images], 0, settings.classes)
    pairs = synthetic.concepts_of(keys[2], settings.anchors)
    shown = {"image": classes[labels], "text": classes}
    anchors, inputs = {}, {}
    for modality, (name, concepts) in enumerate(shown.items()):
        options = {"modality": modality, "dimension": settings.dimension}
        anchors[name] = synthetic.embed(keys[3], pairs, **options)
        inputs[name] = synthetic.embed(jax.random.fold_in(keys[4], modality), concepts, **options)
    return anchors, inputs, np.asarray(labels)


def classifiers(settings: Settings, anchors: dict, inputs: dict) -> Runs:
    def classify(project, sources: dict) -> jax.Array:
        found = {name: project(inputs[name], sources[name]) for name in inputs}
        return asif.classify(found["image"], found["text"])

    exact = functools.partial(
        asif.project, k=settings.k, p=settings.p, normalized=True, memory=settings.memory
    )
    half = {name: array.astype(jnp.bfloat16) for name, array in anchors.items()}
    start = time.perf_counter()
    clusters = jax.block_until_ready(
        {name: asif.approximate.cluster(array) for name, array in anchors.items()}
    )
    print(f"asif clusters both modalities in {time.perf_counter() - start:.0f} s", flush=True)
    runs: dict = {
        "asif, exact": lambda: classify(exact, anchors),
        "asif, exact, bfloat16": lambda: classify(exact, half),
    }
    for probes in settings.probes:
        approximate = functools.partial(
            asif.approximate.project, k=settings.k, p=settings.p, probes=probes
        )
        runs[f"asif, approximate, {probes} of {len(clusters['image'].members)} clusters"] = (
            lambda project=approximate: classify(project, clusters)
        )
    return runs


def published(settings: Settings, anchors: dict, inputs: dict) -> Runs:
    import peers
    import torch

    tensors = {
        name: tuple(torch.from_dlpack(array) for array in (inputs[name], anchors[name]))
        for name in inputs
    }

    def classify() -> np.ndarray:
        images, texts = (
            peers.published_representation(*tensors[name], k=settings.k, chunk=settings.chunk)
            for name in ("image", "text")
        )
        options = {"anchors": settings.anchors, "p": settings.p}
        return peers.published_scores(images, texts, **options).argmax(dim=-1).numpy()

    return {"published algorithm, PyTorch": classify}


def main(settings: Settings) -> None:
    print(f"{machine()}; {settings}", flush=True)
    anchors, inputs, labels = problem(settings)
    runs = {
        **(published(settings, anchors, inputs) if settings.peers else {}),
        **classifiers(settings, anchors, inputs),
    }
    seconds = median_seconds(runs, repeats=settings.repeats)
    predicted = {name: np.asarray(run()) for name, run in runs.items()}
    first = next(iter(runs))
    print_table(
        ["", "seconds", "times faster", "same predictions", "accuracy"],
        [
            [
                name,
                s,
                seconds[first] / s,
                float(np.mean(predicted[name] == predicted[first])),
                float(np.mean(predicted[name] == labels)),
            ]
            for name, s in seconds.items()
        ],
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
