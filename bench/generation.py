"""Generation throughput of a spec's model: our `generate` beside transformers', same weights and prompts, one process.

    python bench/generation.py [SPEC] [--rows 64] [--prompt 32] [--new 128] [--rounds 7] [--threads 1] [--out FOLDER]

Both sides continue the same prompts by the same number of tokens, without stop tokens, in fp32 with SDPA and their own
default key-value cache: greedily, which shows the model's share and that both write the same, and by top-p sampling at
0.9, as PPO's rollouts do. They take turns, so that whatever else the machine does, it does to both.
"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from llama import transformers_llama
from throughput import first_phase, machine, machine_name, summary
from torch import Tensor

from trainwright.runtime.evaluate.process import one_process
from trainwright.spec.plan import PhaseStage

TOP_P = 0.9
OURS, THEIRS = "ours", "transformers"

Answers = Callable[[], list[list[int]]]  # the new tokens of every prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, nargs="?", default=Path("examples/tiny.toml"))
    parser.add_argument("--rows", type=int, default=64, help="prompts, continued together")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens that are generated after each")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    phase = first_phase(arguments.spec)
    generator = torch.Generator().manual_seed(0)
    prompts_BS = torch.randint(3, phase.model.vocab_size, (arguments.rows, arguments.prompt), generator=generator)
    with one_process():
        sides = build(phase, prompts_BS, arguments.new)
        greedy = {side: ways["greedy"]() for side, ways in sides.items()}
        rates = {
            way: race({side: ways[way] for side, ways in sides.items()}, arguments.rounds, arguments.rows)
            for way in ("greedy", f"top-p {TOP_P}")
        }
    result = {
        "machine": machine(arguments.threads),
        "versions": {name: version(name) for name in ("torch", "megatron-core", "transformers", "numpy")},
        "model": {"spec": str(arguments.spec), "parameters": phase.model.parameters, "precision": phase.precision},
        "rows": arguments.rows,
        "prompt_tokens": arguments.prompt,
        "new_tokens": arguments.new,
        "equal_greedy_tokens": agreement(greedy[OURS], greedy[THEIRS]),
        "ways": rates,
    }
    folder = arguments.out / machine_name()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y-%m-%d}-generation-{arguments.threads}-threads.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(result)
    print(f"written to {path}")


def build(phase: PhaseStage, prompts_BS: Tensor, new: int) -> dict[str, dict[str, Answers]]:
    """Every side's ways to continue the prompts, on the same weights."""
    from trainwright.runtime.export.names import llama, translate
    from trainwright.runtime.generate.generate import generate
    from trainwright.runtime.generate.sampling import Sampling
    from trainwright.runtime.train.model import model_of

    chunks = model_of(phase, seed=phase.seed)
    prompts = prompts_BS.tolist()

    def ours(sampling: Sampling) -> list[list[int]]:
        rows = generate(
            chunks,
            prompts,
            sampling,
            seeds=range(len(prompts)),
            stop_tokens=frozenset(),
            vocabulary=phase.model.vocab_size,
        )
        return [row.tokens for row in rows]

    theirs = their_generate(phase, dict(translate(dict(chunks[0].named_parameters()), llama(phase.model))), prompts_BS)
    drawn = f"top-p {TOP_P}"
    return {
        OURS: {
            "greedy": lambda: ours(Sampling(new, 0.0, 1.0)),
            drawn: lambda: ours(Sampling(new, 1.0, TOP_P)),
        },
        THEIRS: {
            "greedy": lambda: theirs(max_new_tokens=new, do_sample=False),
            drawn: lambda: theirs(max_new_tokens=new, do_sample=True, top_p=TOP_P, top_k=0, temperature=1.0),
        },
    }


def their_generate(phase: PhaseStage, weights: dict[str, Tensor], prompts_BS: Tensor) -> Callable[..., list[list[int]]]:
    """transformers' `generate` on `LlamaForCausalLM`."""
    model = transformers_llama(phase, weights, pad_token_id=0, bos_token_id=None, eos_token_id=None).eval()
    mask_BS = torch.ones_like(prompts_BS)

    def generate(**options: Any) -> list[list[int]]:
        with torch.no_grad():
            whole = model.generate(input_ids=prompts_BS, attention_mask=mask_BS, **options)
        rows: list[list[int]] = whole[:, prompts_BS.shape[1] :].tolist()
        return rows

    return generate


def race(sides: dict[str, Answers], rounds: int, rows: int) -> dict[str, Any]:
    """Tokens per second, and per second of processor time, of each round of each side; the order turns."""
    names = list(sides)
    rates: dict[str, list[float]] = {name: [] for name in names}
    cpu_rates: dict[str, list[float]] = {name: [] for name in names}
    for side in sides.values():
        side()
    for number in range(rounds):
        for name in names[number % 2 :] + names[: number % 2]:
            started, cpu_started = time.perf_counter(), time.process_time()
            answers = sides[name]()
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
            tokens = sum(len(answer) for answer in answers)
            rates[name].append(tokens / seconds)
            cpu_rates[name].append(tokens / cpu_seconds)
    return {
        "tokens_per_s": {name: summary(values) for name, values in rates.items()},
        "tokens_per_cpu_s": {name: summary(values) for name, values in cpu_rates.items()},
        "ratio_to_transformers": ratio(rates),
        "cpu_ratio_to_transformers": ratio(cpu_rates),
    }


def ratio(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Of each round, ours over transformers'."""
    of_rounds: dict[str, Any] = summary([a / b for a, b in zip(rates[OURS], rates[THEIRS], strict=True)], 3)
    return of_rounds


def agreement(ours: list[list[int]], theirs: list[list[int]]) -> float:
    """The share of tokens that are equal."""
    pairs = [a == b for row, other in zip(ours, theirs, strict=True) for a, b in zip(row, other, strict=True)]
    return sum(pairs) / len(pairs)


def show(result: dict[str, Any]) -> None:
    print(f"{result['machine']['processor']}, {result['machine']['threads']} threads, {result['versions']}")
    print(f"{result['rows']} rows, {result['prompt_tokens']} tokens read and {result['new_tokens']} generated each")
    print(f"greedy tokens equal to transformers': {result['equal_greedy_tokens']:.2%}")
    for way, rates in result["ways"].items():
        for unit, of in (("tokens_per_s", "ratio_to_transformers"), ("tokens_per_cpu_s", "cpu_ratio_to_transformers")):
            each = ", ".join(f"{name} {row['median']:,.0f} {row['quartiles']}" for name, row in rates[unit].items())
            print(f"{way:10} {unit:16} {each}; ratio {rates[of]['median']:.2f} {rates[of]['quartiles']}")


if __name__ == "__main__":
    main()
