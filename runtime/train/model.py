"""InternLM2's decoder as Megatron-core's GPTModel: a layer spec of our own layers, with a head for text or for scores.

S: positions of a sequence that this rank holds, B: sequences of a micro-batch, H: width, N: tokens, V: vocabulary
entries of this rank.
"""

from functools import partial
from typing import Any, Literal

import torch
from megatron.core import parallel_state
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.layers import VocabParallelEmbedding, set_tensor_model_parallel_attributes
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from megatron.core.transformer import ModuleSpec, TransformerConfig
from megatron.core.transformer.attention import SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_layer import TransformerLayerSubmodules
from torch import Tensor, distributed, nn

from trainwright.kernels import fused
from trainwright.kernels.attention import Wanted
from trainwright.kernels.cross_entropy import cross_entropy
from trainwright.runtime import host
from trainwright.runtime.train.checkpoint import HEAD_WEIGHT
from trainwright.runtime.train.initial import initialise
from trainwright.runtime.train.layers import (
    Attention,
    BiasedRowLinear,
    CoreAttention,
    Layer,
    Mlp,
    RmsNorm,
    RowLinear,
    SwiGlu,
)
from trainwright.spec.plan import Layout, ModelPlan, Placement, TrainingStage

Head = Literal["language", "score"]


def build_model(
    model: ModelPlan,
    layout: Layout,
    *,
    sequence_length: int,
    rope_base: float,
    precision: Literal["bf16", "fp32"],
    attention: Wanted,
    seed: int | None,
    loss: Literal["logits", "fused"] = "logits",
    placement: Placement | None = None,
    head: Head = "language",
) -> list[GPTModel]:
    """This rank's part of the model, one chunk per virtual pipeline stage, initialised from `seed`.

    `seed` None leaves the weights undefined, to be loaded. `placement` None spreads the layers evenly. With the head
    "score" the output is scores_BS, one fp32 number for each position that this rank holds, and no embedding is tied.
    `parallel.initialize` must have run. Parameters are of `precision`; the optimizer keeps the fp32 masters.
    """
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    config = _config(model, layout, dtype, placement)
    chunks = []
    stages = list(range(layout.virtual_pipeline)) if layout.virtual_pipeline > 1 else [None]
    for stage in stages:
        chunk = Decoder(
            config,
            _block(config, model, layout, stage, rope_base, attention),
            model.vocab_size,
            sequence_length,
            pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=stage),
            post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=stage),
            share_embeddings_and_output_weights=model.tie_embeddings and head == "language",
            position_embedding_type="none",
            vp_stage=stage,
            loss=loss,
            head=head,
        )
        _mark(chunk)
        chunks.append(chunk.to(host.device()))
    if seed is not None:
        initialise(chunks, seed=seed, std=model.init_std)
    return chunks


def model_of(stage: TrainingStage, *, seed: int | None, head: Head = "language") -> list[GPTModel]:
    """`build_model` as the stage wants it."""
    return build_model(
        stage.model,
        stage.layout,
        sequence_length=stage.sequence_length,
        rope_base=stage.rope_base,
        precision=stage.precision,
        attention=stage.attention,
        seed=seed,
        loss=stage.loss,
        placement=stage.placement,
        head=head,
    )


