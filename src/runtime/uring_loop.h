// SPDX-License-Identifier: Apache-2.0
// UringLoop: a Loop over one io_uring that only its shard's thread submits to (single issuer;
// deferred task work where the kernel has it, so completions are handled when the shard asks, not
// by interrupting it). All requests of a turn go to the kernel in one system call, and completions
// come back in batches.
//
//   Result<std::unique_ptr<Loop>> loop = make_uring_loop();      // on the thread that will drive
//   it
//
// Fails with kUnsupported where the kernel or a sandbox has no io_uring; the caller falls back to
// the epoll loop.
#pragma once

#include <memory>

#include "base/result.h"
#include "runtime/loop.h"

namespace ringdisk {

Result<std::unique_ptr<Loop>> make_uring_loop();

}  // namespace ringdisk
