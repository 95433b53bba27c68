// SPDX-License-Identifier: Apache-2.0
// signalfd and the masks around it.
#include "control/stop_signals.h"

#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "runtime/shard.h"

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

}  // namespace

Result<void> StopSignals::start() {
  sigset_t set = stop_set();
  int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd < 0) return Error::from_errno(errno, "signalfd");
  signals_ = FileDescriptor(fd);
  sigaddset(&set, SIGPIPE);  // a peer that has gone is an errno, not the end
  if (int failed = pthread_sigmask(SIG_BLOCK, &set, nullptr); failed != 0) {
    return Error::from_errno(failed, "block signals");
  }
  return {};
}

void StopSignals::take_signal(CancelSource& source) {
  signalfd_siginfo came;
  if (read(signals_.get(), &came, sizeof came) != sizeof came) return;
  received_ = static_cast<int>(came.ssi_signo);
  sigset_t set = stop_set();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  source.cancel();
}

Task<void> StopSignals::watch(Shard& shard, CancelSource& source, CancelToken token) {
  while (is_started() && received_ == 0) {
    Result<void> ready =
        co_await wait_until_ready(shard, signals_.get(), IoOpcode::kPollIn, token).result();
    if (token.is_cancelled()) co_return;
    co_await std::move(ready);
    take_signal(source);
  }
}

}  // namespace ringdisk
