"""The stages that look at a phase's checkpoint, from the folders that the other stages left."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch

from trainwright.runtime.data.indexed import token_dtype, tokens_path, write_documents
from trainwright.runtime.data.vocabulary import MODEL_FILE, SPECIAL_TOKENS_FILE, Vocabulary
from trainwright.runtime.evaluate import evaluate
from trainwright.runtime.evaluate.process import ONE_PROCESS, one_process
from trainwright.runtime.evaluate.sampler import open_model
from trainwright.runtime.export import export
from trainwright.runtime.export.names import internlm2, restore
from trainwright.runtime.export.shards import read_shards
from trainwright.spec.artefact import store_folder
from trainwright.spec.plan import (
    AnyStage,
    CheckpointPlan,
    EvaluateStage,
    ExportStage,
    Hardware,
    LearningRatePlan,
    ModelPlan,
    OptimizerPlan,
    PerplexityPlan,
    PhaseStage,
    Placement,
    Plan,
    SamplesPlan,
    TokenizerStage,
    TokenizeStage,
)

TEXT = "the cat and the hat, and\n    the bat"
MODEL = ModelPlan(
    layers=2,
    hidden_size=32,
    heads=4,
    kv_heads=2,
    head_size=8,
    ffn_size=48,
    vocab_size=300,
    norm_eps=1e-5,
    init_std=0.1,
    attention_bias=False,
    tie_embeddings=False,
    parameters=0,
)


def phase_stage() -> PhaseStage:
    return PhaseStage(
        name="short",
        needs=("tokenize",),
        model=MODEL,
        start_from=None,
        index=0,
        seed=1,
        precision="fp32",
        tokens=64,
        steps=1,
        tokens_per_step=64,
        sequence_length=32,
        sequences_per_step=2,
        mixture={"rhymes": 1.0},
        rope_base=10_000.0,
        learning_rate=LearningRatePlan(peak=1e-3, final=1e-4, warmup_steps=0, decay="cosine", decay_steps=1, offset=0),
        optimizer=OptimizerPlan(kind="adamw", betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, clip=1.0),
        attention="auto",
        layout=ONE_PROCESS,
        placement=Placement(nodes=1, ranks_per_node=1, chunks=()),
        checkpoint=CheckpointPlan(every_steps=None, every_seconds=None, keep=1),
        log_every=1,
    )


def stages() -> tuple[AnyStage, ...]:
    return (
        TokenizerStage(
            name="tokenizer",
            needs=(),
            path=None,
            digest=None,
            algorithm="bpe",
            vocab_size=300,
            mixture={"rhymes": 1.0},
            byte_fallback=True,
            split_digits=True,
            character_coverage=1.0,
            spare_tokens=0,
            sample_bytes=1,
            seed=1,
            workers=1,
        ),
        TokenizeStage(name="tokenize", needs=("tokenizer",), sources=("rhymes",), vocab_size=300, workers=1),
        phase_stage(),
        EvaluateStage(
            name="evaluate-short",
            needs=("short", "tokenize", "tokenizer"),
            of="short",
            perplexity=PerplexityPlan(sources=("rhymes",), sequence_length=32, batch=2),
            samples=SamplesPlan(prompts=("the",), max_tokens=5, temperature=0.8, top_p=0.9, seed=1),
        ),
        ExportStage(
            name="export-short",
            needs=("short", "tokenizer"),
            of="short",
            formats=("huggingface", "internlm2"),
            precision="fp32",
            max_positions=32,
            rope_base=10_000.0,
        ),
    )


@dataclasses.dataclass(frozen=True)
class Run:
    folder: Path
    plan: Plan
    tensors: dict[str, torch.Tensor]

    def inputs(self, name: str) -> dict[str, Path]:
        return {need: store_folder(self.folder, self.plan.stage(need)) for need in self.plan.stage(name).needs}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run's folder as it is when a phase is done."""
    plan = Plan(
        version=1,
        compiler="test",
        name="test",
        root=".",
        flops_convention="",
        hardware=Hardware(
            name="cpu",
            device="cpu",
            nodes=1,
            gpus_per_node=1,
            memory_bytes=None,
            peak_flops=None,
            price_per_gpu_hour=None,
        ),
        stages=stages(),
        estimates=(),
        assumptions=(),
        notices=(),
    )
    folder = tmp_path_factory.mktemp("run")
    for stage in plan.stages:
        store_folder(folder, stage).mkdir(parents=True)
    write_tokenizer_stage(store_folder(folder, plan.stage("tokenizer")))
    vocabulary = Vocabulary(store_folder(folder, plan.stage("tokenizer")))
    tokens = store_folder(folder, plan.stage("tokenize"))
    document = np.array([vocabulary.begin, *vocabulary.encode(TEXT), vocabulary.end])
    write_documents(tokens_path(tokens, "rhymes", "held_out"), [document] * 3, token_dtype(300))
    (tokens / "counts.json").write_text(json.dumps({"rhymes": {"held_out": {"bytes": 3 * len(TEXT)}}}))
    return Run(folder, plan, save_checkpoint(store_folder(folder, plan.stage("short"))))


