#include <stdexcept>

#include "ort/registry.h"

namespace fdq::ort {
namespace {

class SwigluKernel {
 public:
  SwigluKernel(const SessionContext& session, const KernelInfo&) : isa_(session.isa) {}

  void compute(const KernelContext& context) {
    const Tensor x = context.input(0);
    if (x.shape.size() != 2 || x.shape[1] % 2 != 0) throw std::invalid_argument("x must be [tokens, 2 width]");
    const int64_t width = x.shape[1] / 2;
    float* y = context.output({x.shape[0], width});
    swiglu(x.as<float>(), x.shape[0], width, y, isa_, context.parallel());
  }

 private:
  Isa isa_;
};

}  // namespace

std::unique_ptr<CustomOp> make_swiglu_op(const SessionContext* session) {
  return std::make_unique<Op<SwigluKernel>>(OpSchema{"SwiGLU", {{kFloat, kRequired}}}, session);
}

}  // namespace fdq::ort
