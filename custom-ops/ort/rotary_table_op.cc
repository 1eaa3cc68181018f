#include <stdexcept>

#include "ort/registry.h"

namespace fdq::ort {
namespace {

class RotaryTableKernel {
 public:
  RotaryTableKernel(const SessionContext&, const KernelInfo& info) {
    args_.attention_factor = info.get_float("attention_factor");
    args_.ntk_base = info.get_float("ntk_base");
    args_.ntk_factor = info.get_float("ntk_factor");
    args_.ntk_original = info.get_int("ntk_original");
  }

  void compute(const KernelContext& context) {
    const Tensor positions = context.input(0);
    const Tensor frequencies = context.input(1);
    if (positions.shape.size() != 1 || frequencies.shape.size() != 1) {
      throw std::invalid_argument("positions and inverse_frequencies must be vectors");
    }
    RotaryArgs args = args_;
    args.positions = positions.as<int32_t>();
    args.tokens = positions.shape[0];
    args.inverse_frequencies = frequencies.as<float>();
    args.pairs = frequencies.shape[0];
    args.output = context.output({args.tokens, 2 * args.pairs});
    rotary_table(args);
  }

 private:
  RotaryArgs args_{};
};

}  // namespace

std::unique_ptr<CustomOp> make_rotary_table_op(const SessionContext* session) {
  return std::make_unique<Op<RotaryTableKernel>>(
      OpSchema{"RotaryTable", {{kInt32, kRequired}, {kFloat, kRequired}}}, session);
}

}  // namespace fdq::ort
