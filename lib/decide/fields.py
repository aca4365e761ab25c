"""Which fields of a config.json each family of lib.decide.families knows, and what its classes are called.

The fields are those of transformers' configs, and those of older files that say the same in other words. What is set
and not among them may make another model of it, and whoever sizes it up is told.
"""

from lib.weights.declared import SILENT

PREFIX = {
    "gpt2": "GPT2", "gpt_bigcode": "GPTBigCode", "gpt_neo": "GPTNeo", "gptj": "GPTJ", "gpt_neox": "GPTNeoX",
    "llama": "Llama", "smollm3": "SmolLM3", "mistral": "Mistral", "mixtral": "Mixtral", "qwen2": "Qwen2",
    "qwen2_moe": "Qwen2Moe", "qwen3": "Qwen3", "qwen3_moe": "Qwen3Moe", "gemma": "Gemma", "gemma2": "Gemma2",
    "gemma3_text": "Gemma3", "phi": "Phi", "phi3": "Phi3", "opt": "OPT", "bloom": "Bloom", "falcon": "Falcon",
    "olmo": "Olmo", "olmo2": "Olmo2", "starcoder2": "Starcoder2", "cohere": "Cohere", "stablelm": "StableLm",
    "bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert", "t5": "T5", "mt5": "MT5", "vit": "ViT",
}  # fmt: skip
COMMON = SILENT.union("""
    attention_bias hidden_act hidden_size intermediate_size is_encoder_decoder layer_norm_epsilon layer_norm_eps
    max_position_embeddings num_attention_heads num_hidden_layers num_key_value_heads rms_norm_eps rope_parameters
    sliding_window rope_theta rope_scaling partial_rotary_factor head_dim classifier_dropout quantization_config
    auto_map
    hidden_dropout_prob attention_probs_dropout_prob activation_dropout
    ep_size moe_layer_freq num_nextn_predict_layers scoring_func topk_method seq_aux aux_loss_alpha
""".split())

_GPT2 = "activation_function n_embd n_head n_inner n_layer n_positions n_ctx scale_attn_weights add_cross_attention "
_ROUTING = "num_experts num_local_experts num_experts_per_tok norm_topk_prob output_router_logits router_aux_loss_coef "
_QWEN = "layer_types max_window_layers use_sliding_window use_mrope "
_GEMMA = """attn_logit_softcapping final_logit_softcapping hidden_activation layer_types query_pre_attn_scalar
            use_bidirectional_attention cache_implementation """
_BERT = """type_vocab_size position_embedding_type directionality pooler_fc_size pooler_num_attention_heads
           pooler_num_fc_layers pooler_size_per_head pooler_type output_past add_cross_attention """
_T5 = """d_ff d_kv d_model dense_act_fn dropout_rate feed_forward_proj initializer_factor is_gated_act n_positions
         num_decoder_layers num_heads num_layers relative_attention_max_distance relative_attention_num_buckets
         scale_decoder_outputs output_past """
_OWN = {
    "gpt2": _GPT2 + "scale_attn_by_inverse_layer_idx",
    "gpt_bigcode": _GPT2 + "attention_softmax_in_fp32 multi_query scale_attention_softmax_in_fp32 inference_runner "
                           "validate_runner_input pre_allocate_kv_cache max_batch_size pad_key_length",
    "gpt_neo": "activation_function attention_layers attention_types embed_dropout num_heads num_layers resid_dropout "
               "window_size",
    "gptj": _GPT2 + "rotary rotary_dim scale_attn_weights",
    "gpt_neox": "use_parallel_residual rotary_pct rotary_emb_base",
    "llama": "mlp_bias rope_interleaved",
    "smollm3": "layer_types mlp_bias no_rope_layer_interval no_rope_layers use_sliding_window max_window_layers",
    "mistral": "", "mixtral": _ROUTING + "router_jitter_noise", "qwen2": _QWEN,
    "qwen2_moe": _QWEN + _ROUTING + "decoder_sparse_step mlp_only_layers moe_intermediate_size qkv_bias "
                                    "shared_expert_intermediate_size",
    "qwen3": _QWEN, "qwen3_moe": _QWEN + _ROUTING + "decoder_sparse_step mlp_only_layers moe_intermediate_size",
    "gemma": "hidden_activation use_bidirectional_attention", "gemma2": _GEMMA,
    "gemma3_text": _GEMMA + "_sliding_window_pattern sliding_window_pattern rope_local_base_freq",
    "phi": "qk_layernorm", "phi3": "original_max_position_embeddings",
    "opt": "_remove_final_layer_norm activation_function do_layer_norm_before enable_bias ffn_dim init_std "
           "layer_norm_elementwise_affine layerdrop word_embed_proj_dim",
    "bloom": "apply_residual_connection_post_layernorm n_head n_layer n_embed n_embd slow_but_exact "
             "seq_length attention_softmax_in_fp32 bias_dropout_fusion masked_softmax_fusion skip_bias_add "
             "skip_bias_add_qkv offset_alibi unk",
    "falcon": "activation alibi bias ffn_hidden_size multi_query new_decoder_architecture num_kv_heads parallel_attn "
              "num_ln_in_parallel_attn n_head n_layer n_head_kv apply_residual_connection_post_layernorm",
    "olmo": "clip_qkv", "olmo2": "", "starcoder2": "embedding_dropout norm_epsilon residual_dropout use_bias",
    "cohere": "logit_scale use_qk_norm", "stablelm": "qk_layernorm use_parallel_residual use_qkv_bias",
    "bert": _BERT, "roberta": _BERT, "t5": _T5, "mt5": _T5,
    "distilbert": "activation dim hidden_dim n_heads n_layers qa_dropout seq_classif_dropout sinusoidal_pos_embds "
                  "tie_weights_",
    "vit": "encoder_stride image_size num_channels patch_size pooler_act pooler_output_size qkv_bias",
}  # fmt: skip
KNOWN = {family: COMMON.union(own.split()) for family, own in _OWN.items()}


def unknown(config: dict, known) -> list[str]:
    """The fields that are set and not known, as `name=value`."""
    found = sorted(name for name, value in config.items() if name not in known
                   and value not in (None, False, 0, "", [], {}))  # fmt: skip
    return [f"{name}={str(config[name])[:40]}" for name in found]
