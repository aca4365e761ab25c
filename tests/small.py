"""Tiny configs of many families, as transformers spells them, for the tests of counting and of caches."""

DENSE = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
             max_position_embeddings=128, pad_token_id=0)  # fmt: skip
GROUPS = DENSE | dict(num_key_value_heads=2)
WIDE = GROUPS | dict(head_dim=8)
MLA = DENSE | dict(num_key_value_heads=4, kv_lora_rank=16, q_lora_rank=12, qk_nope_head_dim=8, qk_rope_head_dim=4,
                   v_head_dim=8)  # fmt: skip
DEEP = MLA | dict(moe_intermediate_size=24, n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1,
                  first_k_dense_replace=1, n_group=1, topk_group=1)  # fmt: skip
T5 = dict(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_decoder_layers=2, num_heads=4)
BART = dict(vocab_size=64, d_model=32, encoder_layers=3, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=128,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2)  # fmt: skip
GPT2 = dict(vocab_size=64, n_embd=32, n_layer=4, n_head=4, n_positions=128)
HYBRID = ["linear_attention"] * 3 + ["full_attention"]
LINEAR = dict(linear_conv_kernel_dim=4, linear_key_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
              linear_value_head_dim=8)  # fmt: skip
MAMBA2 = dict(hidden_size=32, expand=2, n_groups=2, state_size=16, conv_kernel=4)