class Decoder(GPTModel):  # type: ignore[misc]
    """GPTModel with our losses. `fused` makes no logits where it is given labels. Or with scores in place of logits."""

    def __init__(self, *parts: Any, loss: Literal["logits", "fused"], head: Head, **options: Any) -> None:
        super().__init__(*parts, **options)
        self.fuses_loss = loss == "fused"
        self.gives_scores = head == "score"
        if self.gives_scores and self.post_process:
            self.output_layer = ScoreHead(self.config, self.pg_collection.tp)

    def sharded_state_dict(self, *parts: Any, **options: Any) -> dict[str, Any]:
        """As Megatron's, but a head of another shape is never taken for one's own."""
        state: dict[str, Any] = super().sharded_state_dict(*parts, **options)
        if self.gives_scores and self.post_process:
            state[HEAD_WEIGHT].allow_shape_mismatch = False
        return state

    def _postprocess(self, hidden_states: Tensor, *, labels: Tensor | None = None, **options: Any) -> Tensor:
        """As Megatron's: loss_BS of labels, else logits; or scores_BS; hidden states where the model goes on."""
        if self.gives_scores and self.post_process:
            scores_BS: Tensor = self.output_layer(hidden_states)
            return scores_BS
        if labels is None or not (self.post_process and self.fuses_loss):
            result: Tensor = super()._postprocess(hidden_states, labels=labels, **options)
            return result
        tied = self.share_embeddings_and_output_weights
        weight_VH = self.shared_embedding_or_output_weight() if tied else self.output_layer.weight
        # As the output layer would: the whole sequence, and a gradient that is summed over the ranks.
        group = self.pg_collection.tp
        if self.config.sequence_parallel:
            hidden_SBH = gather_from_sequence_parallel_region(hidden_states, group=group)
        else:
            hidden_SBH = copy_to_tensor_model_parallel_region(hidden_states, group=group)
        labels_N = labels.transpose(0, 1).flatten()
        loss_N = fused.linear_cross_entropy(hidden_SBH.flatten(0, 1), weight_VH, labels_N, group=group)
        return loss_N.view(hidden_SBH.shape[:2]).transpose(0, 1)

    def compute_language_model_loss(self, labels: Tensor, logits: Tensor) -> Tensor:
        """loss_BS in fp32 from labels_BS and logits_SBV; the logits are overwritten."""
        loss_N = cross_entropy(logits.flatten(0, 1), labels.transpose(0, 1).flatten(), self.pg_collection.tp)
        return loss_N.view(logits.shape[:2]).transpose(0, 1)


class ScoreHead(nn.Module):
    """A linear map to one number for each position, without bias and in fp32; the same on all tensor ranks."""

    def __init__(self, config: TransformerConfig, group: distributed.ProcessGroup) -> None:
        super().__init__()
        self.group = group if config.sequence_parallel else None
        self.weight = nn.Parameter(torch.empty(1, config.hidden_size, dtype=config.params_dtype))
        # A tensor rank sees its positions alone then: Megatron adds the gradients up.
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, hidden_SBH: Tensor) -> Tensor:
        scores_SB = nn.functional.linear(hidden_SBH.float(), self.weight.float()).squeeze(-1)
        if self.group is not None:
            # Every rank makes the same of all scores, so each takes its part of the gradient, not a sum.
            scores_SB = gather_from_sequence_parallel_region(
                scores_SB, tensor_parallel_output_grad=False, group=self.group
            )
        return scores_SB.transpose(0, 1)


def _block(
    config: TransformerConfig,
    model: ModelPlan,
    layout: Layout,
    stage: int | None,
    rope_base: float,
    attention: Wanted,
) -> TransformerBlockSubmodules:
    """The layers of this rank's chunk `stage`."""
    layer = ModuleSpec(
        module=Layer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=RmsNorm,
            self_attention=ModuleSpec(
                module=Attention,
                params={"attn_mask_type": AttnMaskType.causal},
                submodules=SelfAttentionSubmodules(
                    linear_qkv=ColumnParallelLinear,
                    core_attention=partial(
                        CoreAttention,
                        rope_base=rope_base,
                        attention=attention,
                        layout=layout,
                    ),
                    linear_proj=BiasedRowLinear if model.attention_bias else RowLinear,
                ),
            ),
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=RmsNorm,
            mlp=ModuleSpec(
                module=Mlp,
                params={
                    "ffn_hidden_size": model.ffn_size,
                    "tp_group": parallel_state.get_tensor_model_parallel_group(),
                    "recompute_activation": _drops_activation(layout),
                },
                submodules=MLPSubmodules(linear_fc1=ColumnParallelLinear, activation_func=SwiGlu, linear_fc2=RowLinear),
            ),
            mlp_bda=get_bias_dropout_add,
        ),
    )
    layers = get_num_layers_to_build(config, stage, parallel_state.get_pipeline_model_parallel_rank())
    return TransformerBlockSubmodules(layer_specs=[layer] * layers, layer_norm=RmsNorm)


