"""Words of plain-language requests and what they mean; patterns are for lower-case text.

The vocabulary of DiffBench's requests (``engine/diffbench/phrases.py``) is in it.
"""

from __future__ import annotations

MODELS: tuple[tuple[str, str, str], ...] = (
    # Pattern, model, what a note says where the words leave something open. Longer names first.
    (r"sdxl[- ]turbo|(?:stabilityai/)?sdxl-turbo", "sdxl-turbo", ""),
    (r"flux[ .-]*(?:1)?[ .-]*schnell", "flux-schnell", ""),
    (r"flux[ .-]*(?:1)?[ .-]*dev", "flux", ""),
    (r"flux(?:[ .]?1)?", "flux", "FLUX is taken as FLUX.1-dev"),
    (r"(?:sdxl|stable[- ]diffusion[- ]xl|sd[- ]xl)(?:[- ](?:base|1\.0|v1\.0))*", "sdxl", ""),
    (r"(?:stable[- ]diffusion|sd)[- ]?v?1[.-]5", "sd15", ""),
    (r"(?:stable[- ]diffusion|sd)[- ]?v?2[.-]1", "sd21", ""),
    (r"(?:stable[- ]diffusion|sd)[- ]?v?3[.-]5(?:[- ]medium)?", "sd3", ""),
    (r"(?:stable[- ]diffusion|sd)[- ]?v?3(?![.\d])", "sd3", "it is taken as version 3.5 medium"),
    (r"(?:stable[- ]diffusion|sd)[- ]?v?2(?:\.x|\.0)?(?![.\d])", "sd21", "it is taken as 2.1"),
    (r"(?:stable[- ]diffusion|sd)[- ]?v?1(?:\.x|\.4)?(?![.\d])", "sd15", "it is taken as 1.5"),
    (r"pixart[- ]?(?:sigma|\u03c3|\u03a3)", "pixart-sigma", ""),
    (r"pixart[- ]?(?:alpha|\u03b1)", "pixart-alpha", ""),
    (r"pixart(?![\w-])", "pixart-sigma", "PixArt is taken as PixArt-Sigma"),
    (r"dit[- ]xl(?:[/-]2)?(?:-256)?|dit(?![\w-])", "dit", ""),
    (r"stable[- ]diffusion(?![\w-])", "sd15", "Stable Diffusion is taken as version 1.5"),
    (r"(?:the )?(?:embedded model|miniature)(?![\w-])", "sd-mini", ""),
    (r"sd(?![\w-])", "sd15", "SD is taken as Stable Diffusion 1.5"),
)
IMAGE = (
    r"img2img|image[- ]to[- ]image|image2image|"
    r"start(?:s|ing)? (?:from|with) an? (?:input )?(?:image|picture)"
)
CONTROL = r"control[- ]?net"
CANNY = r"canny(?:[- ]edges?)?|edge maps?"
SCHEDULERS: tuple[tuple[str, str], ...] = (
    (r"ddimscheduler|ddim", "DDIMScheduler"),
    (r"dpmsolvermultistepscheduler|(?:multistep )?dpm[- ]?solver(?:\+\+)?(?: ?2m)?(?: multistep)?|"
     r"dpm\+\+(?: ?2m)?(?: multistep)?|dpmpp(?:[_ ]2m)?", "DPMSolverMultistepScheduler"),
    (r"unipcmultistepscheduler|uni[- ]?pc", "UniPCMultistepScheduler"),
    (r"eulerancestraldiscretescheduler|euler[- ](?:a|ancestral)(?!\w)",
     "EulerAncestralDiscreteScheduler"),
    (r"eulerdiscretescheduler|euler", "EulerDiscreteScheduler"),
    (r"pndmscheduler|pndm|plms", "PNDMScheduler"),
    (r"heundiscretescheduler|heun", "HeunDiscreteScheduler"),
)  # fmt: skip
FLOW = {
    "EulerDiscreteScheduler": "FlowMatchEulerDiscreteScheduler",
    "HeunDiscreteScheduler": "FlowMatchHeunDiscreteScheduler",
}
"""What a scheduler's name means for a model that predicts a flow."""
METHODS: tuple[tuple[str, str], ...] = (
    (r"deep[- ]?cache", "deepcache"),
    (r"(?:token[- ]merging|tomesd)(?: \(tome(?:sd)?\))?|tome(?: \(token merging\))?|"
     r"merg(?:e|ing) (?:the )?tokens", "tome"),
    (r"t[- ]?gate", "tgate"),
    (r"first[- ]block[- ]cach(?:e|ing)|fb[- ]?cache|firstblockcache", "first_block_cache"),
    (r"pyramid attention broadcast|pab", "pab"),
    (r"faster[- ]?cache", "faster_cache"),
    (r"mag[- ]?cache", "magcache"),
    (r"taylor[- ]?seer", "taylorseer"),
    (r"db[- ]?cache|cache[- ]dit", "dbcache"),
    (r"torch[. ]?compile|compilation|compiled?(?! the)", "compile"),
    (r"channels[- _]last", "channels_last"),
    (r"(?:fused? qkv|qkv[- ]?fusion)(?: projections?)?", "qkv_fusion"),
    (r"tiny (?:vae|autoencoder)|taesd(?:xl)?|taef1", "tiny_vae"),
    (r"(?:vae|decoder) (?:tiling|slicing)|tiled (?:vae|decoding)", "vae"),
    (r"layerwise (?:fp8|casting)", "layerwise_fp8"),
    (r"(?:cpu|model|sequential) off-?load(?:ing)?|off-?loading", "placement"),
    (r"guidance (?:stop|cut-?off|interval)|cfg cut-?off", "guidance"),
    (r"split guidance", "split_guidance"),
    (r"flash[- ]?attention(?:[- ]?2)?", "fused_attention"),
    (r"bitsandbytes|bnb", "bitsandbytes"),
    (r"torchao", "torchao"),
    (r"dynamic int8", "dynamic_int8"),
)  # fmt: skip
NAMED_SETTINGS = {
    "fused_attention": {"kernel": "flash"},
    "placement": {"mode": "model"},
}
"""What a method's usual name says about its genes."""
STRANGE = (
    r"tensor-?rt|onnx(?:runtime)?|openvino|one-?diff|stable[- ]fast|aitemplate|x-?formers|"
    r"lcm(?:[- ]lora)?|hyper-?sd|sage[- ]?attention|deepspeed|delta-?dit"
)
"""Names of methods that no technique here does."""
SETTINGS: tuple[tuple[str, str, str, float], ...] = (
    # Pattern with one number, method, gene, factor on the number. The narrower come first.
    (r"gate[ _]step(?: (?:of|at))? ?[=:]? ?(\d+)", "tgate", "gate_step", 1),
    (r"gate(?: of \u00a7)? (?:at|after|from) step (\d+)", "tgate", "gate_step", 1),
    (r"gate(?: of \u00a7)? (?:at|after) (\d+(?:\.\d+)?) ?%(?: of the (?:denoising )?steps)?",
     "tgate", "gate",
     0.01),
    (r"gate(?: fraction)?(?: of| at)? ?[=:]? ?(0?\.\d+)", "tgate", "gate", 1),
    (r"(?:cache )?interval(?: of)? ?[=:]? ?(\d+)", "deepcache", "interval", 1),
    (r"every (\d+)(?:rd|th|nd|st)? steps?", "deepcache", "interval", 1),
    (r"branch(?: id)?(?: of)? ?[=:]? ?(\d+)", "deepcache", "branch", 1),
    (r"max[ _]downsampl(?:e|ing)(?: of)? ?[=:]? ?(\d+)", "tome", "max_downsample", 1),
    (r"(\d+(?:\.\d+)?) ?% of (?:the |all )?tokens(?: merged)?", "tome", "ratio", 0.01),
    (r"(?:merg(?:e|ing) )?ratio(?: of)? ?[=:]? ?(\d+(?:\.\d+)?) ?%", "tome", "ratio", 0.01),
    (r"(?:merg(?:e|ing) )?ratio(?: of)? ?[=:]? ?(0?\.\d+)", "tome", "ratio", 1),
)  # fmt: skip
NUMBER_FORMATS: tuple[tuple[str, str], ...] = (
    (r"(?:half[- ]precision \(fp16\)|fp-?16|float16|half[- ]precision)(?: (?:weights|precision))?",
     "float16"),
    (r"(?:bf-?16|bfloat16)(?: (?:weights|precision))?", "bfloat16"),
    (r"(?:fp-?32|float32|(?:full|single)[- ]precision)(?: weights)?", "float32"),
)  # fmt: skip
DEVICES: tuple[tuple[str, str, str], ...] = (
    (r"h100(?:[- ]?80 ?gi?b)?", "h100", ""),
    (r"h200(?:[- ]?141 ?gi?b)?", "h200", ""),
    (r"a100(?:[- ]?[48]0 ?gi?b)?", "a100", ""),
    (r"(?:geforce )?(?:rtx[- ]?)?4090", "rtx4090", ""),
    (r"(?:nvidia )?(?:geforce )?(?:rtx|gtx)[- ]?(?:a?\d{4})(?: ?ti)?|v100|l40s?|l20|(?:nvidia )?t4|"
     r"a10g?(?!\d)|a40|b200", "cuda", "there is no profile of that GPU: hw=cuda takes any"),
    (r"cpu(?:s)?", "cpu", ""),
    (r"(?:nvidia |cuda )?gpu(?:s)?|cuda", "cuda", ""),
)  # fmt: skip
NOT = (
    r"(?:instead of|rather than|not|no|without|in place of|but not|except|avoid)(?: an?| the| any)?"
)
"""Words before a name that take it out."""
FAST = r"as fast as (?:possible|you can)|fastest|speed (?:it |this )?up|accelerat\w*|fast(?:er)?|" \
       r"quick(?:er|ly)?|optimi[sz]e\w*|speed[- ]?up"  # fmt: skip
"""Words that ask for speed without saying how much."""
TIMES = {"twice": 2.0, "thrice": 3.0, "double": 2.0, "triple": 3.0, "halve": 2.0, "half": 2.0}
