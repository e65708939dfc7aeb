"""Continuations of the plan's prompts by a trained model, as samples.json."""

import json
from pathlib import Path

from trainwright.runtime.evaluate.completion import Sampler
from trainwright.runtime.generate.sampling import Sampling
from trainwright.spec.plan import SamplesPlan

SAMPLES_FILE = "samples.json"


def write_samples(sampler: Sampler, plan: SamplesPlan, out: Path) -> list[dict[str, str]]:
    """`out/samples.json` holds how it was sampled and every prompt with its continuation; returns the latter."""
    sampling = Sampling(max_tokens=plan.max_tokens, temperature=plan.temperature, top_p=plan.top_p)
    texts = sampler.complete_all(plan.prompts, sampling, plan.seed)
    samples = [{"prompt": prompt, "text": text} for prompt, text in zip(plan.prompts, texts, strict=True)]
    content = {
        "max_tokens": plan.max_tokens,
        "temperature": plan.temperature,
        "top_p": plan.top_p,
        "seed": plan.seed,
        "samples": samples,
    }
    (out / SAMPLES_FILE).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return samples
