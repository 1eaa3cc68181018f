// A promise settled by work on a libuv thread. Errors thrown by the work reject it with their message.
#pragma once

#include <napi.h>

#include <exception>
#include <functional>
#include <string>
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
      failed_ = true;
      message_ = error.what();
    }
  }

  // Replaces the base's, which lets errors of Node-API out. Those come when a worker_thread is terminated: Node waits
  // for the work and then calls this in an environment that refuses to run JS. Nobody waits for the promise there.
  void OnWorkComplete(Napi::Env env, napi_status) override {
    try {
      Napi::HandleScope scope(env);
      settle(env);
    } catch (const Napi::Error&) {
    }
    Destroy();
  }

  void settle(Napi::Env env) {
    if (failed_) return deferred_.Reject(Napi::Error::New(env, message_).Value());
    Napi::Value reason;
    try {
      return deferred_.Resolve(convert_(env, result_));
    } catch (const Napi::Error& error) {
      reason = error.Value();
    } catch (const std::exception& error) {
      reason = Napi::Error::New(env, error.what()).Value();
    }
    deferred_.Reject(reason);
  }

  Napi::Promise::Deferred deferred_;
  Napi::Reference<Napi::Value> keep_;
  Work work_;
  Convert convert_;
  Result result_{};
  bool failed_ = false;
  std::string message_;
};

}  // namespace fdq::addon
