// SPDX-License-Identifier: Apache-2.0
// signalfd and the masks around it.
#include "control/stop_signals.h"

#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "runtime/shard.h"
#include "runtime/socket_stream.h"

namespace ringdisk {
namespace {

sigset_t stop_set() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGHUP);
  return set;
}

Result<void> block(const sigset_t& set) {
  if (int failed = pthread_sigmask(SIG_BLOCK, &set, nullptr); failed != 0) {
    return Error::from_errno(failed, "block signals");
  }
  return {};
}

}  // namespace

Result<void> StopSignals::start() {
  const sigset_t set = stop_set();
  int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd < 0) return Error::from_errno(errno, "signalfd");
  signals_ = FileDescriptor(fd);
  return block(set);
}

Result<void> ignore_broken_pipes() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  return block(set);
}

Result<void> ignore_file_size_limit() {
  if (std::signal(SIGXFSZ, SIG_IGN) == SIG_ERR) return Error::from_errno(errno, "ignore signal");
  return {};
}

// False: there was none after all.
bool StopSignals::take_signal() {
  signalfd_siginfo came;
  if (read(signals_.get(), &came, sizeof came) != sizeof came) return false;
  received_ = static_cast<int>(came.ssi_signo);
  return true;
}

Task<void> StopSignals::watch(Shard& shard, std::span<CancelSource* const> sources,
                              CancelToken token) {
  while (!sources.empty()) {
    Result<void> ready =
        co_await wait_until_ready(shard, signals_.get(), IoOpcode::kPollIn, token).result();
    if (token.is_cancelled()) co_return;
    co_await std::move(ready);
    if (!take_signal()) continue;
    if (sources.size() == 1) {
      const sigset_t set = stop_set();
      pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
    }
    sources.front()->cancel();
    sources = sources.subspan(1);
  }
}

}  // namespace ringdisk