def _config(model: ModelPlan, layout: Layout, dtype: torch.dtype, placement: Placement | None) -> TransformerConfig:
    on_cpu = host.device().type == "cpu"
    with host.expected_warnings():
        return TransformerConfig(
            num_layers=model.layers,
            hidden_size=model.hidden_size,
            num_attention_heads=model.heads,
            num_query_groups=model.kv_heads,
            kv_channels=model.head_size,
            ffn_hidden_size=model.ffn_size,
            normalization="RMSNorm",
            layernorm_epsilon=model.norm_eps,
            gated_linear_unit=True,
            activation_func=nn.functional.silu,
            use_te_activation_func=True,  # despite its name: "take the activation module of the layer spec"
            add_bias_linear=False,
            add_qkv_bias=model.attention_bias,
            attention_dropout=0.0,
            hidden_dropout=0.0,
            tensor_model_parallel_size=layout.tensor,
            pipeline_model_parallel_size=layout.pipeline,
            virtual_pipeline_model_parallel_size=layout.virtual_pipeline if layout.virtual_pipeline > 1 else None,
            pipeline_model_parallel_layout=_stages(layout, placement),
            context_parallel_size=layout.context,
            sequence_parallel=layout.sequence_parallel,
            params_dtype=dtype,
            pipeline_dtype=dtype,
            bf16=dtype == torch.bfloat16,
            perform_initialization=False,  # `initialise` does it
            use_cpu_initialization=on_cpu,
            batch_p2p_comm=not on_cpu,  # gloo has no batched point-to-point
            deallocate_pipeline_outputs=layout.pipeline > 1,
            gradient_accumulation_fusion=False,
            bias_dropout_fusion=False,
            masked_softmax_fusion=False,
            cuda_graph_scope=[],  # unused; the default warns of itself
            calculate_per_token_loss=True,
            **_recompute(layout),
        )


# Of `recompute_modules`, in Megatron's words; the activation is dropped by our own Mlp.
_MEGATRON_MODULES = {"core_attention": "core_attn", "norm": "layernorm", "mlp": "mlp"}


def _modules(layout: Layout) -> tuple[str, ...]:
    """What `selective` makes again."""
    return layout.recompute_modules or ("core_attention",)


def _drops_activation(layout: Layout) -> bool:
    """Whether the MLP drops its activation's product alone; made again as a whole, it makes that again too."""
    modules = _modules(layout)
    return layout.recompute == "selective" and "activation" in modules and "mlp" not in modules


def _recompute(layout: Layout) -> dict[str, Any]:
    """What is made again in the backward pass rather than kept."""
    if layout.recompute == "selective":
        modules = [_MEGATRON_MODULES[name] for name in _modules(layout) if name in _MEGATRON_MODULES]
        return {"recompute_granularity": "selective", "recompute_modules": modules}
    if layout.recompute == "full":
        # Of the `uniform` method only the whole is used: groups of one layer, all of them.
        some = layout.recompute_layers is not None
        return {
            "recompute_granularity": "full",
            "recompute_method": "block" if some else "uniform",
            "recompute_num_layers": layout.recompute_layers or 1,
        }
    return {}


def _stages(layout: Layout, placement: Placement | None) -> list[list[str]] | None:
    """What each stage holds, first all stages of chunk 0, then of chunk 1, ...; None: evenly."""
    if placement is None or layout.pipeline == 1:
        return None
    chunks = sorted(placement.chunks, key=lambda chunk: (chunk.chunk, chunk.pipeline_rank))
    return [
        ["embedding"] * chunk.embedding + ["decoder"] * (chunk.last_layer - chunk.first_layer) + ["loss"] * chunk.head
        for chunk in chunks
    ]


def _mark(chunk: GPTModel) -> None:
    """Matrices carry the attributes by which Megatron tells shards from copies in the gradient norm.

    Megatron sets them while it initialises, which we do ourselves. Biases of split outputs have them already.
    """
    for module in chunk.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, (ColumnParallelLinear, VocabParallelEmbedding)) and weight is not None:
            set_tensor_model_parallel_attributes(weight, True, 0, 1)
        elif isinstance(module, RowParallelLinear):
            set_tensor_model_parallel_attributes(weight, True, 1, 1)
