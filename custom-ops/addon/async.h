// A promise settled by work on a libuv thread. Errors thrown by the work reject it with their message.
#pragma once

#include <napi.h>

#include <functional>
#include <utility>

namespace fdq::addon {

// Result: made on the worker thread; convert: makes the JS value on the JS thread. `keep` holds JS objects whose
// memory the work uses.
template <typename Result>
class AsyncTask final : public Napi::AsyncWorker {
 public:
  using Work = std::function<Result()>;
  using Convert = std::function<Napi::Value(Napi::Env, Result&)>;

  static Napi::Promise run(Napi::Env env, Napi::Value keep, Work work, Convert convert) {
    auto* task = new AsyncTask(env, keep, std::move(work), std::move(convert));
    Napi::Promise promise = task->deferred_.Promise();
    task->Queue();
    return promise;
  }

 private:
  AsyncTask(Napi::Env env, Napi::Value keep, Work work, Convert convert)
      : Napi::AsyncWorker(env, "fdq"),
        deferred_(Napi::Promise::Deferred::New(env)),
        keep_(Napi::Reference<Napi::Value>::New(keep, 1)),
        work_(std::move(work)),
        convert_(std::move(convert)) {}

  void Execute() override {
    try {
      result_ = work_();
    } catch (const std::exception& error) {
      SetError(error.what());
    }
  }
  void OnOK() override { deferred_.Resolve(convert_(Env(), result_)); }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

  Napi::Promise::Deferred deferred_;
  Napi::Reference<Napi::Value> keep_;
  Work work_;
  Convert convert_;
  Result result_{};
};

}  // namespace fdq::addon
