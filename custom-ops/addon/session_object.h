// The JS face of a Session.
#pragma once

#include <napi.h>

#include <memory>

#include "addon/session.h"

namespace fdq::addon {

class SessionObject : public Napi::ObjectWrap<SessionObject> {
 public:
  static Napi::Function define(Napi::Env env);
  // createSession(options): resolves to a NativeSession.
  static Napi::Value create(const Napi::CallbackInfo& info);

  explicit SessionObject(const Napi::CallbackInfo& info);
  ~SessionObject() override;

 private:
  Napi::Value run(const Napi::CallbackInfo& info);
  Napi::Value run_and_sample(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  Napi::Value input_names(const Napi::CallbackInfo& info);
  Napi::Value output_names(const Napi::CallbackInfo& info);

  std::shared_ptr<Session> session_;
  Napi::Reference<Napi::Value> memory_;  // the initializers' ArrayBuffers, until the session is closed
};

}  // namespace fdq::addon
