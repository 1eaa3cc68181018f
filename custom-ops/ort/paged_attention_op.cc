#include <stdexcept>

#include "ort/compute_type.h"
#include "ort/registry.h"

namespace fdq::ort {
namespace {

class PagedAttentionKernel {
 public:
  PagedAttentionKernel(const SessionContext& session, const KernelInfo& info) : isa_(session.isa) {
    args_.pool = session.kv_pool;
    args_.layer = info.get_int("layer");
    args_.num_heads = info.get_int("num_heads");
    args_.num_kv_heads = info.get_int("num_kv_heads");
    args_.head_dim = info.get_int("head_dim");
    args_.scale = info.get_float("scale");
    args_.window = info.get_int("window");
    args_.rotary_dim = info.get_int("rotary_dim");
    args_.rotary_interleaved = info.get_int("rotary_interleaved") != 0;
    args_.norm_epsilon = info.get_float("norm_epsilon");
    args_.compute = parse_compute(info.get_string("compute"));
    const KvPool& pool = args_.pool;
    if (pool.base == nullptr) throw std::invalid_argument("the session has no KV cache");
    if (args_.layer < 0 || args_.layer >= pool.num_layers || args_.num_kv_heads != pool.num_kv_heads ||
        args_.head_dim != pool.head_dim) {
      throw std::invalid_argument("layer, num_kv_heads and head_dim must fit the session's KV cache");
    }
  }

  void compute(const KernelContext& context) {
    const Tensor qkv = context.input(0);
    const Tensor rotary = context.input(1);
    const Tensor starts = context.input(2);
    const Tensor lengths = context.input(3);
    const Tensor tables = context.input(4);
    AttentionArgs args = args_;
    args.tokens = qkv.shape.at(0);
    args.sequences = lengths.shape.at(0);
    args.block_table_stride = tables.shape.at(1);
    args.qkv = qkv.as<float>();
    args.rotary = rotary.as<float>();
    args.query_starts = starts.as<int32_t>();
    args.context_lengths = lengths.as<int32_t>();
    args.block_tables = tables.as<int32_t>();
    args.q_norm = context.input(5).as<float>();
    args.k_norm = context.input(6).as<float>();
    check_shapes(args, qkv, rotary, starts, tables);
    args.output = context.output({args.tokens, args.num_heads * args.head_dim});
    paged_attention(args, isa_, context.parallel());
  }

 private:
  // A wrong table would write outside the pool, so it is checked here whatever the caller promised.
  static void check_shapes(const AttentionArgs& args, const Tensor& qkv, const Tensor& rotary, const Tensor& starts,
                           const Tensor& tables) {
    if (qkv.shape.size() != 2 || qkv.shape[1] != (args.num_heads + 2 * args.num_kv_heads) * args.head_dim) {
      throw std::invalid_argument("qkv must be [tokens, (num_heads + 2 num_kv_heads) head_dim]");
    }
    if (rotary.shape.size() != 2 || rotary.shape[0] != args.tokens || rotary.shape[1] != args.rotary_dim) {
      throw std::invalid_argument("rotary must be [tokens, rotary_dim]");
    }
    if (starts.shape.size() != 1 || starts.shape[0] != args.sequences + 1 || tables.shape[0] != args.sequences) {
      throw std::invalid_argument("query_starts, context_lengths and block_tables disagree");
    }
    if (args.query_starts[0] != 0 || args.query_starts[args.sequences] != args.tokens) {
      throw std::invalid_argument("query_starts must run from 0 to the number of tokens");
    }
    for (int64_t s = 0; s < args.sequences; ++s) {
      const int64_t queries = args.query_starts[s + 1] - args.query_starts[s];
      const int64_t length = args.context_lengths[s];
      const int64_t blocks = ceil_div(length, kKvBlockSize);
      if (queries < 1 || length < queries || blocks > args.block_table_stride) {
        throw std::invalid_argument("a sequence's query count, context length and block table disagree");
      }
      for (int64_t b = 0; b < blocks; ++b) {
        const int32_t block = args.block_tables[s * args.block_table_stride + b];
        if (block < 0 || block >= args.pool.num_blocks) throw std::invalid_argument("a block is outside the KV pool");
      }
    }
  }

  AttentionArgs args_{};
  Isa isa_;
};

}  // namespace

std::unique_ptr<CustomOp> make_paged_attention_op(const SessionContext* session) {
  return std::make_unique<Op<PagedAttentionKernel>>(OpSchema{"PagedAttention",
                                                             {{kFloat, kRequired},
                                                              {kFloat, kRequired},
                                                              {kInt32, kRequired},
                                                              {kInt32, kRequired},
                                                              {kInt32, kRequired},
                                                              {kFloat, kOptional},
                                                              {kFloat, kOptional}}},
                                                    session);
}

}  // namespace fdq::ort
