"""The methods in float64 NumPy, dense and slow, written from their formulas.

An oracle is a function (pairs, left, left modality, right, right modality) -> [b, m] scores, where
`pairs` maps a modality to [n, d] or [n, captions, d] and holds live pairs alone.
"""

import math

import numpy as np
import oracle

SMALLEST = 1e-3  # canonical correlations below this share of the largest count as none


def captions_of(array):
    """A list of [captions, d] arrays of unit vectors, one for each pair."""
    array = np.asarray(array, np.float64)
    if array.ndim == 2:
        return [row[None] for row in oracle.unit(array)]
    return [oracle.unit(rows[np.any(rows != 0, axis=-1)]) for rows in array]


def singles_of(array):
    return np.concatenate(captions_of(array))


def means_of(array):
    rows = np.zeros([len(array), np.shape(array)[-1]])
    for row, captions in zip(rows, captions_of(array), strict=True):
        if len(captions):
            row[:] = captions.mean(axis=0)
    return rows


def covariance(rows, others):
    rows, others = rows - rows.mean(axis=0), others - others.mean(axis=0)
    return rows.T @ others / len(rows)


def shrunk_root(array, shrinkage):
    """The mean, and a symmetric W with W W the inverse of the shrunk covariance."""
    singles = singles_of(array)
    own = covariance(singles, singles)
    spread = np.trace(own) / len(own)
    added = max(shrinkage, 1e-3) * (spread if np.trace(own) > 1e-6 else 1.0)
    values, vectors = np.linalg.eigh(own)
    return singles.mean(axis=0), (vectors / np.sqrt(np.maximum(values, 0.0) + added)) @ vectors.T


def centred(queries, mean):
    units = oracle.unit(queries)
    rows = np.where(np.any(units != 0, axis=-1, keepdims=True), units - mean, 0.0)
    # What is the mean but for rounding has no direction.
    return np.where(np.linalg.norm(rows, axis=-1, keepdims=True) > 1e-6, rows, 0.0)


def cca_shrinkage(array):
    count = max(len(singles_of(array)) / len(array), 1.0)
    return 4.0 * np.shape(array)[-1] / (len(array) * math.sqrt(count))


def exponent(n):
    return float(np.clip(1.0 + np.log10(n / 500.0), 1.0, 2.0))


def _setting(setting, modality, default):
    if setting is None:
        return default
    return setting[modality] if isinstance(setting, dict) else setting


# Methods over relative representations.


def paper(*, k=None, p=None):
    def score(pairs, left, one, right, other):
        n = len(pairs[one])
        kept = min(800, math.ceil(n / 5)) if k is None else min(k, n)
        power = p
        if p is None:
            power = 4.0 * 2.0 ** np.clip(np.log(n / 4000) / np.log(400), 0, 1)

        def represent(queries, modality):
            similarities = oracle.unit(queries) @ oracle.unit(means_of(pairs[modality])).T
            return oracle.sparsify(similarities, k=kept, p=power)

        return represent(left, one) @ represent(right, other).T

    return score


def asif(*, k=None, p=None, shrinkage=None):
    def score(pairs, left, one, right, other):
        n = len(pairs[one])
        kept = min(800 if k is None else k, n)
        power = exponent(n) if p is None else p

        def represent(queries, modality):
            default = max(1.0, math.sqrt(cca_shrinkage(pairs[modality])))
            added = _setting(shrinkage, modality, default)
            similarities = whitened_similarities(queries, pairs[modality], added)
            return oracle.sparsify(similarities, k=kept, p=power)

        return represent(left, one) @ represent(right, other).T

    return score


def whitened_similarities(queries, array, shrinkage):
    """[b, n]: the quadratic mean of the positive cosines to the captions of a pair."""
    mean, root = shrunk_root(array, shrinkage)
    rows = oracle.unit(centred(queries, mean) @ root)
    several = np.ndim(array) == 3 and np.shape(array)[1] > 1
    result = np.zeros([len(rows), len(array)])
    for i, captions in enumerate(captions_of(array)):
        cosines = rows @ oracle.unit(centred(captions, mean) @ root).T
        if several:
            squares = (np.maximum(cosines, 0.0) ** 2).sum(axis=1)
            result[:, i] = np.sqrt(squares / max(len(captions), 1))
        elif len(captions):
            result[:, i] = cosines[:, 0]
    return result


