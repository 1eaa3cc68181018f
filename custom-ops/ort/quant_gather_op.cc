// Rows of a quantized weight by their ids: the embedding that a tied output head shares
#include <stdexcept>
#include <string>

#include "ort/quant_weight.h"
#include "ort/registry.h"

namespace fdq::ort {
namespace {

// y[t, k] = dequantize(W)[ids[t], k]
class QuantGatherKernel {
 public:
  QuantGatherKernel(const SessionContext&, const KernelInfo& info)
      : weight_(read_weight(info, {1, 2, -1, 3, -1}, WeightLayout::kPanels)),
        rows_(total_rows(weight_.shape)) {
    if (is_as_stored(weight_.shape.format)) throw std::invalid_argument("the weight must be quantized");
  }

  void compute(const KernelContext& context) {
    const Tensor ids = context.input(0);
    if (ids.shape.size() != 1) throw std::invalid_argument("ids must be [tokens]");
    const int64_t tokens = ids.shape[0];
    for (int64_t i = 0; i < tokens; ++i) {
      const int64_t id = ids.as<int64_t>()[i];
      if (id >= 0 && id < rows_) continue;
      throw std::invalid_argument("id " + std::to_string(id) + " is outside the " + std::to_string(rows_) +
                                  " rows");
    }
    float* y = context.output({tokens, weight_.shape.k});
    gather_rows(weight_, ids.as<int64_t>(), tokens, y, context.parallel());
  }

 private:
  LinearWeight weight_;
  int64_t rows_;
};

}  // namespace

std::unique_ptr<CustomOp> make_quant_gather_op(const SessionContext* session) {
  return std::make_unique<Op<QuantGatherKernel>>(
      OpSchema{"QuantGather",
               {{kInt64, kRequired}, {kUndefined, kRequired}, {kFloat, kOptional}, {kUndefined, kOptional}}},
      session);
}

}  // namespace fdq::ort
