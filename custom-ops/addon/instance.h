// What the addon keeps for each JS environment (the main thread, each worker_thread).
#pragma once

#include <napi.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "addon/session.h"

namespace fdq::addon {

class Instance {
 public:
  static Instance& of(Napi::Env env) { return *env.GetInstanceData<Instance>(); }

  Napi::FunctionReference& session_class() { return session_class_; }
  void add(const std::shared_ptr<Session>& session) {
    sessions_.erase(std::remove_if(sessions_.begin(), sessions_.end(), [](const auto& weak) { return weak.expired(); }),
                    sessions_.end());
    sessions_.push_back(session);
  }
  // Stops every run under way, so that the environment can end at once.
  void terminate() {
    for (const std::weak_ptr<Session>& weak : sessions_) {
      if (const std::shared_ptr<Session> session = weak.lock()) session->close(true);
    }
    sessions_.clear();
  }

 private:
  Napi::FunctionReference session_class_;
  std::vector<std::weak_ptr<Session>> sessions_;
};

}  // namespace fdq::addon
