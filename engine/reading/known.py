"""Tables of techniques: what libraries call them, and their settings under our genes' names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from engine.reading.values import Made, Mapped, Ref, Sequence, Unknown

Items = Mapping[Any, Any]
Arguments = tuple[Any, ...]
Named = tuple[str, dict[str, Any]]


def plain(items: Items) -> dict[str, Any]:
    """Arguments that are numbers, texts or not known; what is neither is left out."""
    return {
        str(name): value.leaf if isinstance(value, Ref) else value
        for name, value in items.items()
        if isinstance(value, bool | int | float | str | Ref | Unknown)
    }


def _as(technique: str, **settings: Any) -> Callable[[Arguments, Items], Named]:
    return lambda args, items: (technique, dict(settings))


def _with(technique: str, *names: str) -> Callable[[Arguments, Items], Named]:
    """Arguments by place under these names, and those by name."""
    return lambda args, items: (
        technique,
        plain({**dict(zip(names, args, strict=False)), **items}),
    )


def _casting(args: Arguments, items: Items) -> Named:
    storage = args[0] if args else items.get("storage_dtype")
    return "layerwise_fp8", {"storage": storage.leaf} if isinstance(storage, Ref) else {}


def _group(args: Arguments, items: Items) -> Named:
    level = str(items.get("offload_type", "block_level")).partition("_")[0]
    return "placement", {"mode": f"group_{level}"}


def _backend(args: Arguments, items: Items) -> Named:
    name = args[0] if args else items.get("backend", "")
    return "fused_attention", {"kernel": KERNELS.get(str(name).lower(), str(name))}


def _processor(args: Arguments, items: Items) -> Named:
    made = args[0] if args else items.get("processor")
    leaf = made.ref.leaf if isinstance(made, Made) else ""
    return "attention", {"kernel": PROCESSORS.get(leaf, leaf)}


KERNELS = {
    "flash_attention": "flash", "flash": "flash", "efficient_attention": "efficient",
    "cudnn_attention": "cudnn", "_native_cudnn": "cudnn", "_native_flash": "flash",
    "_native_efficient": "efficient", "math": "math", "_native_math": "math", "native": "native",
    "xformers": "xformers", "sage": "sage",
}  # fmt: skip
PROCESSORS = {"AttnProcessor2_0": "sdpa", "AttnProcessor": "plain",
              "XFormersAttnProcessor": "xformers", "SlicedAttnProcessor": "sliced"}  # fmt: skip
STARTS: dict[str, Callable[[Arguments, Items], Named]] = {
    "enable_model_cpu_offload": _as("placement", mode="model"),
    "enable_sequential_cpu_offload": _as("placement", mode="sequential"),
    "enable_group_offload": _group,
    "enable_vae_slicing": _as("vae", slicing=True),
    "enable_vae_tiling": _as("vae", tiling=True),
    "enable_attention_slicing": _as("attention_slicing"),
    "set_attention_slice": _as("attention_slicing"),
    "enable_xformers_memory_efficient_attention": _as("attention", kernel="xformers"),
    "set_attn_processor": _processor,
    "set_attention_backend": _backend,
    "fuse_qkv_projections": _as("qkv_fusion"),
    "enable_layerwise_casting": _casting,
    "enable_freeu": _with("freeu", "s1", "s2", "b1", "b2"),
    "load_lora_weights": _with("lora", "id"),
    "fuse_lora": _with("fused_lora"),
    "load_ip_adapter": _with("ip_adapter", "id"),
    "load_textual_inversion": _with("textual_inversion", "id"),
    "enable_forward_chunking": _as("forward_chunking"),
}  # fmt: skip
"""Methods of pipelines and networks that switch a technique on."""
ENDS = {
    "disable_vae_slicing": "vae", "disable_vae_tiling": "vae",
    "disable_attention_slicing": "attention_slicing",
    "disable_xformers_memory_efficient_attention": "attention",
    "set_default_attn_processor": "attention", "reset_attention_backend": "fused_attention",
    "unfuse_qkv_projections": "qkv_fusion", "disable_freeu": "freeu",
    "unload_lora_weights": "lora", "unfuse_lora": "fused_lora",
    "unload_ip_adapter": "ip_adapter",
}  # fmt: skip
"""Methods that switch one off."""
CACHES = {
    "FirstBlockCacheConfig": "first_block_cache",
    "PyramidAttentionBroadcastConfig": "pab",
    "FasterCacheConfig": "faster_cache",
    "MagCacheConfig": "magcache",
    "TaylorSeerCacheConfig": "taylorseer",
    "SeaCacheConfig": "seacache",
    "TextKVCacheConfig": "text_kv_cache",
}
APPLIES = {
    "apply_first_block_cache": "first_block_cache",
    "apply_pyramid_attention_broadcast": "pab",
    "apply_faster_cache": "faster_cache",
    "apply_mag_cache": "magcache",
    "apply_taylorseer_cache": "taylorseer",
    "apply_layerwise_casting": "layerwise_fp8",
    "apply_group_offloading": "placement",
}
GENES = {
    "cache_interval": "interval", "disable_cache_before_step": "warmup", "max_order": "order",
    "spatial_attention_block_skip_range": "every", "cross_attention_block_skip_range": "cross",
    "unconditional_batch_skip_range": "uncond", "max_skip_steps": "skips",
    "retention_ratio": "retention", "Fn_compute_blocks": "front",
    "residual_diff_threshold": "threshold", "max_warmup_steps": "warmup",
    "max_continuous_cached_steps": "row", "cache_branch_id": "branch",
}  # fmt: skip
"""A library's keyword to the gene that says the same."""


