"""What the benchmarks compare with: the published algorithm in PyTorch, and FAISS."""

import warnings

import faiss
import numpy as np
import torch

# Sparse products of PyTorch warn that they are in beta.
warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)


def published_representation(
    embeddings: torch.Tensor, anchors: torch.Tensor, *, k: int, chunk: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest similarities and their anchors, a chunk of embeddings after another."""
    parts = [torch.topk(part @ anchors.T, k) for part in embeddings.split(chunk)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def published_scores(
    images: tuple[torch.Tensor, torch.Tensor],
    texts: tuple[torch.Tensor, torch.Tensor],
    *,
    anchors: int,
    p: float,
) -> torch.Tensor:
    """[b, classes]: the product of sparse matrices, of which the texts' alone has unit rows."""
    powers = texts[0].clamp(min=0) ** p
    powers /= powers.norm(dim=-1, keepdim=True)
    left = sparse(images[0].clamp(min=0) ** p, images[1], anchors)
    return torch.sparse.mm(left, sparse(powers, texts[1], anchors).T).to_dense()


def sparse(values: torch.Tensor, indices: torch.Tensor, anchors: int) -> torch.Tensor:
    """[b, anchors] sparse from [b, k] values and indices."""
    rows = torch.arange(len(indices)).repeat_interleave(indices.shape[1])
    coordinates = torch.stack([rows, indices.flatten()])
    return torch.sparse_coo_tensor(coordinates, values.flatten(), (len(indices), anchors))


def faiss_ivf(anchors: np.ndarray, *, clusters: int) -> faiss.IndexIVFFlat:
    """FAISS's inverted file over clusters of k-means, trained on 64 anchors a cluster."""
    n, d = anchors.shape
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, clusters, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 5
    index.cp.max_points_per_centroid = 64
    rows = np.random.default_rng(0).choice(n, min(n, 64 * clusters), replace=False)
    index.train(anchors[rows])
    index.add(anchors)
    return index


def probe_for_recall(
    index: faiss.IndexIVFFlat, queries: np.ndarray, exact: np.ndarray, *, recall: float
) -> float:
    """Doubles the probes until the recall is reached; returns what is reached."""
    index.nprobe = 1
    while True:
        found = index.search(queries, exact.shape[1])[1]
        reached = recall_of(found, exact)
        if reached >= recall or index.nprobe >= index.nlist:
            return reached
        index.nprobe *= 2


def recall_of(found: np.ndarray, exact: np.ndarray) -> float:
    """Mean share of the exact anchors that were found."""
    shares = [
        np.isin(e, f).mean() for f, e in zip(np.asarray(found), np.asarray(exact), strict=True)
    ]
    return float(np.mean(shares))
