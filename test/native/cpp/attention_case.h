// Builds attention problems over a scattered, poisoned pool, runs them step by step, and computes the same in
// double precision.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "fdq/ops.h"
#include "kv_reference.h"

namespace fdq_test {

inline void run_threads(void* pool, int64_t count, void (*body)(void*, int64_t), void* context) {
  const int threads = *static_cast<int*>(pool);
  std::atomic<int64_t> next{0};
  auto work = [&] {
    for (int64_t i = next++; i < count; i = next++) body(context, i);
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  for (std::thread& t : others) t.join();
}

inline fdq::Parallel make_parallel(int* threads) { return {run_threads, threads, *threads}; }

inline std::vector<fdq::Isa> machine_isas() {
  std::vector<fdq::Isa> isas;
  for (int i = 0; i <= static_cast<int>(fdq::detect_isa()); ++i) isas.push_back(static_cast<fdq::Isa>(i));
  return isas;
}

struct AttentionShape {
  int64_t num_heads, num_kv_heads, head_dim;
  int64_t window, rotary_dim;
  bool interleaved, norms;
  fdq::KvType type;
  fdq::ComputeType compute = fdq::ComputeType::kFloat32;
};

struct Sequence {
  int64_t length;
  std::vector<float> qkv;     // [length, (heads + 2 kv_heads) head_dim]
  std::vector<float> rotary;  // [length, rotary_dim]
  std::vector<int32_t> table;
  std::vector<float> output;  // [length, heads * head_dim], filled as steps run
  int64_t done = 0;
};

struct StepItem {
  int sequence;
  int64_t tokens;
};

class AttentionCase {
 public:
  AttentionCase(const AttentionShape& shape, const std::vector<int64_t>& lengths, uint32_t seed)
      : shape_(shape), random_(seed) {
    std::vector<int32_t> blocks;
    for (int64_t n : lengths) num_blocks_ += fdq::ceil_div(n, fdq::kKvBlockSize);
    num_blocks_ += 3;  // owned by nobody
    for (int64_t b = 0; b < num_blocks_; ++b) blocks.push_back(static_cast<int32_t>(b));
    std::shuffle(blocks.begin(), blocks.end(), random_);
    const int64_t record = fdq::kv_record_bytes(shape.type, shape.head_dim);
    pool_.resize(static_cast<size_t>(kLayers * num_blocks_ * 2 * shape.num_kv_heads * record));
    clear();
    q_norm_ = draw(shape.head_dim, 0.3f, 1.0f);
    k_norm_ = draw(shape.head_dim, 0.3f, 1.0f);
    for (int64_t n : lengths) {
      Sequence s;
      s.length = n;
      s.qkv = draw(n * width(), 1.0f, 0.0f);
      s.rotary.resize(static_cast<size_t>(n * shape.rotary_dim));
      const int64_t pairs = shape.rotary_dim / 2;
      for (int64_t p = 0; p < n; ++p) {
        for (int64_t i = 0; i < pairs; ++i) {
          const double angle = static_cast<double>(p) * std::pow(10000.0, -2.0 * i / shape.rotary_dim);
          s.rotary[p * shape.rotary_dim + i] = static_cast<float>(std::cos(angle));
          s.rotary[p * shape.rotary_dim + pairs + i] = static_cast<float>(std::sin(angle));
        }
      }
      for (int64_t b = 0; b < fdq::ceil_div(n, fdq::kKvBlockSize); ++b) {
        s.table.push_back(blocks.back());
        blocks.pop_back();
      }
      s.output.assign(static_cast<size_t>(n * out_width()), -1.0f);
      sequences_.push_back(s);
    }
  }

  int64_t width() const { return (shape_.num_heads + 2 * shape_.num_kv_heads) * shape_.head_dim; }
  int64_t out_width() const { return shape_.num_heads * shape_.head_dim; }
  std::vector<Sequence>& sequences() { return sequences_; }
  fdq::KvPool pool_view() const {
    auto* base = const_cast<uint8_t*>(pool_.data());
    return {base, shape_.type, kLayers, num_blocks_, shape_.num_kv_heads, shape_.head_dim};
  }
  // The key (or value) of a token that has been run, as the pool holds it.
  KvHead stored(const Sequence& s, int64_t token, int64_t kv_head, bool value) const {
    const int64_t block = s.table[static_cast<size_t>(token / fdq::kKvBlockSize)];
    return read_kv_head(pool_view(), {kLayer, block, kv_head, value}, token % fdq::kKvBlockSize);
  }
  float scale() const { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape_.head_dim))); }

  // Forgets all outputs and fills the pool with NaN, so that a read of anything never written shows.
  void clear() {
    std::fill(pool_.begin(), pool_.end(), static_cast<uint8_t>(0xff));
    for (Sequence& s : sequences_) {
      s.done = 0;
      std::fill(s.output.begin(), s.output.end(), -1.0f);
    }
  }

  void step(const std::vector<StepItem>& items, fdq::Isa isa, int threads) {
    std::vector<float> qkv, rotary;
    std::vector<int32_t> starts{0}, lengths, tables;
    int64_t stride = 1;
    for (const StepItem& i : items) {
      stride = std::max<int64_t>(stride, static_cast<int64_t>(sequences_[i.sequence].table.size()));
    }
    for (const StepItem& i : items) {
      const Sequence& s = sequences_[i.sequence];
      const int64_t from = s.done, to = s.done + i.tokens;
      qkv.insert(qkv.end(), s.qkv.begin() + from * width(), s.qkv.begin() + to * width());
      rotary.insert(rotary.end(), s.rotary.begin() + from * shape_.rotary_dim,
                    s.rotary.begin() + to * shape_.rotary_dim);
      starts.push_back(starts.back() + static_cast<int32_t>(i.tokens));
      lengths.push_back(static_cast<int32_t>(to));
      // Blocks past the context are wild: reading through them must not happen.
      for (int64_t b = 0; b < stride; ++b) {
        tables.push_back(b < fdq::ceil_div(to, fdq::kKvBlockSize) ? s.table[b] : 0x7fffffff);
      }
    }
    std::vector<float> output(static_cast<size_t>(starts.back() * out_width()));
    fdq::AttentionArgs args{};
    args.pool = pool_view();
    args.compute = shape_.compute;
    args.layer = kLayer;
    args.num_heads = shape_.num_heads;
    args.num_kv_heads = shape_.num_kv_heads;
    args.head_dim = shape_.head_dim;
    args.scale = scale();
    args.window = shape_.window;
    args.rotary_dim = shape_.rotary_dim;
    args.rotary_interleaved = shape_.interleaved;
    args.q_norm = shape_.norms ? q_norm_.data() : nullptr;
    args.k_norm = shape_.norms ? k_norm_.data() : nullptr;
    args.norm_epsilon = 1e-6f;
    args.tokens = starts.back();
    args.qkv = qkv.data();
    args.rotary = rotary.data();
    args.sequences = static_cast<int64_t>(items.size());
    args.query_starts = starts.data();
    args.context_lengths = lengths.data();
    args.block_tables = tables.data();
    args.block_table_stride = stride;
    args.output = output.data();
    fdq::paged_attention(args, isa, make_parallel(&threads));
    const float* from = output.data();
    for (const StepItem& i : items) {
      Sequence& s = sequences_[i.sequence];
      const size_t count = static_cast<size_t>(i.tokens * out_width());
      std::memcpy(s.output.data() + s.done * out_width(), from, count * sizeof(float));
      from += count;
      s.done += i.tokens;
    }
  }

  // Double precision over keys and values as the pool stores them: float types rounded here, quantized ones
  // read from the pool, so the sequence must have been run. [length, heads * head_dim]
  std::vector<double> reference(const Sequence& s) const {
    const int64_t n = shape_.head_dim, group = shape_.num_heads / shape_.num_kv_heads;
    std::vector<std::vector<double>> heads;  // of each token: queries, keys, values
    for (int64_t t = 0; t < s.length; ++t) {
      for (int64_t h = 0; h < shape_.num_heads + 2 * shape_.num_kv_heads; ++h) {
        const float* x = s.qkv.data() + t * width() + h * n;
        std::vector<double> y(x, x + n);
        const bool query = h < shape_.num_heads, value = h >= shape_.num_heads + shape_.num_kv_heads;
        if (!value) prepare(&y, query ? q_norm_ : k_norm_, s.rotary.data() + t * shape_.rotary_dim);
        if (!query && fdq::is_quantized(shape_.type)) {
          const int64_t kv_head = (h - shape_.num_heads) % shape_.num_kv_heads;
          y = stored(s, t, kv_head, value).decoded();
        } else if (!query) {
          for (double& v : y) v = round(v);
        }
        heads.push_back(y);
      }
    }
    const int64_t per_token = shape_.num_heads + 2 * shape_.num_kv_heads;
    std::vector<double> output;
    for (int64_t t = 0; t < s.length; ++t) {
      const int64_t oldest = shape_.window > 0 ? std::max<int64_t>(0, t - shape_.window + 1) : 0;
      for (int64_t h = 0; h < shape_.num_heads; ++h) {
        const std::vector<double>& q = heads[t * per_token + h];
        std::vector<double> weights, sum(static_cast<size_t>(n), 0.0);
        double top = -INFINITY, total = 0;
        for (int64_t p = oldest; p <= t; ++p) {
          const std::vector<double>& key = heads[p * per_token + shape_.num_heads + h / group];
          double dot = 0;
          for (int64_t d = 0; d < n; ++d) dot += q[d] * key[d];
          weights.push_back(dot * scale());
          top = std::max(top, weights.back());
        }
        for (int64_t p = oldest; p <= t; ++p) {
          const double w = std::exp(weights[p - oldest] - top);
          const std::vector<double>& value =
              heads[p * per_token + shape_.num_heads + shape_.num_kv_heads + h / group];
          total += w;
          for (int64_t d = 0; d < n; ++d) sum[d] += w * value[d];
        }
        for (double v : sum) output.push_back(v / total);
      }
    }
    return output;
  }

 private:
  static constexpr int64_t kLayers = 2, kLayer = 1;

  std::vector<float> draw(int64_t count, float spread, float mean) {
    std::normal_distribution<float> normal(mean, spread);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = normal(random_);
    return values;
  }

  double round(double value) const {
    const float single = static_cast<float>(value);
    if (shape_.type == fdq::KvType::kFloat32) return single;
    uint32_t bits;
    std::memcpy(&bits, &single, 4);
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000u;
    float rounded;
    std::memcpy(&rounded, &bits, 4);
    return rounded;
  }

  void prepare(std::vector<double>* x, const std::vector<float>& norm, const float* cos_sin) const {
    std::vector<double>& v = *x;
    if (shape_.norms) {
      double squares = 0;
      for (double e : v) squares += e * e;
      const double factor = 1 / std::sqrt(squares / static_cast<double>(v.size()) + 1e-6);
      for (size_t i = 0; i < v.size(); ++i) v[i] = v[i] * factor * norm[i];
    }
    const int64_t pairs = shape_.rotary_dim / 2;
    for (int64_t i = 0; i < pairs; ++i) {
      double& a = v[static_cast<size_t>(shape_.interleaved ? 2 * i : i)];
      double& b = v[static_cast<size_t>(shape_.interleaved ? 2 * i + 1 : i + pairs)];
      const double c = cos_sin[i], s = cos_sin[pairs + i], first = a, second = b;
      a = first * c - second * s;
      b = second * c + first * s;
    }
  }

  AttentionShape shape_;
  std::mt19937 random_;
  int64_t num_blocks_ = 0;
  std::vector<uint8_t> pool_;
  std::vector<float> q_norm_, k_norm_;
  std::vector<Sequence> sequences_;
};

}  // namespace fdq_test
