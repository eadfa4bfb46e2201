"""Vision transformers in float64 NumPy, by the tensors' published names and shapes."""

import math

import numpy as np

WIDTH, HIDDEN, HEADS, LAYERS, PATCH, SIDE = 8, 12, 2, 2, 4, 16
PATCHES = (SIDE // PATCH) ** 2

_SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "image_size": SIDE,
    "patch_size": PATCH,
    "layer_norm_eps": 1e-6,
}
CONFIGS = {
    "vit": {**_SIZES, "model_type": "vit", "intermediate_size": HIDDEN},
    "deit": {**_SIZES, "model_type": "deit", "intermediate_size": HIDDEN},
    "dinov2": {**_SIZES, "model_type": "dinov2", "mlp_ratio": 2},
    "dinov2_with_registers": {
        **_SIZES,
        "model_type": "dinov2_with_registers",
        "mlp_ratio": 3,
        "use_swiglu_ffn": True,
        "num_register_tokens": 3,
    },
    "clip_vision_model": {
        **_SIZES,
        "model_type": "clip_vision_model",
        "intermediate_size": HIDDEN,
        "projection_dim": 6,
    },
    "siglip_vision_model": {
        **_SIZES,
        "model_type": "siglip_vision_model",
        "intermediate_size": HIDDEN,
        "hidden_act": "gelu",
    },
}

_BERT_NAMES = {
    "query": "attention.attention.query",
    "key": "attention.attention.key",
    "value": "attention.attention.value",
    "attended": "attention.output.dense",
}
_NAMES = {
    "vit": {
        **_BERT_NAMES,
        "layer": "encoder.layer",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "up": "intermediate.dense",
        "down": "output.dense",
    },
    "dinov2": {
        **_BERT_NAMES,
        "layer": "encoder.layer",
        "norm1": "norm1",
        "norm2": "norm2",
        "up": "mlp.fc1",
        "down": "mlp.fc2",
    },
    "clip_vision_model": {
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attended": "self_attn.out_proj",
        "layer": "encoder.layers",
        "norm1": "layer_norm1",
        "norm2": "layer_norm2",
        "up": "mlp.fc1",
        "down": "mlp.fc2",
    },
}
_NAMES["deit"] = _NAMES["vit"]
_NAMES["siglip_vision_model"] = _NAMES["clip_vision_model"]
_NAMES["dinov2_with_registers"] = {
    **_NAMES["dinov2"],
    "up": "mlp.weights_in",
    "down": "mlp.weights_out",
}


def shapes(kind):
    """Tensor name -> shape, as a checkpoint of this kind has them."""
    names, config = _NAMES[kind], CONFIGS[kind]
    hidden = config.get("intermediate_size", WIDTH * config.get("mlp_ratio", 1))
    up = hidden
    if config.get("use_swiglu_ffn"):
        hidden = -(-int(hidden * 2 / 3) // 8) * 8
        up = 2 * hidden
    result = {}

    def linear(name, outputs, inputs):
        result.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})

    def norm(name):
        result.update({f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)})

    for layer in (f"{names['layer']}.{index}" for index in range(LAYERS)):
        for part in ("query", "key", "value", "attended"):
            linear(f"{layer}.{names[part]}", WIDTH, WIDTH)
        linear(f"{layer}.{names['up']}", up, WIDTH)
        linear(f"{layer}.{names['down']}", WIDTH, hidden)
        norm(f"{layer}.{names['norm1']}")
        norm(f"{layer}.{names['norm2']}")
        if kind.startswith("dinov2"):
            result |= {f"{layer}.layer_scale{n}.lambda1": (WIDTH,) for n in (1, 2)}
    patches = (WIDTH, 3, PATCH, PATCH)
    if kind == "clip_vision_model":
        norm("pre_layrnorm")
        norm("post_layernorm")
        result |= {
            "embeddings.patch_embedding.weight": patches,
            "embeddings.class_embedding": (WIDTH,),
            "embeddings.position_embedding.weight": (PATCHES + 1, WIDTH),
            "visual_projection.weight": (config["projection_dim"], WIDTH),
        }
        return {n if n.startswith("visual") else f"vision_model.{n}": s for n, s in result.items()}
    if kind == "siglip_vision_model":
        norm("post_layernorm")
        norm("head.layernorm")
        linear("head.attention.out_proj", WIDTH, WIDTH)
        linear("head.mlp.fc1", hidden, WIDTH)
        linear("head.mlp.fc2", WIDTH, hidden)
        result |= {
            "embeddings.patch_embedding.weight": patches,
            "embeddings.patch_embedding.bias": (WIDTH,),
            "embeddings.position_embedding.weight": (PATCHES, WIDTH),
            "head.probe": (1, 1, WIDTH),
            "head.attention.in_proj_weight": (3 * WIDTH, WIDTH),
            "head.attention.in_proj_bias": (3 * WIDTH,),
        }
        return {f"vision_model.{name}": shape for name, shape in result.items()}
    norm("layernorm")
    result |= {
        "embeddings.patch_embeddings.projection.weight": patches,
        "embeddings.patch_embeddings.projection.bias": (WIDTH,),
        "embeddings.cls_token": (1, 1, WIDTH),
        "embeddings.position_embeddings": (1, PATCHES + 1 + (kind == "deit"), WIDTH),
    }
    if kind == "deit":
        result["embeddings.distillation_token"] = (1, 1, WIDTH)
    if kind == "dinov2_with_registers":
        result["embeddings.register_tokens"] = (1, config["num_register_tokens"], WIDTH)
    return result


