"""A phase's model as transformers has it: what benchmarks put beside ours."""

from typing import Any

from torch import Tensor

from trainwright.spec.plan import PhaseStage


def transformers_llama(phase: PhaseStage, weights: dict[str, Tensor], **options: Any) -> Any:
    """`LlamaForCausalLM` with SDPA and these weights, under its names; `options` go into its configuration."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=phase.model.hidden_size,
            num_hidden_layers=phase.model.layers,
            num_attention_heads=phase.model.heads,
            num_key_value_heads=phase.model.kv_heads,
            head_dim=phase.model.head_size,
            intermediate_size=phase.model.ffn_size,
            vocab_size=phase.model.vocab_size,
            rms_norm_eps=phase.model.norm_eps,
            rope_theta=phase.rope_base,
            max_position_embeddings=phase.sequence_length,
            tie_word_embeddings=phase.model.tie_embeddings,
            attention_bias=phase.model.attention_bias,
            attn_implementation="sdpa",
            **options,
        )
    )
    model.load_state_dict(weights)
    return model
