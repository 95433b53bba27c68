// SPDX-License-Identifier: Apache-2.0
// EpollLoop: a Loop for kernels and sandboxes without io_uring. Readiness comes from epoll; file
// I/O, which has none, runs on WorkerThreads that all shards share. Complete and tested like the
// other; only slower.
#pragma once

#include <memory>

#include "base/result.h"
#include "runtime/loop.h"
#include "runtime/worker_threads.h"

namespace ringdisk {

// `threads` outlives the loop.
Result<std::unique_ptr<Loop>> make_epoll_loop(WorkerThreads& threads);

}  // namespace ringdisk
