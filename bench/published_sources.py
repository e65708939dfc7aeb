"""What sources of published runs document outside of their rows, and how their words are read. See `published.py`."""

import re

HARDWARE = {
    "A100": "a100-80gb",
    "A100-80GB": "a100-80gb",
    "A100-80GB(NVIDIA Ampere)": "a100-80gb",
    "A100-40GB": "a100-40gb",
    "A800-80GB": "a800-80gb",
    "H100-80GB": "h100",
    "H100-80GB(700W)": "h100",
    "H100-96GB(HBM2e,500W)": "h100-hbm2e",
    "H100-94GB(HBM2e)": "h100-hbm2e",
    "H800-80GB": "h800",
    "H200-141GB": "h200",
    "B200": "b200",
    "B300": "b300",
    "GB200": "gb200",
    "GB300": "gb300",
    "MI300X": "mi300x",
    "MI300X-192GB": "mi300x",
    "V100-32GB": "v100-32gb",
    "V100-32GB(DGX-2)": "v100-32gb",
    "V100-16GB": "v100-16gb",
}

# Bytes per second and GPU between nodes, where the source says it: the notes of the rows, else as cited.
NETWORK = {
    "MosaicML": 25e9,  # 1,600 Gb/s a node
    "InternEvo": 6.25e9,  # 4 x 100 Gb/s RoCE a node
    "vTrain": 12.5e9,  # 800 Gb/s a node
    "BigScience": 6.25e9,  # Jean Zay: 4 Omni-Path links of 100 Gb/s a node (model card of BLOOM)
}

# By how the column `framework` begins; the first that fits.
FRAMEWORKS = (
    ("llm-foundry", "llm-foundry"),
    ("InternEvo", "internevo"),
    ("torchtitan", "torchtitan"),
    ("MaxText", "maxtext"),
    ("fms-fsdp", "torchtitan"),  # compiled FSDP as well
    ("IBM", "torchtitan"),
    ("NeMo AutoModel", "torchtitan"),  # FSDP2 as well
    ("lit-gpt", "llm-foundry"),  # eager FSDP as well
    ("nanotron", "nanotron"),
    ("Megatron-DeepSpeed", "megatron-deepspeed"),
    ("Megatron-LM (202", "megatron-deepspeed"),  # the same Megatron-LM of 2021 and 2022
    ("Megatron-LM fork", "zero-bubble"),
    ("", "megatron"),
)

# Attention that keeps its scores: sources older than FlashAttention, or that say so.
STORED_SCORES = ("vTrain", "BigScience", "Korthikanti", "SC21", "Jan-2021", "GPT-3 example")
# Megatron-LM's own recipes keep its defaults: GPT with dropout, biases and a learned table of positions.
MEGATRON_GPT = ("Megatron-LM CI golden", "Vocabulary Parallelism")
# Micro-batches in flight for the passes of a split vocabulary (arXiv 2411.05288, section 5).
VOCABULARY_WAITS = {"Vocab-1": 2, "Vocab-2": 1}
TIED = ("MosaicML", "vTrain", "BigScience", "Korthikanti", "SC21", "Jan-2021", "GPT-3 example", "weak scaling")
MIXTURES = re.compile(r"moe|mixtral|deepseek|grok|qwen3-\d+b-a|gpt-oss|kimi|nemotron_3|nemotron v3|moon", re.I)
PRECISIONS = {"bf16": "bf16", "fp16": "fp16", "fp32": "fp32"}

# Bytes per parameter that DeepSpeed's ZeRO-1 moves as it takes up the gradients of a micro-batch. Fitted to the BLOOM
# prequel, whose layouts differ by parameters times micro-batches.
DEEPSPEED_ZERO_BYTES = 40

# FLOPs that a printed MFU or TFLOP/s counts, where it is the only figure of time.
FULL_ATTENTION = ("nanotron", "Vocabulary Parallelism", "H100 weak scaling")
