"""ASIF in float64 NumPy, dense and slow: what every function of the core is tested against."""

import numpy as np


def unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def dense_representation(embeddings, anchors, *, k, p, live=None, signed=False):
    """[b, n] float64: the relative representation as the paper writes it."""
    similarities = unit(embeddings) @ unit(anchors).T
    return sparsify(similarities, k=k, p=p, live=live, signed=signed)


def sparsify(similarities, *, k, p, live=None, signed=False):
    similarities = np.asarray(similarities, np.float64)
    result = np.zeros_like(similarities)
    for row, values in enumerate(similarities):
        kept = selected(values, k=k, live=live)
        result[row, kept] = values[kept]
    result = np.sign(result) * np.abs(result) ** p if signed else np.maximum(result, 0.0) ** p
    return unit(result)


def selected(similarities, *, k, live=None):
    """The k largest live entries of a vector, equals by the lower index."""
    candidates = np.arange(len(similarities)) if live is None else np.flatnonzero(live)
    order = sorted(candidates, key=lambda i: (-similarities[i], i))
    return np.asarray(order[:k], int)


def to_dense(representation):
    """[b, n] float64 from [b, k] values and indices."""
    values = np.asarray(representation.values, np.float64)
    dense = np.zeros([values.shape[0], representation.size])
    np.put_along_axis(dense, np.asarray(representation.indices), values, axis=-1)
    return dense


def best_rank(scores, relevant):
    """[b] float64 ranks from 1; infinite for a query that finds nothing, as NaN finds nothing."""
    ranks = []
    for row, right in zip(np.asarray(scores, np.float64), relevant, strict=True):
        order = sorted(np.flatnonzero(~np.isnan(row)), key=lambda i: (-row[i], i))
        places = [place for place, item in enumerate(order, start=1) if right[item]]
        ranks.append(min(places, default=np.inf))
    return np.asarray(ranks, np.float64)