def write_tokenizer_stage(folder: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 50),
        model_writer=model,
        model_type="bpe",
        vocab_size=290,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (folder / MODEL_FILE).write_bytes(model.getvalue())
    (folder / SPECIAL_TOKENS_FILE).write_text("{}")


def save_checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    """The weights that were saved."""
    phase = phase_stage()
    with one_process():
        from trainwright.runtime.train import checkpoint, optimizer
        from trainwright.runtime.train.model import build_model

        options: dict[str, Any] = {"sequence_length": 32, "rope_base": 10_000.0, "precision": "fp32"}
        chunks = build_model(MODEL, ONE_PROCESS, attention="auto", seed=3, **options)
        wrapped = optimizer.wrap(chunks, ONE_PROCESS)
        adam = optimizer.build_optimizer(wrapped, phase.optimizer, ONE_PROCESS, "fp32")
        state = checkpoint.TrainState(
            stage="short", step=1, optimizer_steps=1, consumed_tokens=64, consumed_tokens_by_source={"rhymes": 64}
        )
        checkpoint.save(folder / "checkpoints", chunks, adam, state, keep=1)
        return {name: parameter.detach().clone() for name, parameter in chunks[0].named_parameters()}


def test_evaluation_writes_scores_and_samples(run: Run) -> None:
    stage: Any = run.plan.stage("evaluate-short")
    out = store_folder(run.folder, stage)
    told: list[str] = []
    summary = evaluate.run(stage, plan=run.plan, inputs=run.inputs(stage.name), out=out, progress=told.append)
    scores = json.loads((out / "scores.json").read_bytes())
    assert set(scores) == {"rhymes"}
    assert summary["checkpoint"] == "iter_0000001"
    assert summary["bits_per_byte"] == {"rhymes": round(scores["rhymes"]["bits_per_byte"], 4)}
    assert json.loads((out / "samples.json").read_bytes())["samples"][0]["prompt"] == "the"
    assert "gzip -9" in told[0]


def test_an_export_is_the_checkpoint_in_every_format(run: Run) -> None:
    stage: Any = run.plan.stage("export-short")
    out = store_folder(run.folder, stage)
    summary = export.run(stage, plan=run.plan, inputs=run.inputs(stage.name), out=out, progress=lambda _: None)
    assert sorted(path.name for path in out.iterdir()) == ["huggingface", "internlm2"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in (out / "huggingface").iterdir()}
    back = dict(restore(read_shards(out / "internlm2"), internlm2(MODEL)))
    assert all(torch.equal(back[name], tensor) for name, tensor in run.tensors.items())
    assert summary["internlm2"] == {"folder": "internlm2", "weights_bytes": sum(t.numel() * 4 for t in back.values())}


def test_a_model_is_opened_from_a_runs_folder(run: Run) -> None:
    with open_model(run.plan, run.folder, "short") as sampler:
        first = sampler.complete("the", max_tokens=5, temperature=0.0, top_p=1.0, seed=0)
        assert first == sampler.complete("the", max_tokens=5, temperature=0.0, top_p=1.0, seed=9)


def test_only_a_phase_has_a_model(run: Run) -> None:
    with (
        pytest.raises(ValueError, match="`tokenize` is not a training stage"),
        open_model(run.plan, run.folder, "tokenize"),
    ):
        pass


def test_a_phase_without_a_checkpoint_is_said_to_have_none(run: Run, tmp_path: Path) -> None:
    from trainwright.runtime.evaluate.load import NoCheckpoint

    stage: Any = run.plan.stage("export-short")
    inputs = run.inputs(stage.name) | {"short": tmp_path}
    with pytest.raises(NoCheckpoint, match="phase `short` has no complete checkpoint"):
        export.run(stage, plan=run.plan, inputs=inputs, out=tmp_path, progress=lambda _: None)