def embed(kind, tensors, images, pooling="cls"):
    """Embeddings of normalized images of the trained resolution, [batch, SIDE, SIDE, 3]."""
    t = {name.removeprefix("vision_model."): array for name, array in tensors.items()}
    names, clip = _NAMES[kind], kind == "clip_vision_model"
    siglip = kind == "siglip_vision_model"
    prefix = "embeddings.patch_embedding" + ("" if clip or siglip else "s.projection")
    patches = _cut(images) @ t[f"{prefix}.weight"].transpose(2, 3, 1, 0).reshape(-1, WIDTH)
    patches = patches + t.get(f"{prefix}.bias", 0)
    if clip:
        first = t["embeddings.class_embedding"][None]
        positions = t["embeddings.position_embedding.weight"]
    elif siglip:
        first, positions = np.zeros([0, WIDTH]), t["embeddings.position_embedding.weight"]
    else:
        first = t["embeddings.cls_token"][0]
        if kind == "deit":
            first = np.concatenate([first, t["embeddings.distillation_token"][0]])
        positions = t["embeddings.position_embeddings"][0]
    first = np.broadcast_to(first, (len(images), *first.shape))
    x = np.concatenate([first, patches], axis=1) + positions
    before = first.shape[1]
    if kind == "dinov2_with_registers":
        registers = t["embeddings.register_tokens"]
        registers = np.broadcast_to(registers, (len(images), *registers.shape[1:]))
        x = np.concatenate([x[:, :1], registers, x[:, 1:]], axis=1)
        before += registers.shape[1]
    x = _norm(t, "pre_layrnorm", x) if clip else x
    for index in range(LAYERS):
        layer = f"{names['layer']}.{index}"
        x = x + _scale(t, layer, 1) * _attend(
            t, layer, names, _norm(t, f"{layer}.{names['norm1']}", x)
        )
        x = x + _scale(t, layer, 2) * _feed(
            kind, t, layer, names, _norm(t, f"{layer}.{names['norm2']}", x)
        )
    if clip:
        return _norm(t, "post_layernorm", x[:, 0]) @ t["visual_projection.weight"].T
    if siglip:
        return _pool_by_attention(t, _norm(t, "post_layernorm", x))
    x = _norm(t, "layernorm", x)
    return x[:, 0] if pooling == "cls" else x[:, before:].mean(axis=1)


def _cut(images):
    """[batch, patches, PATCH * PATCH * 3], row by row."""
    side = SIDE // PATCH
    cut = images.reshape(-1, side, PATCH, side, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(len(images), side * side, -1)


def _linear(t, name, x):
    return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]


def _norm(t, name, x):
    centered = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.mean(centered**2, axis=-1, keepdims=True) + 1e-6)
    return centered / deviation * t[f"{name}.weight"] + t[f"{name}.bias"]


def _scale(t, layer, index):
    return t.get(f"{layer}.layer_scale{index}.lambda1", 1.0)


def _pool_by_attention(t, x):
    weights = np.split(t["head.attention.in_proj_weight"], 3)
    biases = np.split(t["head.attention.in_proj_bias"], 3)
    probe = np.broadcast_to(t["head.probe"], (len(x), 1, WIDTH))
    inputs = (probe, x, x)
    query, key, value = (i @ w.T + b for i, w, b in zip(inputs, weights, biases, strict=True))
    pooled = _linear(t, "head.attention.out_proj", _softmax_attention(query, key, value))
    names = {"up": "mlp.fc1", "down": "mlp.fc2"}
    hidden = _feed("siglip_vision_model", t, "head", names, _norm(t, "head.layernorm", pooled))
    return (pooled + hidden)[:, 0]


def _attend(t, layer, names, x):
    projections = (_linear(t, f"{layer}.{names[part]}", x) for part in ("query", "key", "value"))
    return _linear(t, f"{layer}.{names['attended']}", _softmax_attention(*projections))


def _softmax_attention(*projections):
    query, key, value = (x.reshape(*x.shape[:2], HEADS, -1) for x in projections)
    logits = np.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(WIDTH / HEADS)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    attended = np.einsum("bhqk,bkhd->bqhd", weights, value)
    return attended.reshape(*attended.shape[:2], WIDTH)


def _feed(kind, t, layer, names, x):
    hidden = _linear(t, f"{layer}.{names['up']}", x)
    if kind == "dinov2_with_registers":
        gate, value = np.split(hidden, 2, axis=-1)
        hidden = gate / (1 + np.exp(-gate)) * value
    elif kind == "clip_vision_model":
        hidden = hidden / (1 + np.exp(-1.702 * hidden))
    else:
        hidden = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
    return _linear(t, f"{layer}.{names['down']}", hidden)