# Linear methods.


def _ordered(score):
    """An oracle of the modalities in the order of their names."""

    def either(pairs, left, one, right, other):
        if one == other:
            partner = min(m for m in pairs if m != one)
            return score(pairs, left, one, right, other, partner)
        if one < other:
            return score(pairs, left, one, right, other, other)
        return score(pairs, right, other, left, one, one).T

    return either


def _codes(pairs, first, second, roots):
    """Maps to canonical coordinates, (x - mean) @ map, and the correlations, descending."""
    (x_mean, x_root), (y_mean, y_root) = roots
    between = covariance(means_of(pairs[first]), means_of(pairs[second]))
    left, values, right = np.linalg.svd(x_root @ between @ y_root, full_matrices=False)
    coupled = values > max(SMALLEST * values[0], 1e-6)
    values = values[coupled]
    maps = x_root @ left[:, coupled], y_root @ right[coupled].T
    return (x_mean, maps[0]), (y_mean, maps[1]), values


def _linear(shrinkages, whiten, code):
    """An oracle from code(rows [b, r], centred [b, d], correlations, "first" or "second")."""

    def score(pairs, left, one, right, other, partner):
        names = sorted([one, partner])
        roots = []
        for modality, white in zip(names, whiten, strict=True):
            mean, root = shrunk_root(pairs[modality], shrinkages(pairs[modality], modality))
            roots.append((mean, root if white else np.eye(len(mean))))
        *sides, values = _codes(pairs, *names, roots)

        def codes(queries, modality):
            place = names.index(modality)
            mean, basis = sides[place]
            rows = centred(queries, mean)
            return code(rows @ basis, rows, values, ("first", "second")[place])

        return codes(left, one) @ codes(right, other).T

    return _ordered(score)


def cca(*, shrinkage=None):
    return _linear(
        lambda array, m: _setting(shrinkage, m, cca_shrinkage(array)),
        (True, True),
        lambda rows, whole, values, side: oracle.unit(rows * values),
    )


def csa(*, dimension=None, shrinkage=None):
    return _linear(
        lambda array, m: _setting(shrinkage, m, cca_shrinkage(array)),
        (True, True),
        lambda rows, whole, values, side: (
            oracle.unit(rows[:, :dimension]) * np.sqrt(values[:dimension])
        ),
    )


def procrustes():
    return _linear(
        lambda array, m: 1.0, (False, False), lambda rows, whole, values, side: oracle.unit(rows)
    )


def ridge(*, penalty=1.0):
    def code(rows, whole, values, side):
        if side == "first":
            return oracle.unit(rows * values)
        length = np.linalg.norm(whole, axis=-1, keepdims=True)
        return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)

    return _linear(lambda array, m: penalty, (True, False), code)


# Combinators.


def fused(*methods, weights=None):
    weights = [1.0] * len(methods) if weights is None else weights
    return lambda *args: sum(w * method(*args) for w, method in zip(weights, methods, strict=True))


def with_square_root(method):
    def score(pairs, left, one, right, other):
        rooted = {m: bool((np.asarray(array) >= 0).all()) for m, array in pairs.items()}

        def root(rows, modality):
            rows = np.asarray(rows, np.float64)
            return np.sqrt(np.maximum(rows, 0.0)) if rooted[modality] else rows

        pairs = {m: root(array, m) for m, array in pairs.items()}
        return method(pairs, root(left, one), one, root(right, other), other)

    return score


def with_csls(method, *, bank=1000, neighbours=10):
    def score(pairs, left, one, right, other):
        n = len(pairs[one])
        count = min(bank, n)
        members = np.arange(count) * n // count

        def hubs(queries, modality, partner):
            items = pairs[partner][members]
            items = items if np.ndim(items) == 2 else means_of(items)
            found = np.sort(method(pairs, queries, modality, items, partner), axis=1)
            return found[:, -min(neighbours, count) :].mean(axis=1)

        scores = method(pairs, left, one, right, other)
        return 2.0 * scores - hubs(left, one, other)[:, None] - hubs(right, other, one)

    return score


def two_cosines(*, bank=1000, k=None, p=None, shrinkage=None):
    both = fused(cca(), asif(k=k, p=p, shrinkage=shrinkage))
    return with_csls(with_square_root(both), bank=bank)
