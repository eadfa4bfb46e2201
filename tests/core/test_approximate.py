import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asif_jax as asif
from asif_jax.core import approximate

D, K = 12, 20


def data(n, batch=6, seed=0):
    """Anchors around a few directions, and embeddings near some of them."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=[8, D])
    anchors = centers[rng.integers(0, 8, size=n)] + 0.4 * rng.normal(size=[n, D])
    embeddings = centers[rng.integers(0, 8, size=batch)] + 0.4 * rng.normal(size=[batch, D])
    return embeddings.astype(np.float32), anchors.astype(np.float32)


def all_probed(embeddings, clusters, **options):
    return approximate.project(embeddings, clusters, probes=len(clusters.members), **options)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("n", [1, 91, 3001])
def test_clusters_part_the_anchors(n, dtype):
    anchors = jnp.asarray(data(n)[1], dtype)
    live = np.random.default_rng(1).random(n) < 0.9
    clusters = approximate.cluster(anchors, live=live)
    members = np.asarray(clusters.members)
    assert sorted(members[members < n]) == np.flatnonzero(live).tolist()
    units = np.append(asif.normalize(anchors).astype(dtype), np.zeros([1, D], dtype), axis=0)
    assert clusters.embeddings.dtype == clusters.centroids.dtype == dtype
    np.testing.assert_array_equal(clusters.embeddings, units[members])
    count = np.maximum((members < n).sum(axis=1, keepdims=True), 1)
    means = np.asarray(clusters.embeddings, np.float64).sum(axis=1) / count
    means = oracle.unit(means) * np.linalg.norm(means, axis=1, keepdims=True) ** 0.5
    np.testing.assert_allclose(np.asarray(clusters.centroids, np.float64), means, atol=5e-3)
    assert members.shape[1] == min(n, 24)
    assert len(members) <= -(-n // 20)


@settings(deadline=None, max_examples=8)
@given(st.sampled_from([1, 2, 63, 300, 2050]), st.integers(0, 9), st.floats(0.05, 1.0))
def test_probing_all_clusters_is_exact(n, seed, share):
    embeddings, anchors = data(n, seed=seed)
    live = np.random.default_rng(seed).random(n) < share
    k = min(K, n)
    result = all_probed(embeddings, approximate.cluster(anchors, live=live), k=k, p=3.0)
    expected = oracle.dense_representation(embeddings, anchors, k=k, p=3.0, live=live)
    dense = np.zeros_like(expected)
    np.add.at(dense, (np.arange(len(dense))[:, None], result.indices), result.values)
    np.testing.assert_allclose(dense, expected, atol=2e-5)
    assert (np.diff(result.indices) >= 0).all()
    assert result.size == n


def test_few_clusters_hold_most_of_the_nearest():
    embeddings, anchors = data(20_000, batch=50)
    clusters = approximate.cluster(anchors)
    curve = approximate.recall_curve(embeddings, clusters, k=K)
    count = len(clusters.members)
    assert curve.shape == (count,)
    assert curve[count // 8] > 0.9
    assert curve[-1] == 1.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_recall_curve_is_the_recall(dtype):
    embeddings, anchors = data(3000, batch=30)
    clusters = approximate.cluster(jnp.asarray(anchors, dtype))
    curve = approximate.recall_curve(embeddings, clusters, k=K)
    exact = asif.project(embeddings, jnp.asarray(anchors, dtype), k=K).indices
    for probes in (1, 3, 10, 40):
        found = approximate.project(embeddings, clusters, k=K, probes=probes).indices
        shares = [np.isin(*pair).mean() for pair in zip(exact, found, strict=True)]
        assert np.mean(shares) == pytest.approx(float(curve[probes - 1]), abs=2e-3)


def test_the_removed_are_not_found():
    embeddings, anchors = data(3000)
    model = asif.anchors.create({"image": anchors})
    clusters = approximate.cluster(model.embeddings["image"], live=model.live)
    before = approximate.project(embeddings, clusters, k=K, probes=8)
    model = asif.anchors.remove(model, before.indices.reshape(-1))
    after = approximate.project(embeddings, clusters._replace(live=model.live), k=K, probes=8)
    assert not np.isin(after.indices[after.values > 0], before.indices).any()
    assert (after.values > 0).any(axis=-1).all()


def test_bad_rows_stay_alone():
    embeddings, anchors = data(3000)
    embeddings[2], anchors[77], anchors[5] = np.nan, np.inf, 0
    result = all_probed(embeddings, approximate.cluster(anchors), k=K)
    assert np.isnan(result.values).any(axis=-1).tolist() == [row == 2 for row in range(6)]
    assert not np.isin(result.indices[np.arange(6) != 2], [77, 5]).any()


def test_under_transforms():
    embeddings, anchors = data(3000)
    clusters = jax.jit(approximate.cluster)(anchors)

    def values(x):
        return approximate.project(x, clusters, k=K, p=2.0, probes=8).values

    expected = values(embeddings)
    np.testing.assert_allclose(jax.vmap(values)(embeddings), expected, atol=1e-6)
    np.testing.assert_allclose(values(embeddings.reshape(2, 3, D)).reshape(6, K), expected)
    # Within all clusters, as the exact projection says.
    gradients = [
        jax.grad(lambda x, f=f: (f(x) ** 3).sum())(jnp.asarray(embeddings))
        for f in (
            lambda x: all_probed(x, clusters, k=K, p=2.0).values,
            lambda x: asif.project(x, anchors, k=K, p=2.0).values,
        )
    ]
    assert np.abs(gradients[1]).max() > 1e-3
    np.testing.assert_allclose(*gradients, atol=1e-5)


def test_several_queries_or_some_clusters_at_once_find_the_same(monkeypatch):
    embeddings, anchors = data(3000)
    clusters = approximate.cluster(anchors).embeddings
    arrays = jnp.asarray(embeddings), clusters, jnp.tile(jnp.arange(7), [6, 1])
    one, many = (approximate._search(*arrays, at_once=count) for count in (1, 4))
    np.testing.assert_allclose(one, many, atol=1e-6)
    monkeypatch.setattr(approximate, "_BYTES_AT_ONCE", 3 * clusters[0].nbytes)
    np.testing.assert_allclose(one, approximate._search_in_cache(*arrays), atol=1e-6)


def test_an_empty_batch():
    clusters = approximate.cluster(data(300)[1])
    result = approximate.project(np.zeros([0, D]), clusters, k=5, probes=2)
    chex.assert_shape([result.values, result.indices], (0, 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"probes": 22}, "probes=22"), ({"probes": 2, "k": 300}, "k=300"), ({"k": 0}, "k=0")],
)
def test_impossible_requests_are_refused(options, message):
    clusters = approximate.cluster(data(500)[1])
    with pytest.raises(ValueError, match=message):
        approximate.project(np.ones([2, D]), clusters, **{"k": 3, "probes": 1} | options)


def test_misshaped_arrays_are_refused():
    with pytest.raises(ValueError, match="n=0"):
        approximate.cluster(np.ones([0, 3]))
    with pytest.raises(ValueError, match=r"\(2, 5\)"):
        approximate.project(np.ones([2, 5]), approximate.cluster(data(500)[1]), k=3, probes=1)