DECODERS = {
    "gpt2": GPT2, "gpt_bigcode": GPT2, "codegen": GPT2 | dict(rotary_dim=4), "gptj": GPT2 | dict(rotary_dim=4),
    "gpt_neo": dict(vocab_size=64, hidden_size=32, num_layers=4, num_heads=4, max_position_embeddings=128,
                    attention_types=[[["global", "local"], 2]], window_size=16),
    "gpt_neox": DENSE, "gpt_neox_japanese": dict(vocab_size=64, hidden_size=32, num_hidden_layers=4,
                                                 num_attention_heads=4, intermediate_multiple_size=2),
    "llama": GROUPS, "mistral": GROUPS | dict(sliding_window=16), "qwen2": GROUPS, "qwen3": WIDE, "smollm3": GROUPS,
    "gemma": WIDE, "gemma2": WIDE | dict(sliding_window=16), "gemma3_text": WIDE | dict(sliding_window=16),
    "phi": DENSE, "phi3": GROUPS, "opt": DENSE | dict(ffn_dim=48, word_embed_proj_dim=32),
    "bloom": dict(vocab_size=64, hidden_size=32, n_layer=4, n_head=4),
    "falcon": {k: v for k, v in DENSE.items() if k != "intermediate_size"} | dict(ffn_hidden_size=48),
    "mpt": dict(vocab_size=64, d_model=32, n_layers=4, n_heads=4, max_seq_len=128), "olmo": GROUPS, "olmo2": GROUPS,
    "olmo3": GROUPS | dict(sliding_window=16), "starcoder2": GROUPS, "cohere": GROUPS,
    "cohere2": GROUPS | dict(sliding_window=16), "stablelm": GROUPS, "persimmon": DENSE, "granite": GROUPS,
    "glm": WIDE | dict(pad_token_id=0), "glm4": WIDE | dict(pad_token_id=0), "nemotron": GROUPS | dict(head_dim=8),
    "helium": WIDE, "exaone4": GROUPS | dict(sliding_window=16), "arcee": GROUPS, "ernie4_5": WIDE,
    "hunyuan_v1_dense": WIDE, "seed_oss": WIDE, "apertus": GROUPS,
    "diffllama": GROUPS, "biogpt": DENSE, "xglm": dict(vocab_size=64, d_model=32, ffn_dim=48, num_layers=4,
                                                       attention_heads=4, max_position_embeddings=128, pad_token_id=0),
}  # fmt: skip
SPARSE = {
    "mixtral": GROUPS | dict(num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": GROUPS | dict(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=24,
                               shared_expert_intermediate_size=40),
    "qwen3_moe": WIDE | dict(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=24),
    "olmoe": GROUPS | dict(num_experts=8, num_experts_per_tok=2),
    "flex_olmo": GROUPS | dict(num_experts=8, num_experts_per_tok=2),
    "gpt_oss": WIDE | dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=16),
    "phimoe": GROUPS | dict(num_local_experts=4, num_experts_per_tok=2),
    "granitemoe": GROUPS | dict(num_local_experts=4, num_experts_per_tok=2),
    "granitemoeshared": GROUPS | dict(num_local_experts=4, num_experts_per_tok=2, shared_intermediate_size=40),
    "jetmoe": dict(vocab_size=64, hidden_size=32, num_hidden_layers=4, num_key_value_heads=2, kv_channels=8,
                   intermediate_size=48, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=128),
    "dbrx": dict(vocab_size=64, d_model=32, n_heads=4, n_layers=4, max_seq_len=128,
                 attn_config=dict(kv_n_heads=2, clip_qkv=8.0, rope_theta=1e4),
                 ffn_config=dict(ffn_hidden_size=48, moe_num_experts=4, moe_top_k=2)),
    "deepseek_v2": DEEP | dict(topk_method="greedy"), "deepseek_v3": DEEP,
    "glm4_moe": WIDE | dict(n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=24, n_shared_experts=1,
                            first_k_dense_replace=1, n_group=1, topk_group=1),
    "dots1": WIDE | dict(n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=24, n_shared_experts=1,
                         first_k_dense_replace=1, n_group=1, topk_group=1),
    "ernie4_5_moe": WIDE | dict(moe_num_experts=8, moe_k=2, moe_intermediate_size=24, moe_num_shared_experts=1,
                                moe_layer_start_index=1),
    "hunyuan_v1_moe": WIDE | dict(num_experts=4, moe_topk=2),
    "minimax_m2": WIDE | dict(num_local_experts=4, num_experts_per_tok=2),
    "llama4_text": WIDE | dict(num_local_experts=4, num_experts_per_tok=1, intermediate_size_mlp=64,
                               attention_chunk_size=32, interleave_moe_layer_step=2),
    "lfm2_moe": GROUPS | dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, num_dense_layers=1,
                              layer_types=["conv", "conv", "full_attention", "conv"]),
}  # fmt: skip
HYBRIDS = {
    "qwen3_next": WIDE | LINEAR | dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24,
                                       shared_expert_intermediate_size=24, layer_types=HYBRID),
    "qwen3_5_text": WIDE | LINEAR | dict(layer_types=HYBRID),
    "jamba": GROUPS | dict(num_experts=4, num_experts_per_tok=2, attn_layer_period=4, attn_layer_offset=2,
                           expert_layer_period=2, expert_layer_offset=1, mamba_d_state=8, mamba_d_conv=4,
                           mamba_expand=2, use_mamba_kernels=False),
    "bamba": GROUPS | dict(attn_layer_indices=[2], mamba_n_heads=8, mamba_d_head=8, mamba_n_groups=2, mamba_d_state=16,
                           mamba_d_conv=4, mamba_expand=2),
    "granitemoehybrid": GROUPS | dict(layer_types=["mamba", "mamba", "attention", "mamba"], num_local_experts=4,
                                      num_experts_per_tok=2, shared_intermediate_size=40, mamba_n_heads=8,
                                      mamba_d_head=8, mamba_n_groups=2, mamba_d_state=16, mamba_expand=2),
    "falcon_h1": GROUPS | dict(mamba_d_ssm=64, mamba_n_heads=8, mamba_d_head=8, mamba_n_groups=2, mamba_d_state=16,
                               mamba_expand=2),
    "zamba2": DENSE | dict(num_key_value_heads=4, mamba_d_state=16, mamba_expand=2, n_mamba_heads=8, mamba_ngroups=2,
                           layers_block_type=["mamba", "mamba", "hybrid", "mamba"], num_mem_blocks=1),
    "lfm2": GROUPS | dict(layer_types=["conv", "conv", "full_attention", "conv"]),
    "recurrent_gemma": dict(vocab_size=64, hidden_size=32, intermediate_size=96, num_hidden_layers=3,
                            num_attention_heads=4, num_key_value_heads=1, lru_width=32, attention_window_size=16),
    "mamba": dict(vocab_size=64, hidden_size=32, state_size=8, num_hidden_layers=3),
    "mamba2": MAMBA2 | dict(vocab_size=64, num_hidden_layers=3, head_dim=8, num_heads=8),
    "falcon_mamba": dict(vocab_size=64, hidden_size=32, state_size=8, num_hidden_layers=3),
    "rwkv": dict(vocab_size=64, hidden_size=32, num_hidden_layers=3, context_length=64),
    "minimax": WIDE | dict(num_local_experts=4, num_experts_per_tok=2, block_size=16,
                           layer_types=["linear_attention", "full_attention"] * 2),
    "nemotron_h": GROUPS | dict(head_dim=8, hybrid_override_pattern="M-*-", mamba_num_heads=8, mamba_head_dim=8,
                                n_groups=2, ssm_state_size=16, conv_kernel=4, expand=2),
}  # fmt: skip
PAIRS = {
    "t5": T5, "mt5": T5, "umt5": T5, "longt5": T5,
    "switch_transformers": T5 | dict(num_experts=4, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1),
    "bart": BART, "mbart": BART, "pegasus": BART, "marian": BART, "m2m_100": BART, "blenderbot": BART,
    "whisper": dict(vocab_size=64, d_model=32, encoder_layers=3, decoder_layers=2, encoder_attention_heads=4,
                    decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=8,
                    max_source_positions=20, max_target_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                    decoder_start_token_id=1, num_hidden_layers=3),
}  # fmt: skip
ENCODERS = {
    "bert": DENSE, "roberta": DENSE, "electra": DENSE | dict(embedding_size=16),
    "albert": DENSE | dict(embedding_size=16),
    "modernbert": DENSE, "deberta-v2": DENSE, "distilbert": dict(vocab_size=64, dim=32, n_layers=3, n_heads=4,
                                                                 hidden_dim=48, max_position_embeddings=128),
}  # fmt: skip
ALL = DECODERS | SPARSE | HYBRIDS | PAIRS | ENCODERS