def cache_settings(config: str, items: Items, args: Arguments) -> dict[str, Any]:
    """The settings of one of diffusers' caches."""
    stated = plain(items)
    if config == "FirstBlockCacheConfig" and args:
        stated["threshold"] = args[0]
    return {GENES.get(name, name): value for name, value in stated.items()}


def caching(helper: Made) -> dict[str, Any]:
    """The settings of a DeepCacheSDHelper; those that set_params was not told are its defaults."""
    stated = helper.state.get("params")
    if stated is None:
        return {}
    both = {"cache_interval": 1, "cache_branch_id": 0, **stated}
    found = {GENES.get(name, name): value for name, value in both.items()}
    if found.get("skip_mode") == "uniform":
        found.pop("skip_mode")
    return found


def merging(args: Arguments, items: Items) -> dict[str, Any]:
    """The settings of tomesd.apply_patch with its defaults."""
    names = ("model", "ratio", "max_downsample", "sx", "sy", "use_rand", "merge_attn",
             "merge_crossattn", "merge_mlp")  # fmt: skip
    usual = {"sx": 2, "sy": 2, "use_rand": True, "merge_attn": True, "merge_crossattn": False,
             "merge_mlp": False}  # fmt: skip
    stated = {**dict(zip(names, args, strict=False)), **items}
    stated.pop("model", None)
    kept = {name: value for name, value in stated.items() if value != usual.get(name)}
    return {"ratio": 0.5, "max_downsample": 1, **kept}


def dbcache(items: Items) -> dict[str, Any]:
    config = items.get("cache_config")
    stated = plain(config.keywords.items) if isinstance(config, Made) else {}
    return {GENES[name]: value for name, value in stated.items() if name in GENES}


def quantizing(root: str, args: Arguments, items: Items) -> Named:
    """torchao's quantize_ or optimum-quanto's quantize."""
    if root == "optimum":
        weights = items.get("weights")
        return "quanto", {"weights": weights.leaf} if isinstance(weights, Ref) else {}
    config = args[1] if len(args) > 1 else items.get("config")
    return "torchao", {"kind": _torchao(config)} if _torchao(config) else {}


TORCHAO = {
    "Int8DynamicActivationInt8WeightConfig": "int8_dynamic",
    "int8_dynamic_activation_int8_weight": "int8_dynamic", "int8dq": "int8_dynamic",
    "Int8WeightOnlyConfig": "int8_weights", "int8_weight_only": "int8_weights",
    "int8wo": "int8_weights",
    "Float8DynamicActivationFloat8WeightConfig": "fp8_dynamic",
    "float8_dynamic_activation_float8_weight": "fp8_dynamic", "float8dq": "fp8_dynamic",
    "Int4WeightOnlyConfig": "int4_weights", "int4_weight_only": "int4_weights",
    "int4wo": "int4_weights",
}  # fmt: skip


def _torchao(config: Any) -> str:
    if isinstance(config, Made):
        return TORCHAO.get(config.ref.leaf, config.ref.leaf)
    return TORCHAO.get(config, config) if isinstance(config, str) else ""


def quantization(config: Any) -> Iterator[Named]:
    """The techniques of a quantization_config; ``parts`` is all where text encoders are in it."""
    if not isinstance(config, Made):
        return
    items = config.keywords.items
    leaf = config.ref.leaf
    if leaf == "PipelineQuantizationConfig":
        yield from _of_pipeline(config)
    elif leaf == "BitsAndBytesConfig":
        yield "bitsandbytes", {"kind": _bits(items), "parts": "denoiser"}
    elif leaf == "TorchAoConfig":
        kind = config.args[0] if config.args else items.get("quant_type")
        yield "torchao", {"kind": _torchao(kind)}
    elif leaf == "QuantoConfig":
        yield "quanto", plain({"weights": items.get("weights_dtype", "")})
    elif leaf == "GGUFQuantizationConfig":
        yield "gguf", {}


def _bits(items: Items) -> str:
    if items.get("load_in_8bit"):
        return "int8"
    return str(items.get("bnb_4bit_quant_type", "fp4"))


def _of_pipeline(config: Made) -> Iterator[Named]:
    """One backend for listed parts, or a config for each part."""
    mapping = config.argument(3, "quant_mapping")
    if isinstance(mapping, Mapped):
        encoders = any(str(part).startswith("text_encoder") for part in mapping.items)
        for part, one in mapping.items.items():
            if str(part) in ("unet", "transformer"):
                for name, settings in quantization(one):
                    yield name, {**settings, "parts": "all" if encoders else "denoiser"}
                return
        return
    backend = str(config.argument(0, "quant_backend") or "")
    options = config.argument(1, "quant_kwargs")
    listed = config.argument(2, "components_to_quantize")
    parts = [str(item) for item in listed.items] if isinstance(listed, Sequence) else [str(listed)]
    encoders = any(part.startswith("text_encoder") for part in parts)
    items = options.items if isinstance(options, Mapped) else {}
    if backend.startswith("bitsandbytes"):
        yield "bitsandbytes", {"kind": _bits(items), "parts": "all" if encoders else "denoiser"}
    elif backend:
        yield backend, plain(items)
