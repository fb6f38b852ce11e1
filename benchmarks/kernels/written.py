"""Cases written by hand, at least one for every op that something can be compared with.

They stand in for ops that no model of the zoo contains; `harvest` adds them to the built-in list where it finds none.
"""

from __future__ import annotations

from fusible.benchmarks.kernels.cases import Case, parse_case

__all__ = ["written_cases"]

ORIGIN = "written by hand"

_ELEMENTWISE = """
abs acos acosh asin asinh atan atanh ceil cos cosh erf exp floor hard_swish identity is_nan log mish neg reciprocal relu
round sigmoid sign sin sinh softplus softsign sqrt tan tanh celu elu gelu hard_sigmoid is_inf leaky_relu selu shrink
swish thresholded_relu dropout
"""
_SAME_SHAPES = "add sub mul div pow max min mean sum greater greater_or_equal less less_or_equal equal swiglu prelu"
_LOGICAL = "and or xor"
_BITS = "bitwise_and bitwise_or bitwise_xor"
_REDUCTIONS = """
reduce_sum reduce_mean reduce_prod reduce_max reduce_min reduce_l1 reduce_l2 reduce_log_sum reduce_log_sum_exp
reduce_sum_square
"""

_CASES = """
and(bool[1, 12, 128, 128], bool[1, 1, 128, 128])
not(bool[1, 12, 128, 128])
bitwise_not(i32[256, 1024])
bit_shift(u8[256, 1024], u8[256, 1024]) {direction="RIGHT"}
mod(f32[256, 1024], f32[256, 1024]) {fmod=True}
mod(i32[256, 1024], i32[256, 1024])
clip(f32[1, 64, 56, 56], const f32[] = [0.0], const f32[] = [6.0])
where(bool[1, 12, 128, 128], f32[1, 12, 128, 128], const f32[] = [-10000.0])
cast(f32[256, 1024]) {dtype=f16}
cast(i64[256, 1024]) {dtype=f32}
bit_cast(f32[256, 1024]) {dtype=i32}
matmul(f32[128, 768], const f32[768, 768])
matmul(f32[12, 128, 64], f32[12, 64, 128])
gemm(f32[1, 2048], const f32[1000, 2048], const f32[1000]) {alpha=1.0, beta=1.0, transA=False, transB=True}
matmul_integer(u8[128, 512], const i8[512, 512], u8[] = [128], const i8[] = [0])
qlinear_matmul(u8[128, 256], f32[], u8[], const i8[256, 256], const f32[], const i8[], const f32[], const u8[])
conv_integer(u8[1, 32, 28, 28], const u8[32, 32, 3, 3], u8[] = [128], const u8[] = [127]) {pads=(1, 1, 1, 1)}
qlinear_conv(u8[1, 32, 28, 28], const f32[], const u8[], const i8[32, 32, 3, 3], const f32[32], const i8[32] = [\
0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], const f32[], \
const u8[]) {pads=(1, 1, 1, 1)}
einsum(f32[4, 128, 64], f32[4, 64, 128]) {equation="bij,bjk->bik"}
conv(f32[1, 64, 56, 56], const f32[64, 64, 3, 3], const f32[64]) {pads=(1, 1, 1, 1)}
conv(f32[1, 96, 56, 56], const f32[96, 1, 3, 3]) {pads=(1, 1, 1, 1), group=96}
conv_transpose(f32[1, 64, 28, 28], const f32[64, 32, 2, 2], const f32[32]) {strides=(2, 2)}
deform_conv(f32[1, 16, 28, 28], const f32[16, 16, 3, 3], f32[1, 18, 28, 28], const f32[16], f32[1, 9, 28, 28]) \
{pads=(1, 1, 1, 1)}
col2im(f32[1, 288, 784]) {image_shape=(28, 28), block_shape=(3, 3), pads=(1, 1, 1, 1)}
col2im_dynamic(f32[1, 288, 784], i64[2] = [28, 28], i64[2] = [3, 3]) {pads=(1, 1, 1, 1)}
max_pool(f32[1, 64, 112, 112]) {kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)}
max_pool_with_indices(f32[1, 64, 56, 56]) {kernel_shape=(2, 2), strides=(2, 2)}
max_pool_with_indices(f32[1, 1, 256, 256]) {kernel_shape=(2, 2), strides=(2, 2)}
average_pool(f32[1, 64, 56, 56]) {kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), count_include_pad=True}
lp_pool(f32[1, 64, 56, 56]) {kernel_shape=(2, 2), strides=(2, 2)}
global_average_pool(f32[1, 2048, 7, 7])
global_max_pool(f32[1, 2048, 7, 7])
global_lp_pool(f32[1, 2048, 7, 7])
max_unpool(f32[1, 64, 28, 28], i64[1, 64, 28, 28]) {kernel_shape=(2, 2), strides=(2, 2)}
max_unpool(f32[1, 1, 128, 128], i64[1, 1, 128, 128]) {kernel_shape=(2, 2), strides=(2, 2)}
max_unpool_dynamic(f32[1, 64, 28, 28], i64[1, 64, 28, 28], i64[4] = [1, 64, 56, 56]) {kernel_shape=(2, 2), \
strides=(2, 2)}
batch_normalization(f32[1, 64, 56, 56], const f32[64], const f32[64], const f32[64], const f32[64])
batch_normalization_training(f32[8, 64, 28, 28], f32[64], f32[64], f32[64], f32[64]) {epsilon=1e-05, momentum=0.9}
instance_normalization(f32[1, 64, 56, 56], const f32[64], const f32[64])
group_normalization(f32[1, 64, 32, 32], const f32[64], const f32[64]) {num_groups=32}
layer_normalization(f32[1, 128, 768], const f32[768], const f32[768])
layer_normalization_statistics(f32[1, 128, 768], const f32[768], const f32[768])
rms_normalization(f32[1, 128, 768], const f32[768])
lp_normalization(f32[128, 512])
lrn(f32[1, 64, 28, 28]) {size=5}
softmax(f32[1, 12, 128, 128])
log_softmax(f32[128, 1000])
hardmax(f32[128, 1000])
attention(f32[1, 8, 128, 64], f32[1, 8, 128, 64], f32[1, 8, 128, 64])
attention(f32[1, 128, 512], f32[1, 128, 512], f32[1, 128, 512]) {q_num_heads=8, kv_num_heads=8, is_causal=True}
attention_with_cache(f32[1, 8, 1, 64], f32[1, 8, 1, 64], f32[1, 8, 1, 64], none, f32[1, 8, 127, 64], \
f32[1, 8, 127, 64])
attention_with_scores(f32[1, 8, 64, 64], f32[1, 8, 64, 64], f32[1, 8, 64, 64]) {qk_matmul_output_mode=3}
rotary_embedding(f32[1, 8, 128, 64], const f32[128, 32], const f32[128, 32], i64[1, 128])
linear_attention(f32[1, 32, 256], f32[1, 32, 256], f32[1, 32, 256], none, f32[1, 32, 4], f32[1, 32, 4]) \
{q_num_heads=4, kv_num_heads=4}
causal_conv_with_state(f32[1, 256, 128], const f32[256, 1, 4], const f32[256], f32[1, 256, 3]) {activation="silu"}
rnn(f32[32, 4, 128], const f32[1, 128, 128], const f32[1, 128, 128], const f32[1, 256]) {direction="forward"}
gru(f32[32, 4, 128], const f32[1, 384, 128], const f32[1, 384, 128], const f32[1, 768]) {linear_before_reset=1}
lstm(f32[32, 4, 128], const f32[1, 512, 128], const f32[1, 512, 128], const f32[1, 1024])
lstm(f32[32, 4, 128], const f32[2, 512, 128], const f32[2, 512, 128], const f32[2, 1024]) {direction="bidirectional"}
dynamic_quantize_lstm(f32[32, 4, 128], const i8[1, 128, 512], const i8[1, 128, 512], const f32[1, 1024], none, none, \
none, none, const f32[1], const i8[1], const f32[1], const i8[1])
cum_sum(f32[64, 1024]) {axis=1}
cum_sum_dynamic(f32[64, 1024], i64[] = [1])
cum_prod(f32[64, 1024]) {axis=1}
cum_prod_dynamic(f32[64, 1024], i64[] = [1])
arg_max(f32[128, 1000]) {axis=1}
arg_min(f32[128, 1000]) {axis=1}
top_k(f32[16, 1000]) {k=10}
top_k_dynamic(f32[16, 1000], i64[1] = [10])
unique(i64[4096])
non_zero(f32[256, 256])
compress(f32[1024, 256], bool[1024]) {axis=0}
non_max_suppression(f32[1, 512, 4], f32[1, 4, 512]) {max_output_boxes_per_class=50, iou_threshold=0.5, \
score_threshold=0.25}
non_max_suppression_dynamic(f32[1, 512, 4], f32[1, 4, 512], i64[1] = [50], f32[1] = [0.5], f32[1] = [0.25])
gather(const f32[8192, 256], i64[1, 128])
gather_elements(f32[128, 512], i64[128, 64]) {axis=1}
gather_nd(f32[64, 64, 32], i64[1024, 2])
scatter_elements(f32[128, 512], i64[128, 64], f32[128, 64]) {axis=1}
scatter_nd(f32[1024, 64], i64[256, 1], f32[256, 64])
tensor_scatter(f32[1, 8, 512, 64], f32[1, 8, 1, 64], i64[1]) {axis=-2}
array_feature_extractor(f32[256, 128], i64[1, 16])
one_hot(i64[64, 16], const f32[2] = [0.0, 1.0]) {depth=128}
one_hot_dynamic(i64[64, 16], i64[] = [128], const f32[2] = [0.0, 1.0])
reverse_sequence(f32[64, 8, 128], i64[8])
transpose(f32[1, 128, 12, 64]) {perm=(0, 2, 1, 3)}
reshape(f32[1, 128, 768]) {shape=(1, 128, 12, 64)}
reshape_dynamic(f32[1, 128, 768], i64[4] = [1, 128, 12, 64])
flatten(f32[8, 64, 7, 7])
squeeze(f32[1, 1000, 1, 1])
squeeze_dynamic(f32[1, 1000, 1, 1], i64[2] = [2, 3])
unsqueeze(f32[1, 128]) {axes=(1, 2)}
unsqueeze_dynamic(f32[1, 128], i64[2] = [1, 2])
expand(f32[1, 1, 128]) {shape=(4, 128, 128)}
expand_dynamic(f32[1, 1, 128], i64[3] = [4, 128, 128])
tile(f32[1, 64, 64]) {repeats=(4, 2, 2)}
tile_dynamic(f32[1, 64, 64], i64[3] = [4, 2, 2])
slice(f32[1, 128, 768]) {starts=(0, 64), ends=(64, 512), axes=(1, 2), steps=(1, 2)}
slice_dynamic(f32[1, 128, 768], i64[2] = [0, 64], i64[2] = [64, 512], i64[2] = [1, 2], i64[2] = [1, 2])
split(f32[128, 768]) {axis=1, split=(256, 256, 256)} -> 3
split_dynamic(f32[128, 768], i64[3] = [256, 256, 256]) {axis=1, num_outputs=3} -> 3
concat(f32[1, 64, 28, 28], f32[1, 64, 28, 28]) {axis=1}
pad(f32[1, 64, 56, 56]) {pads=(0, 0, 1, 1, 0, 0, 1, 1)}
pad(f32[1, 16, 64, 64]) {pads=(0, 0, 3, 3, 0, 0, 3, 3), mode="reflect"}
pad_dynamic(f32[1, 64, 56, 56], i64[8] = [0, 0, 1, 1, 0, 0, 1, 1])
trilu(f32[1, 512, 512]) {upper=False}
trilu_dynamic(f32[1, 512, 512], i64[] = [0]) {upper=False}
depth_to_space(f32[1, 64, 28, 28]) {blocksize=2}
depth_to_space(f32[1, 64, 28, 28]) {blocksize=2, mode="CRD"}
space_to_depth(f32[1, 16, 56, 56]) {blocksize=2}
space_to_depth(f32[1, 16, 56, 56]) {blocksize=2, mode="CRD"}
resize(f32[1, 32, 56, 56]) {scales=(1.0, 1.0, 2.0, 2.0), coordinate_transformation_mode="asymmetric", \
nearest_mode="floor"}
resize(f32[1, 32, 56, 56]) {sizes=(1, 32, 112, 112), mode="linear"}
resize(f32[1, 8, 56, 56]) {sizes=(1, 8, 112, 112), mode="cubic"}
resize_dynamic(f32[1, 32, 56, 56], none, none, i64[4] = [1, 32, 112, 112]) {mode="linear"}
grid_sample(f32[1, 16, 64, 64], f32[1, 64, 64, 2])
affine_grid(f32[4, 2, 3]) {size=(4, 3, 64, 64)}
affine_grid_dynamic(f32[4, 2, 3], i64[4] = [4, 3, 64, 64])
roi_align(f32[1, 32, 50, 50], f32[16, 4], i64[16]) {output_height=7, output_width=7, sampling_ratio=2}
max_roi_pool(f32[1, 32, 50, 50], f32[16, 5]) {pooled_shape=(7, 7)}
det(f32[64, 16, 16])
dft(f32[8, 1024, 1]) {axis=1, onesided=True}
dft_dynamic(f32[8, 1024, 1], none, i64[] = [1]) {onesided=True}
stft(f32[1, 16384, 1], const f32[512]) {frame_step=128}
stft_dynamic(f32[1, 16384, 1], i64[] = [128], const f32[512])
hann_window() {size=1024, dtype=f32}
hann_window_dynamic(i64[] = [1024]) {dtype=f32}
hamming_window() {size=1024, dtype=f32}
hamming_window_dynamic(i64[] = [1024]) {dtype=f32}
blackman_window() {size=1024, dtype=f32}
blackman_window_dynamic(i64[] = [1024]) {dtype=f32}
mel_weight_matrix() {num_mel_bins=80, dft_length=512, sample_rate=16000, lower_edge_hertz=0.0, \
upper_edge_hertz=8000.0, dtype=f32}
mel_weight_matrix_dynamic(i64[] = [80], i64[] = [512], i64[] = [16000], f32[] = [0.0], f32[] = [8000.0]) {dtype=f32}
range(i64[] = [0], i64[] = [4096], const i64[] = [1])
range_dynamic(i64[] = [0], i64[] = [4096], const i64[] = [1])
eye_like(f32[256, 256]) {dtype=f32}
shape(f32[1, 64, 56, 56])
size(f32[1, 64, 56, 56])
quantize_linear(f32[128, 768], const f32[], const u8[] = [128]) {output_dtype=u8}
dequantize_linear(u8[128, 768], const f32[], const u8[] = [128]) {output_dtype=f32}
dynamic_quantize_linear(f32[128, 768])
reduce_dynamic(f32[128, 768], i64[1] = [1]) {reduction="reduce_sum"}
random_normal() {shape=(256, 1024), dtype=f32, seed=1.0}
random_normal_like(f32[256, 1024]) {dtype=f32, seed=1.0}
random_uniform() {shape=(256, 1024), dtype=f32, seed=1.0}
random_uniform_like(f32[256, 1024]) {dtype=f32, seed=1.0}
bernoulli(f32[256, 1024]) {dtype=f32, seed=1.0}
multinomial(f32[64, 100]) {dtype=i32, sample_size=64, seed=1.0}
dropout(f32[256, 1024], f32[] = [0.3], bool[] = [True]) {seed=1}
string_concat(string[4096], string[4096])
string_split(string[4096]) {delimiter=","}
string_normalizer(string[4096]) {is_case_sensitive=True, stopwords=("page", "Z")}
regex_full_match(string[1024]) {pattern="[a-z]+,[a-z0-9]+"}
tf_idf_vectorizer(i64[64, 32], const i64[6] = [1, 2, 3, 1, 2, 3], const i64[4] = [0, 1, 2, 3]) {mode="TF", \
min_gram_length=1, max_gram_length=2, max_skip_count=0, ngram_counts=(0, 2), columns=4}
binarizer(f32[256, 128]) {threshold=0.5}
feature_vectorizer(f32[256, 64], f32[256, 32]) {inputdimensions=(64, 32)}
imputer(f32[256, 4], const f32[4] = [1.0, 2.0, 3.0, 4.0], const f32[] = [nan])
label_encoder(i64[4096], const i64[4] = [1, 2, 3, 4], const f32[4] = [0.5, 1.5, 2.5, 3.5], const f32[] = [-1.0])
linear_regressor(f32[256, 64], const f32[2, 64], const f32[2]) {post_transform="NONE"}
normalizer(f32[256, 128]) {norm="L2"}
one_hot_encoder(i64[256], const i64[4] = [1, 2, 3, 4])
scaler(f32[256, 4], const f32[4] = [0.5, 1.0, 1.5, 2.0], const f32[4] = [2.0, 1.0, 0.5, 0.25])
tree_ensemble(f32[256, 4], const i64[1] = [0], const i64[3] = [0, 1, 2], const u8[3] = [0, 0, 0], \
const f32[3] = [0.0, -0.5, 0.5], const i64[3] = [1, 0, 2], const i64[3] = [0, 1, 1], const i64[3] = [2, 1, 3], \
const i64[3] = [0, 1, 1], const i64[4] = [0, 0, 0, 0], const f32[4] = [1.0, 2.0, 3.0, 4.0]) {n_targets=1}
sequence_construct(f32[64, 64], f32[64, 64], f32[64, 64])
sequence_at(seq<f32[64, 64]>, i64[] = [2])
sequence_erase(seq<f32[64, 64]>, i64[] = [1])
sequence_insert(seq<f32[64, 64]>, f32[64, 64], i64[] = [1])
sequence_length(seq<f32[64, 64]>)
sequence_empty() {dtype=f32}
concat_from_sequence(seq<f32[64, 64]>) {axis=0, new_axis=0}
split_to_sequence(f32[64, 64]) {axis=0, split=16}
split_to_sequence_dynamic(f32[64, 64], i64[4] = [16, 16, 16, 16]) {axis=0}
"""


def written_cases() -> list[Case]:
    """All of them, each op of which the file has a line."""
    texts = [line for line in _CASES.replace("\\\n", "").splitlines() if line]
    texts += [f"{op}(f32[1, 64, 56, 56])" for op in _ELEMENTWISE.split()]
    texts += [f"{op}(f32[256, 1024], f32[256, 1024])" for op in _SAME_SHAPES.split()]
    texts += [f"{op}(bool[256, 1024], bool[256, 1024])" for op in _LOGICAL.split()]
    texts += [f"{op}(i32[256, 1024], i32[256, 1024])" for op in _BITS.split()]
    texts += [f"{op}(f32[128, 768]) {{axes=(1,)}}" for op in _REDUCTIONS.split()]
    return [parse_case(text, (ORIGIN,)) for text in texts]
