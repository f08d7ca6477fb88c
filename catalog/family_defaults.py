"""Defaults of the configuration classes of transformers 5.23, as far as ``catalog.families`` reads them.

Defaults that are ``None`` or computed are left out. tests/catalog compares every entry with the classes.
"""

DEFAULTS: dict[str, dict[str, int | str | bool]] = {
    "afmoe": {
        "global_attn_every_n_layers": 4, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 6144, "moe_intermediate_size": 1408, "num_attention_heads": 16, "num_dense_layers":
        1, "num_experts": 64, "num_experts_per_tok": 6, "num_hidden_layers": 32, "num_shared_experts": 2,
        "sliding_window": 1024, "tie_word_embeddings": False, "vocab_size": 200192,
    },
    "bailing_hybrid": {
        "first_k_dense_replace": 2, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2560,
        "intermediate_size": 6144, "kv_lora_rank": 512, "layer_group_size": 6, "moe_intermediate_size": 768,
        "n_shared_experts": 1, "num_attention_heads": 32, "num_experts_per_tok": 8, "num_hidden_layers": 42,
        "num_key_value_heads": 32, "num_local_experts": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "tie_word_embeddings": False, "v_head_dim": 128, "vocab_size": 157184,
    },
    "dbrx": {"d_model": 2048, "n_heads": 16, "n_layers": 24, "tie_word_embeddings": False, "vocab_size": 32000},
    "deepseek_v2": {
        "first_k_dense_replace": 0, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008,
        "kv_lora_rank": 512, "moe_intermediate_size": 1407, "n_routed_experts": 64, "n_shared_experts": 2,
        "num_attention_heads": 32, "num_hidden_layers": 32, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64, "tie_word_embeddings": False, "v_head_dim": 128, "vocab_size": 102400,
    },
    "deepseek_v3": {
        "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168, "intermediate_size": 18432,
        "kv_lora_rank": 512, "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1,
        "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads":
        128, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "tie_word_embeddings": False,
        "v_head_dim": 128, "vocab_size": 129280,
    },
    "deepseek_v32": {
        "first_k_dense_replace": 3, "head_dim": 64, "hidden_act": "silu", "hidden_size": 7168, "index_head_dim":
        128, "index_n_heads": 64, "index_topk": 2048, "intermediate_size": 18432, "kv_lora_rank": 512,
        "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1, "num_attention_heads":
        128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128, "q_lora_rank": 1536,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "tie_word_embeddings": False, "v_head_dim": 128,
        "vocab_size": 129280,
    },
    "dots1": {
        "first_k_dense_replace": 0, "hidden_act": "silu", "hidden_size": 4608, "intermediate_size": 10944,
        "max_window_layers": 62, "moe_intermediate_size": 1408, "num_attention_heads": 32, "num_hidden_layers":
        62, "num_key_value_heads": 32, "sliding_window": 4096, "tie_word_embeddings": False, "vocab_size":
        152064,
    },
    "ernie4_5_moe": {
        "hidden_act": "silu", "hidden_size": 2560, "intermediate_size": 12288, "moe_intermediate_size": 1536,
        "moe_k": 6, "moe_layer_end_index": -1, "moe_layer_interval": 1, "moe_layer_start_index": 1,
        "moe_num_experts": 64, "moe_num_shared_experts": 2, "num_attention_heads": 20, "num_hidden_layers": 28,
        "num_key_value_heads": 4, "tie_word_embeddings": True, "vocab_size": 103424,
    },
    "exaone_moe": {
        "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 16384,
        "moe_intermediate_size": 1024, "num_attention_heads": 32, "num_experts": 64, "num_experts_per_tok": 8,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "num_shared_experts": 1, "sliding_window": 4096,
        "tie_word_embeddings": False, "vocab_size": 102400,
    },
    "flex_olmo": {
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
        "num_experts": 7, "num_experts_per_tok": 5, "num_hidden_layers": 32, "tie_word_embeddings": False,
        "vocab_size": 100352,
    },
    "gemma4_text": {
        "attention_k_eq_v": False, "enable_moe_block": False, "head_dim": 256, "hidden_activation":
        "gelu_pytorch_tanh", "hidden_size": 2304, "intermediate_size": 9216, "num_attention_heads": 8,
        "num_hidden_layers": 30, "num_key_value_heads": 4, "num_kv_shared_layers": 0, "sliding_window": 512,
        "tie_word_embeddings": True, "vocab_size": 262144,
    },
    "glm4_moe": {
        "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 10944,
        "moe_intermediate_size": 1408, "n_routed_experts": 128, "n_shared_experts": 1, "num_attention_heads":
        96, "num_experts_per_tok": 8, "num_hidden_layers": 46, "num_key_value_heads": 8, "tie_word_embeddings":
        False, "vocab_size": 151552,
    },
    "glm4_moe_lite": {
        "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 10240, "kv_lora_rank": 512,
        "moe_intermediate_size": 1536, "n_routed_experts": 64, "n_shared_experts": 1, "num_attention_heads": 20,
        "num_experts_per_tok": 4, "num_hidden_layers": 47, "num_key_value_heads": 20, "q_lora_rank": 768,
        "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "tie_word_embeddings": False, "v_head_dim": 256,
        "vocab_size": 154880,
    },
    "glm4v_moe_text": {
        "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 10944,
        "moe_intermediate_size": 1408, "n_routed_experts": 128, "n_shared_experts": 1, "num_attention_heads":
        96, "num_experts_per_tok": 8, "num_hidden_layers": 46, "num_key_value_heads": 8, "tie_word_embeddings":
        False, "vocab_size": 151424,
    },
    "glm_moe_dsa": {
        "first_k_dense_replace": 3, "head_dim": 64, "hidden_act": "silu", "hidden_size": 6144, "index_head_dim":
        128, "index_n_heads": 32, "index_topk": 2048, "intermediate_size": 12288, "kv_lora_rank": 512,
        "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1, "num_attention_heads":
        64, "num_experts_per_tok": 8, "num_hidden_layers": 78, "num_key_value_heads": 64, "q_lora_rank": 2048,
        "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "tie_word_embeddings": False, "v_head_dim": 256,
        "vocab_size": 154880,
    },
    "gpt_oss": {
        "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880, "intermediate_size": 2880,
        "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 36, "num_key_value_heads": 8,
        "num_local_experts": 128, "sliding_window": 128, "tie_word_embeddings": False, "vocab_size": 201088,
    },
    "granitemoe": {
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
        "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_local_experts": 8, "tie_word_embeddings": False,
        "vocab_size": 32000,
    },
    "granitemoehybrid": {
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008, "mamba_d_conv": 4,
        "mamba_d_head": "auto", "mamba_d_state": 256, "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads":
        128, "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_local_experts":
        8, "shared_intermediate_size": 1024, "tie_word_embeddings": False, "vocab_size": 32000,
    },
    "granitemoeshared": {
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
        "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_local_experts": 8, "shared_intermediate_size":
        0, "tie_word_embeddings": False, "vocab_size": 32000,
    },
    "hunyuan_v1_moe": {
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008, "moe_topk": 1,
        "num_attention_heads": 32, "num_experts": 1, "num_hidden_layers": 32, "tie_word_embeddings": False,
        "vocab_size": 290943,
    },
    "hy_v3": {
        "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 13312,
        "moe_intermediate_size": 1536, "num_attention_heads": 64, "num_experts": 192, "num_experts_per_tok": 8,
        "num_hidden_layers": 80, "num_key_value_heads": 8, "num_shared_experts": 1, "tie_word_embeddings":
        False, "vocab_size": 120832,
    },
    "jamba": {
        "attn_layer_offset": 4, "attn_layer_period": 8, "expert_layer_offset": 1, "expert_layer_period": 2,
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336, "mamba_d_conv": 4,
        "mamba_d_state": 16, "mamba_dt_rank": "auto", "mamba_expand": 2, "num_attention_heads": 32,
        "num_experts": 16, "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "tie_word_embeddings": False, "vocab_size": 65536,
    },
    "kimi_linear": {
        "hidden_act": "silu", "hidden_size": 2304, "intermediate_size": 9216, "kv_lora_rank": 512,
        "linear_conv_kernel_dim": 4, "moe_intermediate_size": 1024, "n_shared_experts": 1,
        "num_attention_heads": 32, "num_experts_per_tok": 8, "num_hidden_layers": 27, "num_key_value_heads": 32,
        "num_local_experts": 256, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "tie_word_embeddings": False,
        "v_head_dim": 128, "vocab_size": 163840,
    },
    "lfm2_moe": {
        "conv_L_cache": 3, "hidden_size": 2048, "intermediate_size": 7168, "moe_intermediate_size": 1792,
        "num_attention_heads": 32, "num_dense_layers": 2, "num_experts": 32, "num_experts_per_tok": 4,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "tie_word_embeddings": True, "vocab_size": 65536,
    },
    "llama4_text": {
        "attention_chunk_size": 8192, "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120,
        "interleave_moe_layer_step": 1, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
        "no_rope_layer_interval": 4, "num_attention_heads": 40, "num_experts_per_tok": 1, "num_hidden_layers":
        48, "num_key_value_heads": 8, "num_local_experts": 16, "tie_word_embeddings": False, "vocab_size":
        202048,
    },
    "mimo_v2_flash": {
        "head_dim": 192, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 16384,
        "moe_intermediate_size": 2048, "n_routed_experts": 256, "num_attention_heads": 64,
        "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4, "sliding_window": 129,
        "tie_word_embeddings": False, "v_head_dim": 128, "vocab_size": 152576,
    },
    "minimax": {
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
        "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8,
        "tie_word_embeddings": False, "vocab_size": 32000,
    },
    "minimax_m2": {
        "head_dim": 128, "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 1536,
        "num_attention_heads": 48, "num_experts_per_tok": 8, "num_hidden_layers": 62, "num_key_value_heads": 8,
        "num_local_experts": 256, "tie_word_embeddings": False, "vocab_size": 200064,
    },
    "mistral4": {
        "first_k_dense_replace": 0, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 12288,
        "kv_lora_rank": 256, "moe_intermediate_size": 2048, "n_routed_experts": 128, "n_shared_experts": 1,
        "num_attention_heads": 32, "num_experts_per_tok": 4, "num_hidden_layers": 36, "num_key_value_heads": 32,
        "q_lora_rank": 1024, "qk_nope_head_dim": 64, "qk_rope_head_dim": 64, "tie_word_embeddings": False,
        "v_head_dim": 128, "vocab_size": 131072,
    },
    "mixtral": {
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
        "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8,
        "tie_word_embeddings": False, "vocab_size": 32000,
    },
    "nllb-moe": {
        "activation_function": "relu", "d_model": 1024, "decoder_attention_heads": 16, "decoder_layers": 12,
        "decoder_sparse_step": 4, "encoder_attention_heads": 16, "encoder_ffn_dim": 4096, "encoder_layers": 12,
        "encoder_sparse_step": 4, "num_experts": 128, "tie_word_embeddings": True, "vocab_size": 128112,
    },
    "olmoe": {
        "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 2048, "num_attention_heads": 16,
        "num_experts": 64, "num_experts_per_tok": 8, "num_hidden_layers": 16, "tie_word_embeddings": False,
        "vocab_size": 50304,
    },
    "phimoe": {
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 6400, "num_attention_heads": 32,
        "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 16,
        "tie_word_embeddings": False, "vocab_size": 32064,
    },
    "qwen2_moe": {
        "decoder_sparse_step": 1, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 5632,
        "max_window_layers": 28, "moe_intermediate_size": 1408, "num_attention_heads": 16, "num_experts": 60,
        "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16,
        "shared_expert_intermediate_size": 5632, "sliding_window": 4096, "tie_word_embeddings": False,
        "use_sliding_window": False, "vocab_size": 151936,
    },
    "qwen3_5_moe_text": {
        "head_dim": 256, "hidden_act": "silu", "hidden_size": 2048, "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
        "linear_value_head_dim": 128, "moe_intermediate_size": 512, "num_attention_heads": 16, "num_experts":
        256, "num_experts_per_tok": 8, "num_hidden_layers": 40, "num_key_value_heads": 2,
        "shared_expert_intermediate_size": 512, "tie_word_embeddings": False, "vocab_size": 248320,
    },
    "qwen3_moe": {
        "decoder_sparse_step": 1, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144,
        "moe_intermediate_size": 768, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
        "num_hidden_layers": 24, "num_key_value_heads": 4, "sliding_window": 4096, "tie_word_embeddings": False,
        "use_sliding_window": False, "vocab_size": 151936,
    },
    "qwen3_next": {
        "decoder_sparse_step": 1, "head_dim": 256, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 5632, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
        "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_value_head_dim": 128,
        "moe_intermediate_size": 512, "num_attention_heads": 16, "num_experts": 512, "num_experts_per_tok": 10,
        "num_hidden_layers": 48, "num_key_value_heads": 2, "shared_expert_intermediate_size": 512,
        "tie_word_embeddings": False, "vocab_size": 151936,
    },
    "qwen3_omni_moe_text": {
        "decoder_sparse_step": 1, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 18944,
        "moe_intermediate_size": 768, "num_attention_heads": 28, "num_experts": 128, "num_experts_per_tok": 8,
        "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 3584,
    },
    "qwen3_vl_moe_text": {
        "decoder_sparse_step": 1, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 5632,
        "moe_intermediate_size": 1408, "num_attention_heads": 16, "num_experts": 60, "num_experts_per_tok": 4,
        "num_hidden_layers": 24, "num_key_value_heads": 16, "tie_word_embeddings": True, "vocab_size": 151936,
    },
    "solar_open": {
        "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "moe_intermediate_size": 1280,
        "n_routed_experts": 128, "n_shared_experts": 1, "num_attention_heads": 64, "num_experts_per_tok": 8,
        "num_hidden_layers": 48, "num_key_value_heads": 8, "tie_word_embeddings": False, "vocab_size": 196608,
    },
    "switch_transformers": {
        "d_ff": 2048, "d_kv": 64, "d_model": 768, "dense_act_fn": "relu", "num_decoder_layers": 12,
        "num_experts": 8, "num_heads": 12, "num_layers": 12, "num_sparse_decoder_layers": 3,
        "num_sparse_encoder_layers": 3, "tie_word_embeddings": True, "vocab_size": 32128,
    },
}  # fmt: skip
"""By ``model_type``."""
